"""What makes one deployment better than another: merits, ties, limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

from moeplan.planner.money import TOKENS
from moeplan.planner.slo import Limit

Objective = Literal["throughput", "latency", "cost"]
Latencies = dict[str, dict[str, float]]
"""Seconds by metric (ttft, tpot, itl, e2e) and statistic (mean, p50, p90, p99)."""
T = TypeVar("T")

TIE = 0.02
"""Merits closer than this rank as equal: repeated measurements of one deployment differ by 2 % in
the median (study of 1,700 published runs), and a prediction cannot tell apart what those cannot."""


def merit(
    objective: Objective,
    output_tok_s: float,
    latencies: Latencies,
    usd_per_million_output_tokens: float | None,
) -> float:
    """What an objective maximises: tokens a second, a dollar, or requests a second of latency."""
    if objective == "latency":
        return 1 / max(latencies["e2e"]["mean"], 1e-12)
    if objective == "cost":
        usd = usd_per_million_output_tokens
        return TOKENS / usd if usd else 0.0
    return output_tok_s


def excess(latencies: Latencies, limits: Sequence[Limit]) -> float:
    """The worst ratio of a latency to its limit; at most 1 where all are met, 0 without limits."""
    return max((latencies[x.metric][x.statistic] / x.seconds for x in limits), default=0.0)


def ranked(
    items: Sequence[T], merit_of: Callable[[T], float], tie_key: Callable[[T], tuple]
) -> list[T]:
    """Items by merit; among those within `TIE` of the best that is left, by the larger tie key."""
    left = sorted(items, key=lambda x: (merit_of(x), tie_key(x)), reverse=True)
    order: list[T] = []
    while left:
        floor = merit_of(left[0]) * (1 - TIE)
        tied = [x for x in left if merit_of(x) >= floor]
        order += sorted(tied, key=tie_key, reverse=True)
        left = left[len(tied) :]
    return order
