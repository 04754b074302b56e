"""Page Timeline: the simulated engine over time, step by step and request by request."""

from __future__ import annotations

import json
from typing import Any

import plotly.graph_objects as go
import streamlit as st
from plotly.subplots import make_subplots

from moeplan.simulation.timeline import Columns, chrome_trace, lanes
from moeplan.ui import charts, forms, frame, state
from moeplan.ui.answers import answer
from moeplan.ui.commands import command_line
from moeplan.ui.figures import escaped, interval, text, time_text, trust
from moeplan.ui.state import Inputs
from moeplan.ui.tables import downloads, save

START = {
    "model": "gpt-oss-120b",
    "device": "h100_sxm",
    "gpus": "1",
    "output": "256",
    "routing": "chat",
    "concurrency": "16",
    "num_prompts": "64",
}
MOST_STEPS_SHOWN = 4000
MOST_REQUESTS_SHOWN = 300
PANELS = {
    "sequences": {"running": "running", "waiting in the queue": "waiting"},
    "tokens a step": {"decode": "decodes", "prefill": "prefill_tokens"},
    "KV cache in use": {"share of the blocks": "kv_usage"},
}
"""Lines of each plot by the columns of a step."""


def page() -> None:
    """Inputs beside, the run here."""
    inputs = state.open_inputs("Timeline", START)
    frame.title("Timeline", "What does the simulated engine do, step by step?")
    with frame.refusals():
        frame.sidebar(_form, inputs)
        data = answer("timeline", inputs.words)
        _figures(data)
        replica = _replica(inputs, data["timeline"])
        _steps(_of(data["timeline"]["steps"], replica))
        _requests(_of(data["timeline"]["requests"], replica))
        _downloads(data["timeline"])
        st.caption(escaped(trust(data["points"][0]["output_tok_s"])))
    line = command_line("simulate", inputs.words, "--timeline", "timeline.json")
    frame.on_the_command_line([line])


def _form(inputs: Inputs) -> None:
    st.subheader("Deployment")
    forms.deployment_inputs(inputs)
    st.subheader("Traffic")
    forms.traffic_inputs(inputs)


def _figures(data: dict[str, Any]) -> None:
    point, steps = data["points"][0], data["timeline"]["steps"]
    frame.metrics(
        {
            "Output tok/s": text(point["output_tok_s"]),
            "Duration": time_text(point["duration_s"]),
            "Requests": f"{point['workload']['num_prompts']:,}",
            "Steps": f"{len(steps['start_s']):,}",
            "TTFT p99": time_text(point["ttft_s"]["p99"]),
            "ITL p99": time_text(point["itl_s"]["p99"]),
            "Preemptions": f"{point['preemptions']:,}",
        },
        {"Output tok/s": interval(point["output_tok_s"])},
    )


def _replica(inputs: Inputs, data: dict[str, Columns]) -> int:
    """The replica to show; a choice where there are several."""
    known = sorted(set(data["steps"]["replica"]))
    if len(known) < 2:
        return known[0]
    key = inputs.key("replica shown")
    return st.segmented_control("Replica", known, default=known[0], key=key) or known[0]


def _of(columns: Columns, replica: int) -> Columns:
    """The rows of one replica."""
    wanted = [i for i, owner in enumerate(columns["replica"]) if owner == replica]
    return {name: [column[i] for i in wanted] for name, column in columns.items()}


def _steps(steps: Columns) -> None:
    st.subheader("Steps")
    shown = _thinned(steps)
    made = make_subplots(
        len(PANELS), 1, shared_xaxes=True, vertical_spacing=0.07, subplot_titles=list(PANELS)
    )
    index = 0
    for row, lines in enumerate(PANELS.values(), 1):
        for label, name in lines.items():
            made.add_trace(_line(shown, name, label, index), row, 1)
            index += 1
    made.add_trace(_preemptions(steps), 1, 1)
    charts.lay_out(made, 680, hovermode="x unified")
    made.update_xaxes(title_text="seconds after the start", row=len(PANELS), col=1)
    made.update_yaxes(rangemode="tozero")
    made.update_yaxes(tickformat=".0%", row=3, col=1)
    charts.draw(made, "steps")
    if len(shown["start_s"]) < len(steps["start_s"]):
        st.caption(
            f"{len(shown['start_s']):,} of {len(steps['start_s']):,} steps are drawn; "
            "the downloads hold all."
        )


def _line(steps: Columns, name: str, label: str, index: int) -> go.Scatter:
    return go.Scatter(
        x=steps["start_s"],
        y=steps[name],
        name=label,
        mode="lines",
        line={"color": charts.colour(index), "width": 1.5, "shape": "hv"},
    )


def _preemptions(steps: Columns) -> go.Scatter:
    found = [i for i, count in enumerate(steps["preemptions"]) if count]
    return go.Scatter(
        x=[steps["start_s"][i] for i in found],
        y=[steps["running"][i] for i in found],
        name="preemption",
        mode="markers",
        showlegend=bool(found),
        marker={"symbol": "x", "color": charts.RED, "size": 9},
    )


def _thinned(steps: Columns) -> Columns:
    """Every so many-th step and each with a preemption, few enough to draw."""
    stride = -(-len(steps["start_s"]) // MOST_STEPS_SHOWN)
    keep = [i for i, count in enumerate(steps["preemptions"]) if count or i % stride == 0]
    return {name: [column[i] for i in keep] for name, column in steps.items()}


def _requests(requests: Columns) -> None:
    st.subheader("Requests")
    rows = lanes(requests["sent_s"], requests["finish_s"], requests["replica"])
    shown = range(min(len(rows), MOST_REQUESTS_SHOWN))
    sent, first, end = (requests[n] for n in ("sent_s", "first_token_s", "finish_s"))
    made = charts.figure(
        max(260, 90 + 14 * (max(rows) + 1)),
        barmode="overlay",
        xaxis_title="seconds after the start",
        yaxis_title="lane",
        hovermode="closest",
    )
    spans = (("to the first token", sent, first, charts.ORANGE),
             ("decode", first, end, charts.BLUE))  # fmt: skip
    for label, starts, ends, colour in spans:
        made.add_bar(
            base=[starts[i] for i in shown],
            x=[ends[i] - starts[i] for i in shown],
            y=[rows[i] + 1 for i in shown],
            orientation="h",
            name=label,
            marker={"color": colour, "line": {"width": 0.5, "color": "white"}},
            text=[str(i) for i in shown],
            textposition="none",
            customdata=[[requests["input_tokens"][i], requests["output_tokens"][i]] for i in shown],
            hovertemplate=f"request %{{text}}, {label}: %{{x:.3g}} s"
            "<br>%{customdata[0]:,} in, %{customdata[1]:,} out<extra></extra>",
        )
    made.update_yaxes(autorange="reversed")
    charts.draw(made, "requests")
    if len(shown) < len(rows):
        st.caption(f"The first {len(shown):,} of {len(rows):,} requests; the downloads hold all.")


def _downloads(data: dict[str, Columns]) -> None:
    st.subheader("Take it along")
    save(
        "Perfetto trace",
        json.dumps(chrome_trace(data)),
        "timeline.json",
        "application/json",
    )
    st.caption("Open it at ui.perfetto.dev or chrome://tracing.")
    for label, columns in data.items():
        st.markdown(f"All {label}")
        downloads(label, _rows(columns), columns)


def _rows(columns: Columns) -> list[dict[str, Any]]:
    names = list(columns)
    return [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]
