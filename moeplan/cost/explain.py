"""One step taken apart, operator by operator."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from moeplan.cost.batch import StepBatch
from moeplan.cost.engine import ResolvedEngine
from moeplan.cost.operators import (
    Cost,
    DecodeAttentionOperator,
    Load,
    Operator,
    draft_novelty,
    states_a_decode,
)
from moeplan.cost.routing import distinct_experts
from moeplan.cost.stages import Stage
from moeplan.models.architecture import Architecture, MoEFFN
from moeplan.models.checkpoint import BITS_PER_BYTE, Checkpoint


@dataclass(frozen=True, slots=True)
class OperatorShare:
    """One operator's part in one step on one GPU of one pipeline stage."""

    stage: int
    name: str
    count: float
    bytes: float
    flops: float
    seconds: float
    bound: str
    family: str
    source: str
    grade: str


def operator_shares(
    stages: tuple[Stage, ...],
    batch: StepBatch,
    engine: ResolvedEngine,
    drafter: Stage | None = None,
) -> list[OperatorShare]:
    """Every operator of a step: bytes, FLOPs and seconds of all executions, and what binds.

    With drafts, `batch` computes them and `drafter` is one pass of what makes them.
    """
    rows: list[OperatorShare] = []
    for index, stage in enumerate(stages):
        rows += _stage_shares(index, stage, batch, engine, batch.tokens_a_decode)
    if drafter is not None:
        rows += _drafts(len(stages) - 1, drafter, batch, engine)
    return _merged([row for row in rows if row.seconds > 0])


def _drafts(
    index: int, drafter: Stage, batch: StepBatch, engine: ResolvedEngine
) -> list[OperatorShare]:
    """The first pass follows all tokens of the step, each further one a token a sequence."""
    contexts = [*batch.decode_contexts, *(new + before for new, before in batch.prefill_chunks)]
    further = StepBatch(contexts, sampled_rows=len(contexts))
    times = engine.tokens_a_decode - 2
    rows = _stage_shares(index, drafter, batch, engine, 1)
    rows += [_times(row, times) for row in _stage_shares(index, drafter, further, engine, 1)]
    return [replace(row, name=f"drafter: {row.name}") for row in rows]


def _times(row: OperatorShare, times: float) -> OperatorShare:
    scaled = {name: times * getattr(row, name) for name in ("count", "bytes", "flops", "seconds")}
    return replace(row, **scaled)


def _stage_shares(
    index: int, stage: Stage, batch: StepBatch, engine: ResolvedEngine, rows_a_decode: int
) -> list[OperatorShare]:
    decodes, each = len(batch.decode_contexts), batch.tokens_a_decode
    padded = engine.padded_tokens(batch.tokens)
    load = Load(
        float(padded if engine.routes_padding else batch.tokens),
        float(padded),
        decodes * states_a_decode(each),
        float(batch.tokens - each * decodes),
        float(batch.sampled_rows + (rows_a_decode - 1) * decodes),
        1.0 if batch.prefill_chunks else draft_novelty(each),
    )
    rows = [_share(index, op, op.cost(load)) for op in stage.token]
    rows += [_share(index, op, _decode_cost(op, batch)) for op in stage.decode_attention]
    return rows + [
        _share(index, op, cost)
        for op in stage.prefill_attention
        for cost in _prefill_costs(op, batch)
    ]


def _decode_cost(op: DecodeAttentionOperator, batch: StepBatch) -> Cost:
    each = batch.tokens_a_decode
    contexts = np.asarray(batch.decode_contexts, dtype=float) + each
    if op.cap is not None:
        contexts = np.minimum(contexts, op.cap)
    together = replace(op, flops_per_context_token=each * op.flops_per_context_token)
    return together.cost(contexts.sum())


def _prefill_costs(op, batch: StepBatch) -> list[Cost]:
    return [op.cost(new, before) for new, before in batch.prefill_chunks]


def _share(stage: int, op: Operator, cost: Cost) -> OperatorShare:
    return OperatorShare(
        stage=stage,
        name=op.name,
        count=op.count,
        bytes=op.count * float(cost.bytes),
        flops=op.count * float(cost.flops),
        seconds=op.count * float(cost.seconds),
        bound=cost.bound,
        family=op.family,
        source=op.provenance.source,
        grade=op.provenance.grade,
    )


def _merged(rows: list[OperatorShare]) -> list[OperatorShare]:
    """Rows of one operator and family added up (layer kinds that differ only in position)."""
    merged: dict[tuple[int, str, str, str], OperatorShare] = {}
    for row in rows:
        key = (row.stage, row.name, row.family, row.bound)
        seen = merged.get(key)
        if seen is None:
            merged[key] = row
            continue
        merged[key] = OperatorShare(
            row.stage,
            row.name,
            seen.count + row.count,
            seen.bytes + row.bytes,
            seen.flops + row.flops,
            seen.seconds + row.seconds,
            row.bound,
            row.family,
            row.source,
            row.grade,
        )
    return list(merged.values())


@dataclass(frozen=True, slots=True)
class CoveragePoint:
    """How many experts of a layer a step of so many tokens touches."""

    tokens: int
    experts: float


@dataclass(frozen=True, slots=True)
class ExpertCoverage:
    """Expected distinct experts over the tokens of a step."""

    num_experts: int
    experts_per_token: int
    points: tuple[CoveragePoint, ...]


def expert_coverage(architecture: Architecture, sigma: float, tokens: int) -> ExpertCoverage | None:
    """Coverage of the first MoE layer at powers of two and at `tokens`; None without experts.

    `sigma` is the spread of expert popularity (see `routing`).
    """
    found = (layer.ffn for layer in architecture.layers if isinstance(layer.ffn, MoEFFN))
    moe = next(found, None)
    if moe is None:
        return None
    batches = sorted({*(2**n for n in range(_COVERAGE_DOUBLINGS)), tokens})
    touched = distinct_experts(moe.num_experts, moe.num_experts_per_tok, sigma, np.array(batches))
    points = zip(batches, touched.tolist(), strict=True)
    return ExpertCoverage(
        moe.num_experts,
        moe.num_experts_per_tok,
        tuple(CoveragePoint(batch, experts) for batch, experts in points),
    )


_COVERAGE_DOUBLINGS = 13


def effective_bit_work(architecture: Architecture, checkpoint: Checkpoint) -> float:
    """Bits of weights that one token multiplies: active parameters × bits of their format.

    The input table is left out (one row is read), unless it serves as the LM head too.
    """
    share = 1.0
    for layer in architecture.layers:
        if isinstance(layer.ffn, MoEFFN):
            share = layer.ffn.num_experts_per_tok / layer.ffn.num_experts
    bits = 0.0
    for component, params in architecture.components.items():
        if component == "embed" and not architecture.tie_word_embeddings:
            continue
        active = share if component in ("routed_experts", "expert_bias") else 1.0
        bits += params * active * checkpoint.bytes_per_weight(component) * BITS_PER_BYTE
    return bits
