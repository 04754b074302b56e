"""Measured runs beside the curves of page Load curve: which there are, and what they show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from moeplan.records.matching import arrivals_of, same_arrivals, same_deployment, same_lengths
from moeplan.records.record import RunRecord
from moeplan.ui import charts
from moeplan.ui.figures import escaped
from moeplan.ui.forms import ARRIVALS
from moeplan.ui.records import all_records
from moeplan.ui.state import Inputs

Read = Callable[[RunRecord], float | None]


def _metric(name: str) -> Read:
    return lambda record: record.measured.get(name)


def _gap_of_rate(record: RunRecord) -> float | None:
    """Milliseconds a token of a lone client; tools count crowds in ways of their own."""
    rate = record.measured.get("decode_tok_s")
    return 1e3 / rate if rate and _load(record) == 1 else None


def _load(record: RunRecord) -> int:
    lone = record.workload.mode == "single_stream"
    return record.workload.concurrency or (1 if lone else 0)


PANELS: tuple[Mapping[str, Read], ...] = (
    {"output tok/s": _metric("output_tok_s")},
    {"mean TTFT": _metric("ttft_ms_mean")},
    {
        "mean ITL": _metric("itl_ms_mean"),
        "mean TPOT": _metric("tpot_ms_mean"),
        "time a token, from the decode rate": _gap_of_rate,
    },
)
"""What each plot of the page shows of a record: the first of these that it has."""


@dataclass(frozen=True)
class Measured:
    """Runs of one deployment with the traffic of its curve, and with other traffic."""

    drawn: list[RunRecord]
    elsewhere: list[RunRecord]


def measured_runs(curve: dict[str, Any]) -> Measured:
    """Known runs of a curve's deployment, engine settings and version aside."""
    own = [r for r in all_records() if same_deployment(r, curve["deployment"]) and _usable(r)]
    workload = curve["points"][0]["workload"]
    drawn = [r for r in own if same_lengths(r, workload) and same_arrivals(r, workload)]
    return Measured(drawn, [r for r in own if r not in drawn])


def _usable(record: RunRecord) -> bool:
    return bool(_load(record)) and arrivals_of(record) in ARRIVALS


def traces(runs: Measured, name: str, index: int) -> list[go.Scatter]:
    """Points of the runs, one trace a plot; the first with any enters the legend."""
    made: list[go.Scatter] = []
    for panel in PANELS:
        seen = [(r, *found) for r in runs.drawn if (found := _seen(r, panel))]
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
        x=[_load(record) for record, *_ in seen],
        y=[value for *_, value in seen],
        text=[f"measured {label}, {r.id}<br>{r.source.title}" for r, label, _ in seen],
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


def explain(inputs: Inputs, names: Sequence[str], found: Sequence[Measured]) -> None:
    """How many runs are drawn beside each curve, why not more, and lengths that have some."""
    lines = [_line(name, runs) for name, runs in zip(names, found, strict=True)]
    if any(runs.drawn or runs.elsewhere for runs in found):
        st.caption("\n".join(f"- {escaped(line)}" for line in lines))
    else:
        st.caption(
            f"None of {len(all_records()):,} known runs has the model, weights, GPU and placement "
            "of a deployment here; page Evidence lists them and takes yours."
        )
    usual = Counter(_traffic(r) for runs in found for r in runs.elsewhere).most_common(1)
    if usual and not any(runs.drawn for runs in found):
        _offer(inputs, usual[0][0])


def _line(name: str, runs: Measured) -> str:
    if runs.drawn:
        seen = sum(any(_seen(record, panel) for panel in PANELS) for record in runs.drawn)
        return f"{name}: {len(runs.drawn)} measured runs with this traffic; plotted: {seen}."
    if not runs.elsewhere:
        return f"{name}: no known run of this model, weights, GPU and placement."
    known = "; ".join(_words(traffic) for traffic in sorted({_traffic(r) for r in runs.elsewhere}))
    return f"{name}: {len(runs.elsewhere)} measured runs, all with other traffic: {known}."


Traffic = tuple[int, int, str]
"""Prompt tokens, output tokens, arrivals."""


def _traffic(record: RunRecord) -> Traffic:
    lengths = record.workload.input_tokens, record.workload.output_tokens
    return round(lengths[0]), round(lengths[1]), arrivals_of(record) or ""


def _words(traffic: Traffic) -> str:
    prompt, answer, arrivals = traffic
    return f"{prompt:,} in / {answer:,} out, {ARRIVALS[arrivals]}"


def _offer(inputs: Inputs, traffic: Traffic) -> None:
    prompt, answer, arrivals = traffic
    key = inputs.key("measured traffic")
    if st.button(f"Use {_words(traffic)}", key=key, icon=":material/straighten:"):
        inputs.change({"input": str(prompt), "output": str(answer), "arrivals": arrivals})
        st.rerun()
