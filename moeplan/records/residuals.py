"""How far predictions of published runs were off, and what that says of other predictions.

`residuals.json` holds ln(measured / predicted) of every trusted figure of the published runs that
moeplan predicts, with its source; `docs/make_residuals.py` writes it. An interval for a new
prediction is the spread of those of like runs: of the same GPU, engine and model where enough
sources measured such, else of a wider group. Sources weigh alike, however many rows each has.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import numpy as np

from moeplan.estimate import COVERED

FEWEST_ROWS = 8
FEWEST_SOURCES = 3
"""A group with fewer rows or sources is widened."""
WIDENED = 1.0
"""Intervals from few sources are widened by 1 + this / sources, as a quantile of few draws must be.
Chosen with the two above so that intervals hold what they should of sources they have not seen."""


@dataclass(frozen=True, slots=True)
class Residual:
    """One figure of one published run."""

    source: str
    device: str
    engine: str
    model: str
    family: str
    """Of `report.FAMILIES`."""
    log_ratio: float
    """ln(measured / predicted)."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Bounds of ln(measured / predicted), and the rows behind them."""

    low: float
    high: float
    rows: int
    sources: int
    group: str

    @property
    def source(self) -> str:
        """In words."""
        return f"{self.rows} published runs of {self.sources} sources ({self.group})"


def published_interval(
    family: str, device: str, engine: str, model: str, unseen: str | None = None
) -> Interval | None:
    """The interval of predictions like this one; None where nobody measured such figures.

    Rows of the source `unseen` are left out.
    """
    known = [r for r in residuals() if r.family == family and r.source != unseen]
    for group, rows in _groups(known, device, engine, model):
        sources = len({r.source for r in rows})
        if len(rows) >= FEWEST_ROWS and sources >= FEWEST_SOURCES:
            low, high = _quantiles(rows)
            return Interval(low, high, len(rows), sources, group)
    return None


def _groups(
    known: Sequence[Residual], device: str, engine: str, model: str
) -> Iterator[tuple[str, list[Residual]]]:
    """Groups that a prediction belongs to, the narrowest first."""
    same_engine = [r for r in known if r.engine == engine]
    own = [r for r in same_engine if r.device == device]
    yield f"{model}, {engine} on {device}", [r for r in own if r.model == model]
    yield f"{engine} on {device}", own
    yield f"{engine}", same_engine
    yield "all", list(known)


def _quantiles(rows: Sequence[Residual]) -> tuple[float, float]:
    """The middle `COVERED` of the residuals, each source weighing alike."""
    each = Counter(r.source for r in rows)
    ordered = sorted((r.log_ratio, 1 / each[r.source]) for r in rows)
    values, weights = np.array(ordered).T
    places = (np.cumsum(weights) - weights / 2) / weights.sum()
    tail = (1 - COVERED) / 2
    low, middle, high = np.interp([tail, 0.5, 1 - tail], places, values).tolist()
    widened = 1 + WIDENED / len(each)
    return middle + widened * (low - middle), middle + widened * (high - middle)


@dataclass(frozen=True, slots=True)
class Coverage:
    """How intervals made without a source hold that source's figures."""

    family: str
    rows: int
    sources: int
    inside: float
    """Share of rows inside."""
    median_width: float
    """Median of high / low - 1."""


def coverage() -> list[Coverage]:
    """Every family, each source held against intervals that have not seen it."""
    found = []
    for family in dict.fromkeys(r.family for r in residuals()):
        held: list[tuple[Residual, Interval]] = []
        for r in residuals():
            if r.family != family:
                continue
            interval = published_interval(family, r.device, r.engine, r.model, r.source)
            if interval is not None:
                held.append((r, interval))
        if held:
            found.append(_coverage(family, held))
    return found


def _coverage(family: str, held: Sequence[tuple[Residual, Interval]]) -> Coverage:
    inside = [i.low <= r.log_ratio <= i.high for r, i in held]
    widths = [np.expm1(i.high - i.low) for _, i in held]
    sources = len({r.source for r, _ in held})
    return Coverage(family, len(held), sources, float(np.mean(inside)), float(np.median(widths)))


@lru_cache(maxsize=1)
def residuals() -> tuple[Residual, ...]:
    """All that ship with moeplan."""
    text = resources.files("moeplan.records").joinpath("residuals.json").read_text("utf-8")
    content = json.loads(text)
    return tuple(Residual(*row) for row in content["rows"])
