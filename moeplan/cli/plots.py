"""Curves as self-contained HTML pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from moeplan.errors import InputError


def check_plot_path(path: Path | None) -> None:
    """Raise `InputError` before any work where a plot could not be written."""
    if path is None:
        return
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"plot {str(path)!r} must end in .html; other formats cannot be written")
    if not path.parent.is_dir():
        raise InputError(f"plot {str(path)!r}: no folder {str(path.parent)!r}; make it first")


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
    """Every simulated deployment, tok/s a GPU against tok/s a user, and the front."""
    from plotly.graph_objects import Figure

    figure = Figure()
    for name, mode in (("simulated", "markers"), ("front", "lines+markers")):
        rows = sorted(data[name], key=lambda row: row["tok_s_per_user"].value)
        figure.add_scatter(
            x=[_value(row["tok_s_per_user"]) for row in rows],
            y=[_value(row["output_tok_s_per_gpu"]) for row in rows],
            text=[f"{row['checkpoint']} {row['placement']}" for row in rows],
            mode=mode,
            name={"simulated": "simulated", "front": "Pareto front"}[name],
        )
    deployment = data["winner"]["deployment"]
    figure.update_layout(
        template="plotly_white",
        title=f"{deployment['model']} on up to {deployment['gpus']}× {deployment['device']}",
        xaxis_title="tok/s a user",
        yaxis_title="tok/s a GPU",
    )
    figure.write_html(path, include_plotlyjs=True)


def _value(figure: Any) -> float | None:
    return None if figure is None else figure.value


def _ms(figure: Any) -> float | None:
    return None if figure is None else figure.value * 1e3
