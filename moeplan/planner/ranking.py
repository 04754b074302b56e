"""Figures of a simulated deployment, the order of several, and which stand on the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from moeplan.cost.predictor import Prepared
from moeplan.hardware_specs.schema import Hardware
from moeplan.planner.money import HourlyCost, serving_watts, usd_per_million_output_tokens
from moeplan.planner.objective import ranked
from moeplan.planner.recommendation import Candidate, Score
from moeplan.planner.slo import Limit
from moeplan.simulation import metrics
from moeplan.simulation.result import SimulationResult

LATENCIES = {"ttft": metrics.ttft, "tpot": metrics.tpot, "itl": metrics.itl, "e2e": metrics.e2e}


def score_of(
    prepared: Prepared, result: SimulationResult, cost: HourlyCost | None, hardware: Hardware
) -> Score:
    """The figures of a run that ranking and tables need.

    One-token answers have no TPOT and no ITL: both are 0, so that no limit on them binds.
    """
    gpus = prepared.deployment.placement.gpus
    latencies = {name: _known(asdict(measure(result))) for name, measure in LATENCIES.items()}
    tpot, throughput = latencies["tpot"]["mean"], metrics.output_tok_s(result)
    steady = metrics.steady_ttft(result).mean
    return Score(
        output_tok_s=throughput,
        output_tok_s_per_gpu=throughput / gpus,
        tok_s_per_user=1 / tpot if tpot > 0 else math.inf,
        latencies=latencies,
        steady_ttft_s=None if math.isnan(steady) else steady,
        usd_per_million_output_tokens=usd_per_million_output_tokens(cost, gpus, throughput),
        watts=serving_watts(hardware, prepared.deployment.device) * gpus,
        mean_decode_batch=float(result.token_counts.mean()) / _tokens_a_step(prepared),
        mean_context=float((result.input_tokens + result.output_tokens / 2).mean()),
        preemptions=int(result.preemptions.sum()),
    )


def _tokens_a_step(prepared: Prepared) -> float:
    drafts = prepared.engine.speculation
    return drafts.mean_tokens if drafts else 1.0


def _known(values: dict[str, float]) -> dict[str, float]:
    return {name: 0.0 if math.isnan(value) else value for name, value in values.items()}


def missed_limits(score: Score, limits: Iterable[Limit]) -> tuple[Limit, ...]:
    """Limits that a run does not meet."""
    return tuple(limit for limit in limits if score.latency(limit) > limit.seconds)


def pareto_front(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Candidates that no other beats in both tok/s per GPU and tok/s per user; of equals one."""
    ordered = sorted(
        candidates,
        key=lambda c: (c.score.output_tok_s_per_gpu, c.score.tok_s_per_user),
        reverse=True,
    )
    front: list[Candidate] = []
    for candidate in ordered:
        if not front or candidate.score.tok_s_per_user > front[-1].score.tok_s_per_user:
            front.append(candidate)
    return tuple(front)


def beaten(done: Iterable[Candidate], tok_s_per_gpu: float, tok_s_per_user: float) -> bool:
    """Whether a point of these figures cannot stand on the Pareto front beside those done."""
    return any(
        c.score.output_tok_s_per_gpu >= tok_s_per_gpu and c.score.tok_s_per_user >= tok_s_per_user
        for c in done
    )


def in_order(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Candidates by merit, ties by `tie_key`."""
    return ranked(candidates, lambda c: c.merit, lambda c: tie_key(c.prepared, c.merit))


def tie_key(prepared: Prepared, value: float) -> tuple[int, bool, float]:
    """Among equals fewer GPUs, then the KV format that the checkpoint asks for, then more merit."""
    deployment = prepared.deployment
    native = prepared.engine.kv_format == deployment.checkpoint.kv_format
    return -deployment.placement.gpus, native, value


def usual_share(prepared: Prepared) -> float:
    """Share of its bound that a deployment usually reaches; orders the search, no more."""
    placement = prepared.deployment.placement
    if placement.pp > 1:
        return 0.8
    return 0.95 if placement.replicas & (placement.replicas - 1) == 0 else 0.8
