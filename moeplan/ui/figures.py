"""Figures of a JSON answer as text, by the same rules that print them in a terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moeplan.cli import render
from moeplan.estimate import COVERED, Estimate

Figure = dict[str, Any] | None
"""An `Estimate` as JSON holds it."""
MS = 1e3
NO_INTERVAL = "no interval yet"


def text(figure: Figure, scale: float = 1.0, form: Callable[[float], str] = render.number) -> str:
    """A predicted figure times `scale`."""
    return render.estimate(_estimate(figure), scale, form)


def interval(
    figure: Figure, scale: float = 1.0, form: Callable[[float], str] = render.number
) -> str:
    """The interval of a figure times `scale`; empty where it has none."""
    return render.interval(_estimate(figure), scale, form)


def _estimate(figure: Figure) -> Estimate | None:
    return Estimate(**figure) if figure else None


def time_text(figure: Figure) -> str:
    """A predicted time with its unit."""
    return text(figure, form=render.seconds)


def value(figure: Figure, scale: float = 1.0) -> float | None:
    """The bare number, for a plot."""
    return None if figure is None else figure["value"] * scale


def trust(*figures: Figure) -> str:
    """What figures rest on, and what their intervals do."""
    known = [found for figure in figures if (found := _estimate(figure))]
    if not known:
        return ""
    kind = "calibrated" if all(f.calibrated for f in known) else "uncalibrated"
    basis = ", ".join(sorted({f.basis for f in known}))
    sources = " and ".join(sorted({f.interval_from for f in known if f.interval_from}))
    bounds = f"in small print {COVERED:.0%} intervals, from {sources}" if sources else NO_INTERVAL
    lines = [f"Predictions are {kind}; basis: {basis}; {bounds}."]
    lines += [f"The {caveat}." for caveat in sorted({f.caveat for f in known if f.caveat})]
    return " ".join(lines)


def escaped(line: str) -> str:
    """Text of others as Streamlit's Markdown shows it unchanged."""
    return "".join(f"\\{c}" if c in _MARKUP else c for c in line)


_MARKUP = frozenset("\\`*_{}[]<>()#+-.!|~$:")
