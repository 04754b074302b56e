"""Figures of a simulated deployment, and the order that an objective gives them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict

from moeplan.cost.predictor import Prepared
from moeplan.hardware_specs.schema import Hardware
from moeplan.planner.bounds import Bounds
from moeplan.planner.money import TOKENS, serving_watts
from moeplan.planner.recommendation import Candidate, Objective, Score
from moeplan.planner.slo import Limit
from moeplan.simulation import metrics
from moeplan.simulation.result import SimulationResult

LATENCIES = {"ttft": metrics.ttft, "tpot": metrics.tpot, "itl": metrics.itl, "e2e": metrics.e2e}


def score_of(
    prepared: Prepared, result: SimulationResult, usd: float | None, hardware: Hardware
) -> Score:
    """The figures of a run that ranking and tables need."""
    gpus = prepared.deployment.placement.gpus
    latencies = {name: asdict(measure(result)) for name, measure in LATENCIES.items()}
    tpot, throughput = latencies["tpot"]["mean"], metrics.output_tok_s(result)
    steady = metrics.steady_ttft(result).mean
    return Score(
        output_tok_s=throughput,
        output_tok_s_per_gpu=throughput / gpus,
        tok_s_per_user=1 / tpot if tpot > 0 else math.inf,
        latencies=latencies,
        steady_ttft_s=None if math.isnan(steady) else steady,
        usd_per_million_output_tokens=usd,
        watts=serving_watts(hardware, prepared.deployment.device) * gpus,
        mean_decode_batch=float(result.token_counts.mean()),
        mean_context=float((result.input_tokens + result.output_tokens / 2).mean()),
        preemptions=int(result.preemptions.sum()),
    )


def missed_limits(score: Score, limits: Iterable[Limit]) -> tuple[Limit, ...]:
    """Limits that a run does not meet."""
    return tuple(limit for limit in limits if score.latency(limit) > limit.seconds)


def rank_key(objective: Objective, candidate: Candidate) -> tuple[float, float, float]:
    """Sort key, larger is better; ties go to fewer GPUs, then to the lower TPOT."""
    score = candidate.score
    tie = (-candidate.prepared.deployment.placement.gpus, score.tok_s_per_user)
    if objective == "latency":
        return (-score.latencies["e2e"]["mean"], *tie)
    if objective == "cost":
        return (_tokens_per_dollar(score.usd_per_million_output_tokens), *tie)
    return (score.output_tok_s, *tie)


def _tokens_per_dollar(usd: float | None) -> float:
    return TOKENS / usd if usd else 0.0


def upper_key(
    objective: Objective, prepared: Prepared, bound: Bounds, usd_per_gpu_hour: float | None
) -> tuple[float, float, float]:
    """The largest `rank_key` that a deployment could reach."""
    gpus = prepared.deployment.placement.gpus
    tie = (-gpus, 1 / bound.tpot_s)
    if objective == "latency":
        return (-bound.e2e_s, *tie)
    if objective == "cost":
        per_dollar = (
            bound.output_tok_s * 3600 / (usd_per_gpu_hour * gpus) if usd_per_gpu_hour else 0
        )
        return (per_dollar, *tie)
    return (bound.output_tok_s, *tie)


def better_front(done: Iterable[Candidate], tok_s_per_gpu: float, tok_s_per_user: float) -> bool:
    """Whether a point with these figures could stand on the Pareto front of those done."""
    return not any(
        c.score.output_tok_s_per_gpu >= tok_s_per_gpu and c.score.tok_s_per_user >= tok_s_per_user
        for c in done
    )
