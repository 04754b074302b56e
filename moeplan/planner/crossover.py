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
    found = []
    before: tuple[_Point, float] | None = None
    for load, a, b in zip(loads, first, second, strict=True):
        if not a or not b:
            before = None
            continue
        here, gap = (load, a), math.log(a / b)
        if before is not None and before[1] * gap < 0:
            share = before[1] / (before[1] - gap)
            found.append(Crossover(*_between(before[0], here, share), above=int(gap < 0)))
        if gap or before is None:  # where they touch, the next point tells whether they cross
            before = here, gap
    return found


_Point = tuple[float, float]


def _between(low: _Point, high: _Point, share: float) -> _Point:
    load, level = (
        math.exp(math.log(a) * (1 - share) + math.log(b) * share)
        for a, b in zip(low, high, strict=True)
    )
    return load, level
