"""One step taken apart, operator by operator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moeplan.cost.batch import StepBatch
from moeplan.cost.engine import ResolvedEngine
from moeplan.cost.operators import Cost, Load, Operator
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
    stages: tuple[Stage, ...], batch: StepBatch, engine: ResolvedEngine
) -> list[OperatorShare]:
    """Every operator of a step: bytes, FLOPs and seconds of all executions, and what binds."""
    decodes = len(batch.decode_contexts)
    padded = engine.padded_tokens(batch.tokens)
    load = Load(
        float(padded if engine.routes_padding else batch.tokens),
        float(padded),
        float(decodes),
        float(batch.tokens - decodes),
        float(batch.sampled_rows),
    )
    rows = []
    for index, stage in enumerate(stages):
        rows += [_share(index, op, op.cost(load)) for op in stage.token]
        rows += [_share(index, op, _decode_cost(op, batch)) for op in stage.decode_attention]
        rows += [
            _share(index, op, cost)
            for op in stage.prefill_attention
            for cost in _prefill_costs(op, batch)
        ]
    return _merged([row for row in rows if row.seconds > 0])


def _decode_cost(op, batch: StepBatch) -> Cost:
    contexts = np.asarray(batch.decode_contexts, dtype=float) + 1
    if op.cap is not None:
        contexts = np.minimum(contexts, op.cap)
    return op.cost(contexts.sum())


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
