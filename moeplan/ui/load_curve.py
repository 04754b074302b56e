"""Page Load curve: several deployments over the same loads, with limits and crossovers."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import plotly.graph_objects as go
import streamlit as st
from plotly.subplots import make_subplots

from moeplan.cli.simulate import load_axis
from moeplan.planner.crossover import crossovers
from moeplan.planner.slo import Limit, parse_limit
from moeplan.records.near import Near
from moeplan.scenario import Scenario
from moeplan.ui import charts, forms, frame, measured_points, state
from moeplan.ui.answers import answer
from moeplan.ui.commands import command_line
from moeplan.ui.figures import MS, escaped, trust, value
from moeplan.ui.groups import Group, group_inputs, join, split
from moeplan.ui.state import Inputs, picked
from moeplan.ui.tables import table
from moeplan.ui.widgets import text as text_input

START = {
    "curves": "model:gpt-oss-120b,device:h100_sxm,gpus:2,tp:2;"
    "model:gpt-oss-120b,device:h100_sxm,gpus:2,tp:1,replicas:2",
    "output": "256",
    "routing": "chat",
    "concurrency": "1,2,4,8,16,32,64",
    "ttft": "2s",
    "itl": "30ms",
}
MOST_CURVES = 6
Curve = dict[str, Any]
PANELS: tuple[tuple[str, dict[str, tuple[str, str]], float], ...] = (
    ("output tok/s", {"all": ("output_tok_s", "")}, 1.0),
    ("TTFT, ms: p50, dashed p99", {"p50": ("ttft_s", "p50"), "p99": ("ttft_s", "p99")}, MS),
    ("ITL, ms: mean, dashed p99", {"mean": ("itl_s", "mean"), "p99": ("itl_s", "p99")}, MS),
)
"""Title, lines (name, then field and statistic of a point) and scale of each plot."""


def page() -> None:
    """Deployments beside, their curves here."""
    inputs = state.open_inputs("Load curve", START)
    _adopt(inputs)
    frame.title("Load curve", "How do throughput and latency change with the load?")
    with frame.refusals():
        frame.sidebar(_form, inputs)
        curves = _curves(_asked(inputs))
        if curves:
            _show(inputs, curves)
    frame.on_the_command_line([command_line("simulate", words) for words in _asked(inputs)])


def _adopt(inputs: Inputs) -> None:
    """A deployment that another page handed over becomes the first curve."""
    if "model" in inputs.words:
        own = picked(inputs.words, Scenario.model_fields)
        rest = {n: w for n, w in inputs.words.items() if n not in own and n != "concurrency"}
        inputs.words.clear()
        inputs.words.update(START | rest | {"curves": join([own])})
        if "rate" in rest:
            del inputs.words["concurrency"]


def _form(inputs: Inputs) -> None:
    st.subheader("Deployments")
    group_inputs(
        inputs,
        "curves",
        forms.deployment_inputs,
        name,
        add="Add a deployment",
        most=MOST_CURVES,
    )
    st.subheader("Load")
    forms.traffic_inputs(inputs, sweep=True)
    st.subheader("Limits")
    left, right = st.columns(2)
    with left:
        text_input(inputs, "ttft", "TTFT", placeholder="none")
    with right:
        text_input(inputs, "itl", "ITL", placeholder="none")


def _asked(inputs: Inputs) -> list[dict[str, str]]:
    common = {n: w for n, w in inputs.words.items() if n not in ("curves", "ttft", "itl")}
    return [common | group for group in split(inputs.get("curves"))]


def name(words: Group) -> str:
    """Short name of a deployment in words."""
    replicas = f"{words['replicas']}×" if words.get("replicas", "1") != "1" else ""
    spread = [f"{n.upper()}{words[n]}" for n in ("tp", "pp") if n in words]
    parts = [words.get("model", "?"), words.get("checkpoint", "").rsplit("/", 1)[-1]]
    parts += [replicas + " ".join(spread), "EP" if words.get("ep") else ""]
    parts += [f"KV {words['kv']}" if "kv" in words else "", "on"]
    parts += [f"{words['gpus']}×" if "gpus" in words else "", words.get("device", "?")]
    return " ".join(part for part in parts if part)


def _curves(asked: list[dict[str, str]]) -> list[Curve]:
    """The answers that there are; each refusal stands in its own line."""
    found = []
    for words in asked:
        with frame.refusals():
            found.append(answer("simulate", words) | {"name": name(words)})
    return found


def _show(inputs: Inputs, curves: list[Curve]) -> None:
    limits = [parse_limit(metric, inputs.get(metric)) for metric in ("ttft", "itl")
              if inputs.get(metric)]  # fmt: skip
    axis, loads = load_axis(curves[0]["points"])
    measured = [measured_points.measured_runs(curve) for curve in curves]
    crossings = _crossings(curves, loads)
    charts.draw(_plot(curves, axis, loads, limits, measured, crossings), "curves")
    for line in crossings:
        st.markdown(f":material/close: {escaped(line['text'])}")
    if len(curves) > 1 and not crossings:
        st.caption("Between these loads no deployment overtakes another in tok/s.")
    measured_points.explain(inputs, [curve["name"] for curve in curves], measured)
    rows = [
        {"deployment": curve["name"], "load": load} | point
        for curve in curves
        for load, point in zip(loads, curve["points"], strict=True)
    ]
    table("Load curve", rows, _COLUMNS | {axis: lambda row: row["load"]})
    st.caption(escaped(trust(*(curve["points"][0]["output_tok_s"] for curve in curves))))


_COLUMNS: dict[str, Any] = {
    "deployment": lambda row: row["deployment"],
    "concurrency": lambda row: row["load"],
    "tok/s": lambda row: value(row["output_tok_s"]),
    "tok/s a GPU": lambda row: value(row["output_tok_s_per_gpu"]),
    "tok/s a user": lambda row: value(row["tok_s_per_user"]),
    "TTFT p50 ms": lambda row: value(row["ttft_s"]["p50"], MS),
    "TTFT p99 ms": lambda row: value(row["ttft_s"]["p99"], MS),
    "ITL mean ms": lambda row: value(row["itl_s"]["mean"], MS),
    "ITL p99 ms": lambda row: value(row["itl_s"]["p99"], MS),
    "preemptions": lambda row: row["preemptions"],
}
"""Columns of the table; the load's own name replaces "concurrency" where it is a rate."""


