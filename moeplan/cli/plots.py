"""Curves as self-contained HTML pages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from moeplan.cli.targets import check_target
from moeplan.errors import InputError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def check_plot_path(path: Path | None) -> None:
    """Raise `InputError` before any work where a plot could not be written."""
    if path is None:
        return
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"plot {str(path)!r} must end in .html; other formats cannot be written")
    check_target("plot", path)


def save_load_curve(data: dict[str, Any], path: Path) -> None:
    """Throughput and latency over the load, one page without further files."""
    from plotly.subplots import make_subplots

    from moeplan.cli.simulate import load_axis

    points = data["points"]
    axis, loads = load_axis(points)
    figure = make_subplots(1, 2, subplot_titles=("output tokens per second", "milliseconds"))
    series = [
        (1, "all GPUs", [_value(p["output_tok_s"]) for p in points]),
        (1, "one user", [_value(p["tok_s_per_user"]) for p in points]),
        (2, "TTFT mean", [_ms(p["ttft_s"]["mean"]) for p in points]),
        (2, "TTFT p99", [_ms(p["ttft_s"]["p99"]) for p in points]),
        (2, "TPOT mean", [_ms(p["tpot_s"]["mean"]) for p in points]),
        (2, "ITL p99", [_ms(p["itl_s"]["p99"]) for p in points]),
    ]
    for column, name, values in series:
        figure.add_scatter(x=loads, y=values, name=name, mode="lines+markers", row=1, col=column)
    figure.update_xaxes(title_text=axis, type="log")
    figure.update_yaxes(type="log")
    deployment = data["deployment"]
    figure.update_layout(
        template="plotly_white",
        title=f"{deployment['model']} {deployment['checkpoint']['name']} on "
        f"{deployment['gpus']}× {deployment['device']}, {deployment['placement']['text']}",
    )
    figure.write_html(path, include_plotlyjs=True)


def save_pareto(data: dict[str, Any], path: Path) -> None:
    """`pareto_figure` as one page without further files."""
    pareto_figure(data).write_html(path, include_plotlyjs=True)


def pareto_figure(data: dict[str, Any]) -> Figure:
    """Every simulated deployment, tok/s a GPU against tok/s a user, and the front.

    A placement is named once on the front, at its fastest variant for a user.
    """
    from plotly.graph_objects import Figure

    figure = Figure()
    several = len({row["checkpoint"] for row in data["simulated"]}) > 1
    for name, label, mode in (
        ("simulated", "simulated", "markers"),
        ("front", "Pareto front", "lines+markers+text"),
    ):
        rows = sorted(data[name], key=lambda row: row["tok_s_per_user"].value)
        names = [row["placement"] for row in rows]
        if several:
            names = [f"{row['checkpoint']} {row['placement']}" for row in rows]
        figure.add_scatter(
            x=[_value(row["tok_s_per_user"]) for row in rows],
            y=[_value(row["output_tok_s_per_gpu"]) for row in rows],
            text=names if name == "simulated" else _without_repeats(names),
            textposition="top right",
            mode=mode,
            name=label,
            cliponaxis=False,
        )
    figure.update_layout(
        template="plotly_white",
        title=_pareto_title(data),
        xaxis_title="output tok/s a user (1 / mean TPOT)",
        yaxis_title="output tok/s a GPU",
    )
    return figure


def _pareto_title(data: dict[str, Any]) -> str:
    deployment, workload = data["winner"]["deployment"], data["workload"]
    where = f"{deployment['model']} on up to {deployment['gpus']}× {deployment['device']}"
    lengths = f"{workload['input_tokens']:,} in / {workload['output_tokens']:,} out"
    load = workload.get("concurrency")
    return f"{where}, {lengths}" + (f", {load} in flight" if load else "")


def _without_repeats(names: list[str]) -> list[str]:
    """Names, each only where it occurs last."""
    return ["" if name in names[i + 1 :] else name for i, name in enumerate(names)]


def _value(figure: Any) -> float | None:
    return None if figure is None else figure.value


def _ms(figure: Any) -> float | None:
    return None if figure is None else figure.value * 1e3
