"""Figures of the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from moeplan.validate.compare import Comparison, kind_of
from moeplan.validate.measured import MeasuredRun

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_PLOTTED = ("output_tok_s", "tpot_ms_mean", "ttft_ms_mean")
_PARTS = (
    ("schedule_s", "schedule"),
    ("step_times_s", "step times"),
    ("outside_s", "outside of steps"),
)


def scatter_plot(comparisons: Sequence[Comparison]) -> Figure:
    """Measured against predicted for the main metrics, with the line on which they are equal."""
    from plotly.subplots import make_subplots

    figure = make_subplots(1, len(_PLOTTED), subplot_titles=_PLOTTED)
    for column, name in enumerate(_PLOTTED, 1):
        points = [(c.key, r) for c in comparisons for r in c.client if r.name == name]
        if not points:
            continue
        measured = [row.measured for _, row in points]
        predicted = [row.predicted for _, row in points]
        ends = [min(measured + predicted), max(measured + predicted)]
        figure.add_scatter(
            x=ends, y=ends, mode="lines", line={"dash": "dot", "color": "#999"}, row=1, col=column
        )
        figure.add_scatter(
            x=measured, y=predicted, text=[key for key, _ in points], mode="markers", row=1,
            col=column,
        )  # fmt: skip
    figure.update_xaxes(title_text="measured", type="log")
    figure.update_yaxes(title_text="predicted", type="log")
    figure.update_layout(template="plotly_white", showlegend=False, height=380)
    return figure


def attribution_plot(comparisons: Sequence[Comparison]) -> Figure | None:
    """Parts of each run's error in duration, relative to the measured duration."""
    from plotly.graph_objects import Figure

    known = [c for c in comparisons if c.attribution is not None]
    if not known:
        return None
    figure = Figure()
    for field, label in _PARTS:
        shares = [getattr(c.attribution, field) / c.attribution.measured_s for c in known]
        figure.add_bar(x=[c.key for c in known], y=shares, name=label)
    figure.update_layout(
        template="plotly_white",
        barmode="relative",
        height=380,
        title="Where predicted and measured duration part ways",
        yaxis={"title": "share of the measured duration", "tickformat": "+.0%"},
    )
    return figure


def step_plot(run: MeasuredRun, comparison: Comparison) -> Figure:
    """Duration of every recorded step of the first repeat, by kind, over its number."""
    from plotly.graph_objects import Figure

    trace = run.traces[0]
    seconds = trace.seconds() * 1e3
    kinds = np.array([kind_of(trace, step) for step in range(len(trace))])
    figure = Figure()
    for kind in [errors.kind for errors in comparison.step_errors]:
        chosen = np.flatnonzero(kinds == kind)
        figure.add_scattergl(x=chosen, y=seconds[chosen], mode="markers", name=kind)
    figure.update_layout(
        template="plotly_white",
        height=330,
        title="Recorded steps",
        xaxis_title="step",
        yaxis={"title": "ms", "type": "log"},
    )
    return figure