def _level(point: dict[str, Any], where: tuple[str, str], scale: float) -> float | None:
    field, statistic = where
    return value(point[field][statistic] if statistic else point[field], scale)


def _plot(
    curves: list[Curve],
    axis: str,
    loads: list[float],
    limits: list[Limit],
    measured: list[Near],
    crossings: list[dict[str, Any]],
) -> go.Figure:
    made = make_subplots(
        3, 1, shared_xaxes=True, vertical_spacing=0.06, subplot_titles=[p[0] for p in PANELS]
    )
    for row, (_, lines, scale) in enumerate(PANELS, 1):
        for index, curve in enumerate(curves):
            for dash, (statistic, where) in enumerate(lines.items()):
                levels = [_level(point, where, scale) for point in curve["points"]]
                made.add_trace(_line(curve, index, dash, statistic, loads, levels, row), row, 1)
    for index, (curve, runs) in enumerate(zip(curves, measured, strict=True)):
        for row, trace in enumerate(measured_points.traces(runs, curve["name"], index), 1):
            made.add_trace(trace, row, 1)
    _limit_lines(made, limits)
    _marks(made, crossings)
    charts.lay_out(made, 900, hovermode="closest")
    made.update_xaxes(type="log", tickvals=loads, ticktext=[f"{load:g}" for load in loads])
    made.update_xaxes(title_text=axis, row=3, col=1)
    made.update_yaxes(rangemode="tozero")
    return made


def _line(
    curve: Curve,
    index: int,
    dash: int,
    statistic: str,
    loads: list[float],
    levels: list[float | None],
    row: int,
) -> go.Scatter:
    named = curve["name"] if statistic == "all" else f"{curve['name']} {statistic}"
    return go.Scatter(
        x=loads,
        y=levels,
        name=curve["name"],
        legendgroup=curve["name"],
        showlegend=row == 1,
        mode="lines+markers",
        line={"color": charts.colour(index), "dash": charts.DASHES[dash]},
        marker={"symbol": charts.symbol(index), "size": 7},
        hovertemplate=f"<b>{named}</b><br>load %{{x:g}}: %{{y:,.4g}}<extra></extra>",
    )


def _limit_lines(made: go.Figure, limits: list[Limit]) -> None:
    for limit in limits:
        row = {"ttft": 2, "itl": 3}[limit.metric]
        charts.limit_line(made, limit.seconds * MS, str(limit), row=row, col=1)


def _crossings(curves: list[Curve], loads: list[float]) -> list[dict[str, Any]]:
    """Where one deployment overtakes another in throughput."""
    field, found = ("output_tok_s", ""), []
    for pair in combinations(curves, 2):
        levels = [[_level(p, field, 1.0) for p in curve["points"]] for curve in pair]
        for crossing in crossovers(loads, *levels):
            upper = pair[crossing.above]["name"]
            text = f"{upper} leads in tok/s from a load of about {crossing.load:.0f}"
            found.append({"load": crossing.load, "level": crossing.level, "text": text})
    return found


def _marks(made: go.Figure, crossings: list[dict[str, Any]]) -> None:
    made.add_trace(
        go.Scatter(
            x=[c["load"] for c in crossings],
            y=[c["level"] for c in crossings],
            text=[c["text"] for c in crossings],
            name="crossover",
            mode="markers",
            showlegend=bool(crossings),
            marker={"symbol": "x", "size": 12, "color": charts.RED},
            hovertemplate="%{text}<extra></extra>",
        ),
        1,
        1,
    )
