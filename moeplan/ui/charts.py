"""Plots: colours of Okabe and Ito (2008), which colour-blind readers tell apart, and one layout.

Series also differ by marker and dash. Streamlit's theme gives axes and text the colours of the
light or dark page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
import streamlit as st

BLUE, ORANGE, GREEN = "#0072B2", "#E69F00", "#009E73"
RED, PINK, SKY, YELLOW = "#D55E00", "#CC79A7", "#56B4E9", "#F0E442"
PALETTE = (BLUE, ORANGE, GREEN, RED, PINK, SKY, YELLOW)
GREY = "#8A8A8A"
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
SMALLEST = 0.05
"""Parts of a bar below this would be named "0.0"."""
CONFIG = {"displaylogo": False, "responsive": True, "scrollZoom": False}


def colour(index: int) -> str:
    """Colour of the series of that number; on a dark page the lighter ones come first."""
    palette = _ON_DARK if st.context.theme.type == "dark" else PALETTE
    return palette[index % len(palette)]


_ON_DARK = (SKY, ORANGE, GREEN, RED, PINK, YELLOW, BLUE)


def symbol(index: int) -> str:
    """Marker of the series of that number."""
    return SYMBOLS[index % len(SYMBOLS)]


def figure(height: int = 380, **layout: Any) -> go.Figure:
    """An empty plot with the common layout: legend below, narrow margins."""
    made = go.Figure()
    lay_out(made, height, **layout)
    return made


def lay_out(made: go.Figure, height: int, **layout: Any) -> None:
    """Give a plot the common layout."""
    made.update_layout(
        height=height,
        margin={"l": 8, "r": 8, "t": 36, "b": 8},
        legend={
            "orientation": "h",
            "yref": "container",
            "y": 0,
            "x": 0,
            "yanchor": "bottom",
            "maxheight": 1.0,
        },
        hoverlabel={"align": "left"},
        colorway=PALETTE,
    )
    made.update_layout(**layout)
    made.update_xaxes(automargin=True)
    made.update_yaxes(automargin=True)


def draw(made: go.Figure, key: str, *, tools: bool = True, **extra: Any) -> Any:
    """Show a plot over the full width; returns what the user selected where that is asked for.

    Without `tools` no buttons lie over a plot that has no room for them.
    """
    config = CONFIG | ({} if tools else {"displayModeBar": False})
    return st.plotly_chart(made, key=key, config=config, **extra)


def stacked_bar(parts: Sequence[tuple[str, float]], unit: str, height: int = 250) -> go.Figure:
    """One horizontal bar of parts that add up."""
    made = figure(height, barmode="stack", xaxis_title=unit, hovermode="closest")
    made.update_layout(margin={"t": 8})
    shown = [(name, size) for name, size in parts if size >= SMALLEST]
    for index, (name, size) in enumerate(shown):
        fill = GREY if name in ("free", "other") else colour(index)
        made.add_bar(
            x=[size],
            y=[""],
            name=f"{name} {size:,.1f}",
            orientation="h",
            marker={"color": fill, "line": {"width": 1, "color": "rgba(128,128,128,0.4)"}},
            hovertemplate=f"{name}: %{{x:,.2f}} {unit}<extra></extra>",
        )
    made.update_layout(legend={"traceorder": "normal"})
    return made


def bars(
    names: Sequence[str], sizes: Sequence[float], title: str, text: Sequence[str]
) -> go.Figure:
    """Horizontal bars, the first on top; those below zero in another colour.

    The text of a bar stands under its name, where it fits on any screen.
    """
    made = figure(70 + 42 * len(names), xaxis_title=title, showlegend=False)
    made.add_bar(
        x=list(sizes),
        y=[f"{name}<br>{line}" for name, line in zip(names, text, strict=True)],
        orientation="h",
        marker={"color": [BLUE if size >= 0 else RED for size in sizes]},
        hovertemplate="%{y}<extra></extra>",
    )
    made.update_layout(margin={"t": 8})
    made.update_yaxes(autorange="reversed")
    return made


def limit_line(made: go.Figure, level: float, label: str, **where: Any) -> None:
    """A dashed line at a limit, named."""
    made.add_hline(
        y=level,
        line={"color": RED, "dash": "dash", "width": 1.5},
        annotation={"text": label, "font": {"color": RED}},
        annotation_position="top left",
        **where,
    )
