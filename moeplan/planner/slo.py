"""Service-level objectives: limits on TTFT, ITL, TPOT and end-to-end latency."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

from moeplan.errors import InputError

Statistic = Literal["mean", "p50", "p90", "p99"]
LatencyMetric = Literal["ttft", "itl", "tpot", "e2e"]

STATISTICS: tuple[Statistic, ...] = get_args(Statistic)
METRICS: tuple[LatencyMetric, ...] = get_args(LatencyMetric)

_PATTERN = re.compile(r"(?:(mean|p50|p90|p99):)?\s*([0-9.]+(?:e-?[0-9]+)?)\s*(ms|s)", re.I)
_UNIT_SECONDS = {"ms": 1e-3, "s": 1.0}
_LONGEST_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Limit:
    """One objective: a statistic of a latency stays at or below `seconds`."""

    metric: LatencyMetric
    statistic: Statistic
    seconds: float

    def __str__(self) -> str:
        prefix = "" if self.statistic == "mean" else f"{self.statistic} "
        text = f"{self.seconds:g} s" if self.seconds >= 1 else f"{self.seconds * 1e3:g} ms"
        return f"{prefix}{self.metric.upper()} ≤ {text}"


def parse_limit(metric: LatencyMetric, text: str) -> Limit:
    """Read "2s", "30ms" or "p99:1.5s"; raise `InputError` otherwise.

    Without a statistic the limit holds for the mean.
    """
    found = _PATTERN.fullmatch(text.strip())
    if not found:
        raise InputError(f"--{metric} {text!r} is not a time; write it as 2s, 30ms or p99:500ms")
    statistic, number, unit = found.groups()
    try:
        seconds = float(number) * _UNIT_SECONDS[unit.lower()]
    except ValueError:
        raise InputError(f"--{metric} {text!r}: {number!r} is not a number") from None
    if not (math.isfinite(seconds) and 0 < seconds <= _LONGEST_SECONDS):
        raise InputError(f"--{metric} {text!r} must be above 0 and at most a day")
    return Limit(metric, (statistic or "mean").lower(), seconds)
