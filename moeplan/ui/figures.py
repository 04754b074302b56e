"""Figures of a JSON answer as text, by the same rules that print them in a terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moeplan.cli import render
from moeplan.estimate import Estimate

Figure = dict[str, Any] | None
"""An `Estimate` as JSON holds it."""
MS = 1e3


def text(figure: Figure, scale: float = 1.0, form: Callable[[float], str] = render.number) -> str:
    """A predicted figure times `scale`, with its interval where it has one."""
    return render.estimate(Estimate(**figure) if figure else None, scale, form)


def time_text(figure: Figure) -> str:
    """A predicted time with its unit."""
    return text(figure, form=render.seconds)


def value(figure: Figure, scale: float = 1.0) -> float | None:
    """The bare number, for a plot."""
    return None if figure is None else figure["value"] * scale


def trust(figure: Figure) -> str:
    """What a figure rests on, and whether an interval stands behind it."""
    if figure is None:
        return ""
    kind = "calibrated" if figure["low"] is not None else "uncalibrated: no interval yet"
    return f"Predictions are {kind}; basis: {figure['basis']}."


def escaped(line: str) -> str:
    """Text of others as Streamlit's Markdown shows it unchanged."""
    return "".join(f"\\{c}" if c in _MARKUP else c for c in line)


_MARKUP = frozenset("\\`*_{}[]<>()#+-.!|~$:")
