"""Measured runs beside the curves of page Load curve: which there are, and what they show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from moeplan.records.near import Near, Traffic, gap_of_rate_ms, in_flight, near, traffic_of
from moeplan.records.record import RunRecord
from moeplan.records.served import is_served
from moeplan.ui import charts
from moeplan.ui.figures import escaped
from moeplan.ui.forms import ARRIVALS
from moeplan.ui.records import all_records
from moeplan.ui.state import Inputs

Read = Callable[[RunRecord], float | None]


def _metric(name: str) -> Read:
    return lambda record: record.measured.get(name)


PANELS: tuple[Mapping[str, Read], ...] = (
    {"output tok/s": _metric("output_tok_s")},
    {"mean TTFT": _metric("ttft_ms_mean")},
    {
        "mean ITL": _metric("itl_ms_mean"),
        "mean TPOT": _metric("tpot_ms_mean"),
        "time a token, from the decode rate": gap_of_rate_ms,
    },
)
"""What each plot of the page shows of a record: the first of these that it has."""


def measured_runs(curve: dict[str, Any]) -> Near:
    """Known runs near a curve, engine settings and version aside."""
    return near(
        filter(in_flight, all_records()), curve["deployment"], curve["points"][0]["workload"]
    )


def traces(runs: Near, name: str, index: int) -> list[go.Scatter]:
    """Points of the runs, one trace a plot; the first with any enters the legend."""
    made: list[go.Scatter] = []
    for panel in PANELS:
        seen = [(r, *found) for r in runs.same if (found := _seen(r, panel))]
        shown = bool(seen) and not any(trace.showlegend for trace in made)
        made.append(_trace(seen, name, index, shown))
    return made


def _seen(record: RunRecord, panel: Mapping[str, Read]) -> tuple[str, float] | None:
    known = ((label, read(record)) for label, read in panel.items())
    return next(((label, value) for label, value in known if value), None)


def _trace(
    seen: Sequence[tuple[RunRecord, str, float]], name: str, index: int, in_legend: bool
) -> go.Scatter:
    return go.Scatter(
        x=[in_flight(record) for record, *_ in seen],
        y=[value for *_, value in seen],
        text=[f"measured {label}, {r.id}<br>{_origin(r)}" for r, label, _ in seen],
        name=f"measured: {name}",
        legendgroup=f"measured {index}",
        showlegend=in_legend,
        mode="markers",
        marker={
            "symbol": f"{charts.symbol(index)}-open",
            "size": 12,
            "color": charts.colour(index),
            "line": {"width": 2},
        },
        hovertemplate="%{text}<br>%{y:,.4g}<extra></extra>",
    )


def _origin(record: RunRecord) -> str:
    """The source, and what must be known of a run of the validator."""
    title = record.source.title
    return f"{title}<br>{record.notes}" if is_served(record) and record.notes else title


def explain(inputs: Inputs, names: Sequence[str], found: Sequence[Near]) -> None:
    """How many runs are drawn beside each curve, why not more, and lengths that have some."""
    lines = [_line(name, runs) for name, runs in zip(names, found, strict=True)]
    if any(runs.same or runs.other for runs in found):
        st.caption("\n".join(f"- {escaped(line)}" for line in lines))
    else:
        st.caption(
            f"None of {len(all_records()):,} known runs has the model, weights, GPU and placement "
            "of a deployment here; page Evidence lists them and takes yours."
        )
    usual = Counter(traffic_of(r) for runs in found for r in runs.other).most_common(1)
    if usual and not any(runs.same for runs in found):
        _offer(inputs, usual[0][0])


def _line(name: str, runs: Near) -> str:
    if runs.same:
        seen = sum(any(_seen(record, panel) for panel in PANELS) for record in runs.same)
        served = sum(map(is_served, runs.same))
        own = f"; by moeplan validate, no independent test: {served}" if served else ""
        return f"{name}: {len(runs.same)} measured runs with this traffic; plotted: {seen}{own}."
    if not runs.other:
        placed = ", ".join(f"{place} ({count})" for place, count in runs.spread.items())
        rest = f"; placed otherwise: {placed}" if placed else ""
        return f"{name}: no known run of this model, weights, GPU and placement{rest}."
    known = "; ".join(_words(traffic) for traffic in sorted({traffic_of(r) for r in runs.other}))
    return f"{name}: {len(runs.other)} measured runs, all with other traffic: {known}."


def _words(traffic: Traffic) -> str:
    prompt, answer, arrivals = traffic
    return f"{prompt:,} in / {answer:,} out, {ARRIVALS[arrivals]}"


def _offer(inputs: Inputs, traffic: Traffic) -> None:
    prompt, answer, arrivals = traffic
    key = inputs.key("measured traffic")
    if st.button(f"Use {_words(traffic)}", key=key, icon=":material/straighten:"):
        inputs.change({"input": str(prompt), "output": str(answer), "arrivals": arrivals})
        st.rerun()
