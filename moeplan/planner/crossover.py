"""Where one load curve overtakes another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Crossover:
    """Two curves meet at about this load."""

    load: float
    level: float
    above: int
    """Which of the two is the higher one beyond it: 0 or 1."""


def crossovers(
    loads: Sequence[float], first: Sequence[float | None], second: Sequence[float | None]
) -> list[Crossover]:
    """Crossings of two curves over the same loads, interpolated on logarithmic axes.

    Values must be above 0; None leaves a gap.
    """
    gaps = [
        math.log(a / b) if a and b else None for a, b in zip(first, second, strict=True)
    ]
    found = []
    for i in range(len(loads) - 1):
        before, after = gaps[i], gaps[i + 1]
        if before is None or after is None or before * after >= 0:
            continue
        share = before / (before - after)
        load = _between(loads[i], loads[i + 1], share)
        found.append(Crossover(load, _between(first[i], first[i + 1], share), int(after < 0)))
    return found


def _between(low: float | None, high: float | None, share: float) -> float:
    assert low and high
    return math.exp(math.log(low) * (1 - share) + math.log(high) * share)
