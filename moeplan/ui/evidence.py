"""Page Evidence: predictions beside what was measured, by others and by the user."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from moeplan.cli import render
from moeplan.records.record import RunRecord
from moeplan.records.report import DIMENSIONS, FAMILIES, make_report
from moeplan.records.score import RecordScore, score
from moeplan.records.served import served_records
from moeplan.ui import charts, evidence_calibration, evidence_import, frame, state
from moeplan.ui.answers import worked
from moeplan.ui.commands import options_line
from moeplan.ui.figures import escaped
from moeplan.ui.records import digest, own_records, shipped_records
from moeplan.ui.resources import hardware
from moeplan.ui.state import Inputs
from moeplan.ui.tables import fields, table
from moeplan.ui.widgets import choice

START = {"metric": "decode", "by": "hardware"}
BAND = 0.1
FILTERS = {"hardware": "Device", "architecture": "Model", "engine": "Engine"}
EVERYTHING = "all"
RUNS = {"published": "published, and yours", "served": "served by moeplan validate"}
"""Kinds of runs, never mixed: those of the second are no independent test."""


def page() -> None:
    """Filters beside, the scatter here."""
    inputs = state.open_inputs("Evidence", START)
    frame.title("Evidence", "How far are predictions from what was measured?")
    with frame.refusals():
        with st.sidebar:
            kind = choice(
                inputs, "runs", "Runs", list(RUNS), shown=RUNS.__getitem__, unset="published"
            )
        served = kind == "served"
        scores = _scored(served_records()) if served else _scores()
        with st.sidebar:
            chosen = _filtered(inputs, scores)
        inputs.publish()
        _counts(scores, chosen)
        if served:
            st.caption(_NOT_INDEPENDENT)
        _scatter(inputs, chosen)
        _errors(inputs, chosen)
        _left_out(chosen)
    evidence_import.show()
    evidence_calibration.show(inputs)
    frame.on_the_command_line(_commands(inputs))


_NOT_INDEPENDENT = (
    "Runs of vLLM on real GPUs with dummy weights and a counted routing, by moeplan's own "
    "validator. Kernel tables and shipped calibrations rest on some of them, so errors here test "
    "nothing independently; predictions are those of the shipped tables. docs/validation.md tells "
    "more."
)


def _scores() -> list[RecordScore]:
    """What `moeplan score` compares: shipped records, then the user's own."""
    found = _scored(shipped_records())
    return [*found, *_scored(own_records())] if own_records() else list(found)


def _scored(records: Sequence[RunRecord]) -> list[RecordScore]:
    return worked(
        "score",
        (digest(records),),
        lambda bar: score(records, hardware(), jobs=1, progress=bar),
        form=list,
    )


def _filtered(inputs: Inputs, scores: Sequence[RecordScore]) -> list[RecordScore]:
    families = [name for name in FAMILIES if any(_comparison(s, name) for s in scores)]
    choice(inputs, "metric", "Metric", families, default="decode", unset="")
    chosen = list(scores)
    for name, label in FILTERS.items():
        values = sorted({DIMENSIONS[name](item) for item in scores})
        choice(inputs, name, label, [EVERYTHING, *values], unset=EVERYTHING)
        if name in inputs.words:
            chosen = [s for s in chosen if DIMENSIONS[name](s) == inputs.words[name]]
    choice(inputs, "by", "Errors by", list(DIMENSIONS), default="hardware", unset="")
    return chosen


def _comparison(item: RecordScore, family: str) -> tuple[str, Any] | None:
    """Name and figures of a record's metric of that family: the one that statistics count."""
    found = next((name for name in FAMILIES[family] if name in item.metrics), None)
    return (found, item.metrics[found]) if found else None


def _counts(scores: Sequence[RecordScore], chosen: Sequence[RecordScore]) -> None:
    covered = sum(item.covered for item in chosen)
    frame.metrics(
        {
            "Records shown": f"{len(chosen):,}",
            "Records in all": f"{len(scores):,}",
            "Predicted": f"{covered:,}",
            "Your own": f"{len(own_records()):,}",
        }
    )


def _scatter(inputs: Inputs, chosen: Sequence[RecordScore]) -> None:
    family = inputs.get("metric", "decode")
    items = [(item, *found) for item in chosen if (found := _comparison(item, family))]
    st.subheader(f"Predicted against measured: {family}")
    if not items:
        st.info("No record here measures this; choose another metric or filter.")
        return
    event = charts.draw(_plot(items), "evidence", on_select="rerun", selection_mode="points")
    points = event.selection.points if event else []
    picked = [p["customdata"][0] for p in points if "customdata" in p]
    if picked:
        inputs.put("record", picked[0])
        inputs.publish()
    _record(inputs, [item for item, *_ in items])


