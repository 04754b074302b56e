"""Measured runs beside the curves of page Load curve: which there are, and what they show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from moeplan.records.matching import same_deployment, same_lengths
from moeplan.records.record import RunRecord
from moeplan.ui import charts
from moeplan.ui.figures import escaped
from moeplan.ui.records import all_records
from moeplan.ui.state import Inputs

Read = Callable[[RunRecord], float | None]


def _metric(name: str) -> Read:
    return lambda record: record.measured.get(name)


def _gap_of_rate(record: RunRecord) -> float | None:
    """Milliseconds a token of one client, from a decode rate over all clients."""
    rate = record.measured.get("decode_tok_s")
    return 1e3 * _load(record) / rate if rate else None


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
    """Runs of one deployment at its curve's lengths, and at other lengths."""

    drawn: list[RunRecord]
    elsewhere: list[RunRecord]


def measured_runs(curve: dict[str, Any]) -> Measured:
    """Known runs of a curve's deployment, settings and client protocol aside."""
    own = [r for r in all_records() if same_deployment(r, curve["deployment"]) and _load(r)]
    drawn = [r for r in own if same_lengths(r, curve["points"][0]["workload"])]
    return Measured(drawn, [r for r in own if r not in drawn])


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
    usual = Counter(_lengths(r) for runs in found for r in runs.elsewhere).most_common(1)
    if usual and not any(runs.drawn for runs in found):
        _offer(inputs, usual[0][0])


def _line(name: str, runs: Measured) -> str:
    if runs.drawn:
        return f"{name}: {len(runs.drawn)} measured runs of these lengths are drawn."
    if not runs.elsewhere:
        return f"{name}: no known run of this model, weights, GPU and placement."
    lengths = sorted({_lengths(record) for record in runs.elsewhere})
    known = ", ".join(f"{prompt:,} in / {answer:,} out" for prompt, answer in lengths)
    return f"{name}: {len(runs.elsewhere)} measured runs, all of other lengths: {known}."


def _lengths(record: RunRecord) -> tuple[int, int]:
    return round(record.workload.input_tokens), round(record.workload.output_tokens)


def _offer(inputs: Inputs, lengths: tuple[int, int]) -> None:
    prompt, answer = lengths
    label = f"Use {prompt:,} in / {answer:,} out, as measured"
    if st.button(label, key=inputs.key("measured lengths"), icon=":material/straighten:"):
        inputs.change({"input": str(prompt), "output": str(answer)})
        st.rerun()
