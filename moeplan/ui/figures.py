"""Figures of a JSON answer as text, by the same rules that print them in a terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moeplan.cli import render
from moeplan.estimate import COVERED, Estimate

Figure = dict[str, Any] | None
"""An `Estimate` as JSON holds it."""
MS = 1e3


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


def trust(figure: Figure) -> str:
    """What a figure rests on, and what its interval does."""
    known = _estimate(figure)
    if known is None:
        return ""
    kind = "calibrated" if known.calibrated else "uncalibrated"
    bounds = "no interval yet"
    if known.bounded:
        bounds = f"in small print {COVERED:.0%} intervals, from {known.interval_from}"
    caveat = f" The {known.caveat}." if known.caveat else ""
    return f"Predictions are {kind}; basis: {known.basis}; {bounds}.{caveat}"


def escaped(line: str) -> str:
    """Text of others as Streamlit's Markdown shows it unchanged."""
    return "".join(f"\\{c}" if c in _MARKUP else c for c in line)


_MARKUP = frozenset("\\`*_{}[]<>()#+-.!|~$:")