def _plot(items: Sequence[tuple[RecordScore, str, Any]]) -> go.Figure:
    devices = sorted({DIMENSIONS["hardware"](item) for item, *_ in items})
    unit = " or ".join(sorted({_unit(name) for _, name, _ in items}))
    made = charts.figure(
        520, xaxis_title=f"measured, {unit}", yaxis_title=f"predicted, {unit}",
        xaxis_type="log", yaxis_type="log", hovermode="closest",
    )  # fmt: skip
    _diagonal(made, [v for _, _, c in items for v in (c.measured, c.predicted.value)])
    for index, device in enumerate(devices):
        own = [row for row in items if DIMENSIONS["hardware"](row[0]) == device]
        made.add_scatter(
            x=[found.measured for _, _, found in own],
            y=[found.predicted.value for _, _, found in own],
            customdata=[[item.record.id] for item, *_ in own],
            text=[_hover(*row) for row in own],
            mode="markers",
            name=device,
            marker={"color": charts.colour(index), "symbol": charts.symbol(index), "size": 9},
            hovertemplate="%{text}<extra></extra>",
        )
    return made


def _unit(metric: str) -> str:
    """Unit of a metric, which its name holds."""
    return next((unit for part, unit in _UNITS.items() if part in metric), metric)


_UNITS = {"tok_s": "tok/s", "_ms": "ms", "_gib": "GiB", "_tokens": "tokens", "_s": "s",
          "throughput": "requests/s"}  # fmt: skip


def _diagonal(made: go.Figure, values: Sequence[float]) -> None:
    """The line of equality and the band of ±10 % around it."""
    ends = [min(values) * 0.8, max(values) * 1.25]
    low, high = ([end * factor for end in ends] for factor in (1 - BAND, 1 + BAND))
    made.add_scatter(
        x=[*ends, *reversed(ends)],
        y=[*high, *reversed(low)],
        fill="toself",
        mode="lines",
        line={"width": 0},
        fillcolor="rgba(128,128,128,0.25)",
        name=f"±{BAND:.0%}",
        hoverinfo="skip",
    )
    made.add_scatter(
        x=ends, y=ends, mode="lines", name="equal", line={"color": charts.GREY}, hoverinfo="skip"
    )


def _hover(item: RecordScore, metric: str, found: Any) -> str:
    error = found.predicted.value / found.measured - 1
    return (
        f"<b>{item.record.id}</b><br>{item.record.model}<br>{metric}: measured "
        f"{render.number(found.measured)}, predicted {render.number(found.predicted.value)} "
        f"({error:+.1%})"
    )


def _record(inputs: Inputs, items: Sequence[RecordScore]) -> None:
    """The chosen record: its comparison, its source, the rules that filled its gaps."""
    ids = [item.record.id for item in items]
    nothing = "click a point, or choose here"
    choice(inputs, "record", "Record", [nothing, *ids], unset=nothing)
    item = next((item for item in items if item.record.id == inputs.get("record")), None)
    if item is None:
        return
    record, source = item.record, item.record.source
    with st.container(border=True):
        st.markdown(f"**{escaped(record.id)}** · {escaped(record.model)}")
        place = " · ".join(filter(None, (source.repo_or_site, source.path, source.date)))
        st.caption(escaped(f"Source: {source.title} · {place}"))
        rows = [
            {"metric": name, "measured": found.measured, "predicted": found.predicted.value,
             "error": f"{found.predicted.value / found.measured - 1:+.1%}"}
            for name, found in item.metrics.items()
        ]  # fmt: skip
        table(f"Record {record.id}", rows, fields("metric", "measured", "predicted", "error"))
        for rule in item.rules:
            st.markdown(f"- {escaped(rule)}")
        with st.expander("The record"):
            st.json(record.model_dump(mode="json", exclude_none=True))


def _errors(inputs: Inputs, chosen: Sequence[RecordScore]) -> None:
    by = inputs.get("by", "hardware")
    st.subheader(f"Errors by {by}")
    groups = make_report(chosen, [by]).groups()
    rows = [
        {by: value, "metric": family, "n": found.n, "median error": found.median_error,
         "90th percentile": found.p90_error, "bias": found.bias}
        for dimension in groups.values()
        for value, families in dimension.items()
        for family, found in families.items()
    ]  # fmt: skip
    columns: dict[str, Callable[[dict[str, Any]], Any]] = {
        by: lambda row: row[by],
        "metric": lambda row: row["metric"],
        "records": lambda row: row["n"],
        "median error": lambda row: f"{row['median error']:.1%}",
        "90th percentile": lambda row: f"{row['90th percentile']:.1%}",
        "bias": lambda row: f"{row['bias']:+.3f}",
    }
    table("Errors", rows, columns)
    st.caption("Error: |predicted / measured − 1|. Bias: median of ln(predicted / measured).")


def _left_out(chosen: Sequence[RecordScore]) -> None:
    reasons = make_report(chosen, []).reasons()
    if not reasons:
        return
    with st.expander(f"Not predicted: {sum(reasons.values()):,} records"):
        rows = [{"reason": reason, "records": count} for reason, count in reasons.items()]
        table("Not predicted", rows, fields("reason", "records"))


def _commands(inputs: Inputs) -> list[str]:
    by = inputs.get("by", "hardware")
    rest = options_line((), {})
    served = inputs.get("runs") == "served"
    which = "--served" if served else "--published"
    score_line = f"moeplan score {which} --by {by} {rest}".strip()
    if served or not own_records():
        return [score_line]
    own = evidence_import.command_lines()
    return [*own, *evidence_calibration.command_lines(), f"{score_line} records.jsonl"]
