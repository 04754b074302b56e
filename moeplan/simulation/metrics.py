"""Figures of a run, as the benchmark tools define them.

Unless a name says otherwise the definitions are those of `vllm bench serve`
(vllm/benchmarks/serve.py): the run lasts from the first send to the last token, start-up and tail
included; TTFT starts at the send; percentiles interpolate linearly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from moeplan.simulation.result import SimulationResult


@dataclass(frozen=True, slots=True)
class Distribution:
    """Mean and percentiles, in the unit of what they are of; NaN where there is nothing."""

    mean: float
    p50: float
    p90: float
    p99: float


def distribution(values: np.ndarray, counts: np.ndarray | None = None) -> Distribution:
    """Distribution of values, each occurring `counts` times (once by default); NaN is left out."""
    values = np.asarray(values, float)
    counts = np.ones(len(values), int) if counts is None else np.asarray(counts)
    known = ~np.isnan(values) & (counts > 0)
    values, counts = values[known], counts[known]
    if not len(values):
        return Distribution(math.nan, math.nan, math.nan, math.nan)
    order = np.argsort(values, kind="stable")
    values, counts = values[order], counts[order]
    ends = np.cumsum(counts)
    places = np.array([0.5, 0.9, 0.99]) * (ends[-1] - 1)
    below = np.floor(places)
    low = values[np.searchsorted(ends, below, side="right")]
    high = values[np.searchsorted(ends, np.ceil(places), side="right")]
    p50, p90, p99 = (low + (places - below) * (high - low)).tolist()
    return Distribution(float((values * counts).sum() / ends[-1]), p50, p90, p99)


def duration_s(result: SimulationResult) -> float:
    """From the first send to the last token."""
    return float(result.finish_s.max() - result.sent_s.min())


def output_tok_s(result: SimulationResult) -> float:
    """Output tokens a second over the whole run, all replicas."""
    return float(result.output_tokens.sum()) / duration_s(result)


def total_tok_s(result: SimulationResult) -> float:
    """Input and output tokens a second over the whole run."""
    return float(result.input_tokens.sum() + result.output_tokens.sum()) / duration_s(result)


def request_throughput(result: SimulationResult) -> float:
    """Requests a second over the whole run."""
    return len(result) / duration_s(result)


def ttft(result: SimulationResult) -> Distribution:
    """Time to first token in seconds, all requests."""
    return distribution(result.ttft_s)


def steady_ttft(result: SimulationResult) -> Distribution:
    """Time to first token in seconds of the requests after the first wave."""
    return distribution(result.ttft_s[result.steady])


def tpot(result: SimulationResult) -> Distribution:
    """Time per output token in seconds, first token left out; one value a request."""
    return distribution(result.tpot_s)


def itl(result: SimulationResult) -> Distribution:
    """Gaps between consecutive tokens in seconds, pooled over all requests."""
    return distribution(result.gaps_s, result.gap_counts)


def e2e(result: SimulationResult) -> Distribution:
    """Send to last token in seconds."""
    return distribution(result.e2e_s)


def peak_output_tok_s(result: SimulationResult) -> float:
    """Output tokens in the best of the one-second buckets that begin with the first send."""
    buckets = (result.token_times_s - result.sent_s.min()).astype(int)
    return float(np.bincount(buckets, weights=result.token_counts).max())


def goodput(
    result: SimulationResult,
    *,
    ttft_s: float = math.inf,
    tpot_s: float = math.inf,
    e2e_s: float = math.inf,
) -> float:
    """Requests a second that keep all the given limits; one-token requests have no TPOT."""
    good = (result.ttft_s <= ttft_s) & (result.e2e_s <= e2e_s)
    good &= ~(result.tpot_s > tpot_s)
    return float(good.sum()) / duration_s(result)


def llama_benchy_tg(result: SimulationResult) -> float:
    """llama-benchy's decode rate in tok/s: mean over rounds.

    Output tokens of a round / (its last token - its first first token), so the prefill of other
    requests is inside (github.com/eugr/llama-benchy, results.py).
    """
    rates = []
    for members in _rounds(result):
        span = result.finish_s[members].max() - result.first_token_s[members].min()
        rates.append(result.output_tokens[members].sum() / span if span > 0 else math.nan)
    return float(np.mean(rates))


def llama_benchy_pp(result: SimulationResult, one_token_s: float = 0.0) -> float:
    """llama-benchy's prompt rate in tok/s: mean over rounds.

    Prompt tokens of a round / (time to its last first token - `one_token_s`), which the tool
    takes off at concurrency 1: the time that a request of one token takes.
    """
    rates = []
    for members in _rounds(result):
        span = result.first_token_s[members].max() - result.sent_s[members].min() - one_token_s
        rates.append(result.input_tokens[members].sum() / span if span > 0 else math.nan)
    return float(np.mean(rates))


def _rounds(result: SimulationResult) -> list[slice]:
    width = result.workload.concurrency or len(result)
    return [slice(start, start + width) for start in range(0, len(result), width)]
