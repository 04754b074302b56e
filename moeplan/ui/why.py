"""Page Why: one engine step taken apart, the memory beside it, and what would help."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from moeplan.cli import render
from moeplan.cli.explain import StepOptions
from moeplan.cli.fit import PARTS
from moeplan.cli.hardware import overview_data
from moeplan.ui import charts, forms, frame, state
from moeplan.ui.answers import answer
from moeplan.ui.commands import command_line
from moeplan.ui.figures import escaped, interval, text, time_text, trust, value
from moeplan.ui.resources import hardware
from moeplan.ui.state import Inputs
from moeplan.ui.tables import fields, table
from moeplan.ui.widgets import ladder, option

START = {
    "model": "gpt-oss-120b",
    "device": "h100_sxm",
    "gpus": "2",
    "batch": "16",
    "context": "1024",
    "what_helps": "True",
}
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
CONTEXTS = tuple(2**n for n in range(7, 18))
MICRO, TERA = 1e6, 1e12


def page() -> None:
    """Inputs beside, the step first."""
    inputs = state.open_inputs("Why", START)
    frame.title("Why", "What takes the time of one engine step, and what takes the memory?")
    with frame.refusals():
        frame.sidebar(_form, inputs)
        data = answer("explain", inputs.words)
        _step(data)
        _roofline(data)
        _coverage(data)
        _help(data)
        _memory(inputs)
    words = inputs.words
    frame.on_the_command_line([command_line("explain", words), command_line("fit", words)])


def _form(inputs: Inputs) -> None:
    inputs.put("what_helps", "True")
    st.subheader("Step")
    ladder(inputs, "batch", "Sequences that decode", BATCHES)
    start = StepOptions.model_fields["context"].default
    ladder(inputs, "context", "Tokens in the cache of each", CONTEXTS, start)
    option(inputs, StepOptions, "prefill", "Prefill tokens in the same step")
    st.subheader("Deployment")
    forms.deployment_inputs(inputs)


def _step(data: dict[str, Any]) -> None:
    step, total = data["step"], data["step_seconds"]
    deployment = data["deployment"]
    st.markdown(f"**{escaped(deployment['model'])} {deployment['checkpoint']['name']}** on "
                f"{deployment['gpus']}× {deployment['device']}, "
                f"{deployment['placement']['text']}")  # fmt: skip
    frame.metrics(
        {
            "Step": time_text(total),
            "Tokens computed": f"{step['tokens']:,}",
            "Padded to": f"{step['padded_tokens']:,}",
            "Gbit a token": render.number(data["effective_bit_work"] / 1e9),
        },
        {"Step": interval(total, form=render.seconds)},
    )
    charts.draw(_waterfall(data), "waterfall")
    table("Operators", data["operators"], _OPERATORS)
    st.caption(escaped(trust(total)))


_OPERATORS: dict[str, Any] = {
    "stage": lambda row: row["stage"],
    "operator": lambda row: row["name"],
    "times": lambda row: round(row["count"]),
    "MB": lambda row: row["bytes"] / 1e6,
    "GFLOP": lambda row: row["flops"] / 1e9,
    "µs": lambda row: row["seconds"] * MICRO,
    "bound by": lambda row: row["bound"],
    "kernel family": lambda row: row["family"],
    "source": lambda row: f"{row['source']} ({row['grade']})",
}


def _waterfall(data: dict[str, Any]) -> go.Figure:
    """Operators of all stages one after the other, slowest first, then what is no operator."""
    rows = sorted(data["operators"], key=lambda row: -row["seconds"])
    several = len(data["stages"]) > 1
    names = [f"{row['name']} · stage {row['stage']}" if several else row["name"] for row in rows]
    others = [stage["other_seconds"] for stage in data["stages"]]
    names += [f"glue, host{f' · stage {i}' if several else ''}" for i in range(len(others))]
    sizes = [row["seconds"] * MICRO for row in rows] + [s * MICRO for s in others]
    notes = [f"{row['bound']}-bound, {row['family']}" for row in rows]
    notes += ["launches, glue and host time" if s >= 0 else "overlap" for s in others]
    made = charts.figure(80 + 26 * len(names), xaxis_title="µs of the step", showlegend=False)
    made.add_waterfall(
        y=[*_distinct(names), "step"],
        x=[*sizes, 0],
        measure=["relative"] * len(sizes) + ["total"],
        orientation="h",
        customdata=[*notes, "all stages, one after the other"],
        hovertemplate="%{y}: %{delta:,.1f} µs<br>%{customdata}<extra></extra>",
        increasing={"marker": {"color": charts.BLUE}},
        decreasing={"marker": {"color": charts.GREEN}},
        totals={"marker": {"color": charts.ORANGE}},
        connector={"line": {"color": charts.GREY, "width": 1}},
    )
    made.update_yaxes(autorange="reversed")
    return made


def _distinct(names: list[str]) -> list[str]:
    """Names on a category axis: a repeated one would fall onto the first."""
    seen: dict[str, int] = defaultdict(int)
    made = []
    for name in names:
        seen[name] += 1
        made.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return made


def _roofline(data: dict[str, Any]) -> None:
    st.subheader("Roofline")
    st.caption("Each operator's arithmetic intensity and rate against the GPU's nominal limits.")
    device = data["deployment"]["device"]
    peaks = next(r for r in overview_data(hardware())["devices"] if r["id"] == device)
    rows = [row for row in data["operators"] if row["flops"] > 0 and row["bytes"] > 0]
    made = charts.figure(
        400,
        xaxis_title="FLOP a byte",
        yaxis_title="TFLOP/s",
        xaxis_type="log",
        yaxis_type="log",
        hovermode="closest",
    )
    for index, row in enumerate(rows):
        made.add_scatter(
            x=[row["flops"] / row["bytes"]],
            y=[row["flops"] / row["seconds"] / TERA],
            name=row["name"],
            mode="markers",
            marker={"size": 12, "symbol": charts.symbol(index), "color": charts.colour(index)},
            hovertemplate=f"{row['name']}: {row['bound']}-bound<br>%{{x:.3g}} FLOP a byte, "
            "%{y:.3g} TFLOP/s<extra></extra>",
        )
    _limits(made, peaks, [row["flops"] / row["bytes"] for row in rows])
    charts.draw(made, "roofline")


def _limits(made: go.Figure, peaks: dict[str, Any], intensities: list[float]) -> None:
    """The slope of the memory bandwidth and the flat tops of the formats."""
    bandwidth = peaks["bandwidth_gb_per_s"] / 1e3
    low = min([*intensities, 1.0]) / 2
    for name, dash in (("bf16", "solid"), ("fp8", "dash"), ("fp4", "dot")):
        peak = peaks[f"{name}_tflops"]
        if peak is None:
            continue
        corner = peak / bandwidth
        made.add_scatter(
            x=[low, corner, corner * 4],
            y=[low * bandwidth, peak, peak],
            mode="lines",
            name=f"{name} {peak:,.0f} TFLOP/s",
            line={"color": charts.GREY, "dash": dash, "width": 1.5},
            hoverinfo="skip",
        )


def _coverage(data: dict[str, Any]) -> None:
    found = data["expert_coverage"]
    if found is None:
        return
    st.subheader("Experts that a batch touches")
    st.caption(
        f"Of {found['num_experts']} experts a layer, {found['experts_per_token']} a token: weights "
        "of an expert are read once a step, however many tokens it serves."
    )
    points = found["points"]
    made = charts.figure(
        320, xaxis_title="tokens in the step", yaxis_title="experts", xaxis_type="log"
    )
    made.add_scatter(
        x=[p["tokens"] for p in points],
        y=[p["experts"] for p in points],
        name="expected distinct experts",
        mode="lines+markers",
        line={"color": charts.BLUE},
    )
    charts.limit_line(made, found["num_experts"], f"all {found['num_experts']}")
    here = [p for p in points if p["tokens"] == data["step"]["tokens"]]
    made.add_scatter(
        x=[p["tokens"] for p in here],
        y=[p["experts"] for p in here],
        name="this step",
        mode="markers",
        marker={"color": charts.RED, "symbol": "star", "size": 16},
    )
    charts.draw(made, "coverage")
    table("Expert coverage", points, fields("tokens", "experts"))


def _help(data: dict[str, Any]) -> None:
    st.subheader("What would help most")
    st.caption("The same step after one change of the deployment at a time.")
    rows = [row for row in data["changes"] if row["step_seconds"]]
    now = data["step_seconds"]["value"]
    gains = [1 - value(row["step_seconds"]) / now for row in rows]
    made = charts.bars(
        [row["change"] for row in rows],
        [100 * gain for gain in gains],
        "% less time a step",
        [
            f"{time_text(row['step_seconds'])} ({-gain:+.1%})"
            for gain, row in zip(gains, rows, strict=True)
        ],
    )
    if rows:
        charts.draw(made, "changes", tools=False)
    table("Changes", data["changes"], _CHANGES)


_CHANGES: dict[str, Any] = {
    "change": lambda row: row["change"],
    "GPUs": lambda row: row["gpus"],
    "step": lambda row: time_text(row["step_seconds"]),
    "refused": lambda row: row["refused"] or "",
}


def _memory(inputs: Inputs) -> None:
    st.subheader("Memory of one GPU")
    found = answer("fit", inputs.words)
    memory = found["memory"]
    parts = [(name, value(memory[f"{part}_gib"])) for part, name in PARTS.items()]
    charts.draw(charts.stacked_bar(parts, "GiB"), "memory map", tools=False)
    frame.metrics(
        {
            "Weights GiB": text(memory["weights_gib"]),
            "KV pool GiB": text(memory["kv_pool_gib"]),
            "KV pool tokens": f"{memory['kv_tokens']:,}",
            f"Sequences of {memory['max_model_len']:,}": f"{memory['max_concurrency']:.2f}",
        }
    )
    columns = {
        "tokens a sequence": lambda row: row["tokens"],
        "fit at once": lambda row: row["sequences"],
        "and may run": lambda row: row["runnable"],
    }
    table("Sequences that fit", found["sequences"], columns)
