"""Bounds that no simulated run can beat: what lets the search skip deployments safely.

Let R replicas run for T seconds. Every step with p > 0 prefill tokens takes at least a + b p (a
supporting line of the step-time table without decodes), and there are at least P / budget of them.
Decodes ride along in those steps, at most n of them each, n being the largest batch; the others
need pure decode steps that yield at most ρ tokens a second, at the shortest context. Hence

    R T ≥ b P + a K + (D − K n)⁺ / ρ    for some K ≥ P / budget,

which is smallest at K = P / budget where a ≥ n / ρ and at K = max(P / budget, D / n) otherwise.
Separately, decode tokens come no faster than R ρ̂(c / R), with ρ̂ the concave hull of ρ over the
batch: requests in flight over all replicas never exceed c.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moeplan.cost.batch import StepBatch, StepTimer
from moeplan.cost.predictor import Prepared
from moeplan.simulation.requests import RequestSpec

_PREFILL_SAMPLES = 65
_SLACK = 1 - 1e-9


@dataclass(frozen=True, slots=True)
class Demand:
    """What a run must compute, whatever serves it."""

    requests: int
    input_tokens: int
    output_tokens: int
    shortest_input: int
    in_flight: int
    """Most requests that the client keeps open at once."""

    @classmethod
    def of(cls, requests: list[RequestSpec], in_flight: int | None) -> Demand:
        """Sum up the requests of a workload; without a client cap all may be open at once."""
        inputs = [r.input_tokens for r in requests]
        return cls(
            len(requests),
            sum(inputs),
            sum(r.output_tokens for r in requests),
            min(inputs),
            min(in_flight or len(requests), len(requests)),
        )


@dataclass(frozen=True, slots=True)
class Bounds:
    """The best that a deployment could do."""

    output_tok_s: float
    ttft_s: float
    tpot_s: float
    e2e_s: float
    """Least mean end-to-end latency."""


def bounds(prepared: Prepared, demand: Demand, *, prefix_caching: bool = False) -> Bounds:
    """Optimistic throughput and latencies of a deployment under a demand.

    With prefix hits possible no prefill work is certain, so only decoding is counted.
    """
    timer, engine = prepared.timer, prepared.engine
    replicas = prepared.deployment.placement.replicas
    in_flight = max(1, min(demand.in_flight, engine.max_num_seqs))
    context = demand.shortest_input
    steps = _decode_steps(timer, in_flight, context)
    decode_tokens = max(demand.output_tokens - demand.requests, 0)
    seconds = decode_tokens / _hull_rate(steps, demand.in_flight / replicas) / replicas
    first = _prefill_seconds(timer, min(demand.shortest_input, engine.max_num_batched_tokens))
    if not prefix_caching:
        seconds = max(seconds, _mixed_seconds(prepared, demand, steps, decode_tokens) / replicas)
    ttft = prepared.engine.host.ttft_us * 1e-6 + (0.0 if prefix_caching else first)
    tpot = _SLACK * float(steps.min())
    return Bounds(
        output_tok_s=demand.output_tokens / max(seconds, 1e-12),
        ttft_s=ttft * _SLACK,
        tpot_s=tpot,
        e2e_s=ttft * _SLACK + tpot * decode_tokens / demand.requests,
    )


def _decode_steps(timer: StepTimer, largest: int, context: int) -> np.ndarray:
    """Seconds of a pure decode step for batches of 1..largest at the shortest context.

    With pipeline stages, other batches are in flight meanwhile: only the slowest stage counts.
    """
    batches = (
        StepBatch(decode_contexts=[context] * n, sampled_rows=n) for n in range(1, largest + 1)
    )
    return np.array([max(timer.stage_seconds(batch)) for batch in batches])


def _hull_rate(steps: np.ndarray, batch: float) -> float:
    """Concave hull of batch / step seconds over (0, 0) and the sampled batches, at `batch`."""
    sizes = np.arange(len(steps) + 1, dtype=float)
    rates = np.concatenate([[0.0], sizes[1:] / steps])
    rates = np.maximum.accumulate(rates)
    hull = [0]
    for i in range(1, len(sizes)):
        while len(hull) > 1 and _below(sizes, rates, hull[-2], hull[-1], i):
            hull.pop()
        hull.append(i)
    return float(np.interp(batch, sizes[hull], rates[hull])) / _SLACK


def _below(x: np.ndarray, y: np.ndarray, left: int, middle: int, right: int) -> bool:
    chord = (y[right] - y[left]) * (x[middle] - x[left])
    return (y[middle] - y[left]) * (x[right] - x[left]) <= chord


def _prefill_seconds(timer: StepTimer, tokens: int) -> float:
    return max(timer.stage_seconds(StepBatch(prefill_chunks=[(tokens, 0)], sampled_rows=0)))


def _mixed_seconds(
    prepared: Prepared, demand: Demand, steps: np.ndarray, decode_tokens: int
) -> float:
    """The bound on R T from prefill and decode together, by the best supporting line."""
    budget = prepared.engine.max_num_batched_tokens
    batch = len(steps)
    rate = (np.arange(1, batch + 1) / steps).max()
    fewest = demand.input_tokens / budget
    best = 0.0
    for slope, start in _supporting_lines(prepared.timer, prepared.engine.cuda_graph_sizes, budget):
        mixed = fewest if start >= batch / rate else max(fewest, decode_tokens / batch)
        pure = max(decode_tokens - mixed * batch, 0.0) / rate
        best = max(best, slope * demand.input_tokens + start * mixed + pure)
    return _SLACK * best


def _supporting_lines(
    timer: StepTimer, graph_sizes: tuple[int, ...], budget: int
) -> list[tuple[float, float]]:
    """(slope, intercept ≥ 0) of lines below the time of a step with p prefill tokens.

    Between two graph sizes the time is constant while the line rises, so the samples hold every
    graph size: the right ends of the stairs.
    """
    geometric = np.geomspace(1, budget, _PREFILL_SAMPLES).round().astype(int)
    sizes = np.unique(np.concatenate([geometric, [n for n in graph_sizes if n <= budget]]))
    times = np.array([_prefill_seconds(timer, int(n)) for n in sizes])
    slopes = np.unique((times[-1] - times[:-1]) / (sizes[-1] - sizes[:-1]))
    lines = [(float(s), float((times - s * sizes).min())) for s in slopes if s > 0]
    return [(0.0, float(times.min()))] + [line for line in lines if line[1] >= 0]
