"""`moeplan simulate`: one deployment under one workload, or under a sweep of loads."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moeplan.cli import render
from moeplan.cli.describe import assumptions, show_assumptions
from moeplan.cli.near import near_data, show_near
from moeplan.cli.options import CalibrationFile, JsonFlag, with_options
from moeplan.cli.progress import progress_bar
from moeplan.cli.session import prepare_scenario, read_hardware
from moeplan.cli.targets import check_target
from moeplan.cli.traffic import TrafficOptions, build_workloads
from moeplan.errors import InputError
from moeplan.estimate import COVERED, Estimate
from moeplan.scenario import Scenario

if TYPE_CHECKING:
    from moeplan.calibration.trust import Trust
    from moeplan.cost.predictor import Prepared
    from moeplan.hardware_specs.schema import Hardware
    from moeplan.simulation.api import Prediction
    from moeplan.simulation.metrics import Distribution
    from moeplan.simulation.workload import Workload

PlotFile = Annotated[
    Path | None, typer.Option("--plot", help="Write the load curve to this .html file.")
]
Progress = Callable[[float], None]
"""Called with the share that is done, 0 to 1."""
TimelineFile = Annotated[
    Path | None,
    typer.Option("--timeline", help="Write every step and request as a Perfetto trace (.json)."),
]
STATISTICS = ("mean", "p50", "p90", "p99")
CENTRAL = ("mean", "p50")
"""Those whose errors are known well enough for an interval."""
LATENCIES = {
    "ttft_s": "TTFT",
    "steady_ttft_s": "TTFT after the first wave",
    "tpot_s": "TPOT",
    "itl_s": "ITL",
    "e2e_s": "end to end",
}
INTERVAL = f"{COVERED:.0%} interval"
RATES = {
    "output_tok_s": "output tok/s",
    "output_tok_s_per_gpu": "output tok/s a GPU",
    "tok_s_per_user": "tok/s a user (1 / mean TPOT)",
    "total_tok_s": "input and output tok/s",
    "request_throughput": "requests/s",
    "peak_output_tok_s": "output tok/s in the best second",
    "duration_s": "duration in s",
}


@with_options
def simulate(
    scenario: Scenario,
    traffic: TrafficOptions,
    plot: PlotFile = None,
    timeline: TimelineFile = None,
    calibration: CalibrationFile = None,
    as_json: JsonFlag = False,
) -> None:
    """Simulate serving: latencies and throughput."""
    from moeplan.cli.plots import check_plot_path, save_load_curve

    check_plot_path(plot)
    check_target("timeline", timeline)
    answer = timeline_answer if timeline else simulate_answer
    with progress_bar("simulating") as bar:
        data = answer(scenario, traffic, read_hardware(calibration), bar)
    if timeline is not None:
        _save_timeline(data.pop("timeline"), timeline)
    traffics = [point["workload"] for point in data["points"]]
    data["measured_runs"] = near_data(data["deployment"], traffics)
    render.emit(data, as_json, _show)
    if plot is not None:
        save_load_curve(data, plot)


def simulate_answer(
    scenario: Scenario, traffic: TrafficOptions, hardware: Hardware, progress: Progress
) -> dict[str, Any]:
    """What was assumed, and the predicted figures of each workload of the sweep."""
    prepared, workloads = prepare_runs(scenario, traffic, hardware)
    points = [point_data(found) for found in _predictions(prepared, workloads, progress)]
    return {"deployment": assumptions(prepared), "points": points}


def timeline_answer(
    scenario: Scenario, traffic: TrafficOptions, hardware: Hardware, progress: Progress
) -> dict[str, Any]:
    """`simulate_answer` for one load, with its steps and requests over time.

    Raises `InputError` for a sweep.
    """
    from moeplan.simulation.timeline import timeline

    prepared, workloads = prepare_runs(scenario, traffic, hardware)
    if len(workloads) > 1:
        raise InputError("a timeline shows one load; give concurrency or rate one value")
    (found,) = _predictions(prepared, workloads, progress, record_steps=True)
    data = {"deployment": assumptions(prepared), "points": [point_data(found)]}
    return data | {"timeline": timeline(found.result)}


def _save_timeline(data: dict[str, Any], path: Path) -> None:
    from moeplan.simulation.timeline import chrome_trace

    path.write_text(json.dumps(chrome_trace(data)), encoding="utf-8")


def prepare_runs(
    scenario: Scenario, traffic: TrafficOptions, hardware: Hardware
) -> tuple[Prepared, list[Workload]]:
    """The deployment, laid out for the longest sequence of these workloads, and the workloads."""
    workloads = build_workloads(traffic)
    longest = max(w.longest_tokens for w in workloads)
    return prepare_scenario(scenario, hardware, longest, workloads[0].routing_sigma), workloads


def _predictions(
    prepared: Prepared,
    workloads: Sequence[Workload],
    progress: Progress,
    *,
    record_steps: bool = False,
) -> Iterator[Prediction]:
    from moeplan.simulation.api import predict_prepared

    for done, workload in enumerate(workloads):
        yield predict_prepared(
            prepared,
            workload,
            record_steps=record_steps,
            progress=lambda share, done=done: progress((done + share) / len(workloads)),
        )


def point_data(prediction: Prediction) -> dict[str, Any]:
    """Figures of one simulated run; predicted ones are `Estimate`s, None where undefined."""
    from moeplan.calibration.trust import trust_of
    from moeplan.simulation import metrics

    workload, result = prediction.workload, prediction.result
    trust = trust_of(prediction.prepared, workload)
    output = metrics.output_tok_s(result)
    tpot = metrics.tpot(result)
    gpus = prediction.prepared.deployment.placement.gpus
    return {
        "workload": _workload_data(workload),
        "output_tok_s": _figure(trust, output, "throughput"),
        "output_tok_s_per_gpu": _figure(trust, output / gpus, "throughput"),
        "tok_s_per_user": _figure(trust, 1 / tpot.mean, "tpot", inverse=True),
        "total_tok_s": _figure(trust, metrics.total_tok_s(result), "throughput"),
        "request_throughput": _figure(trust, metrics.request_throughput(result), "throughput"),
        "peak_output_tok_s": _figure(trust, metrics.peak_output_tok_s(result)),
        "duration_s": _figure(trust, metrics.duration_s(result), "throughput", inverse=True),
        "ttft_s": _distribution(trust, "ttft", metrics.ttft(result)),
        "steady_ttft_s": _distribution(trust, "ttft", metrics.steady_ttft(result)),
        "tpot_s": _distribution(trust, "tpot", tpot),
        "itl_s": _distribution(trust, "itl", metrics.itl(result)),
        "e2e_s": _distribution(trust, "e2e", metrics.e2e(result)),
        "preemptions": int(result.preemptions.sum()),
        "prefix_hit_share": float(result.prefix_hit_tokens.sum() / result.input_tokens.sum()),
    }


def _figure(
    trust: Trust, value: float, family: str | None = None, *, inverse: bool = False
) -> Estimate | None:
    return None if math.isnan(value) else trust.estimate(float(value), family, inverse=inverse)


def _distribution(trust: Trust, family: str, values: Distribution) -> dict[str, Estimate | None]:
    return latency_estimates(trust, family, {s: getattr(values, s) for s in STATISTICS})


def latency_estimates(
    trust: Trust, family: str, values: Mapping[str, float]
) -> dict[str, Estimate | None]:
    """Statistics of a latency; tails stand without interval, as few runs judge them."""
    return {
        name: _figure(trust, values[name], family if name in CENTRAL else None)
        for name in STATISTICS
    }


def _workload_data(workload: Workload) -> dict[str, Any]:
    """The workload without the rows of its trace."""
    data = workload.model_dump(exclude={"trace", "num_prompts"}, exclude_none=True)
    lengths = {"input_tokens", "output_tokens", "input_range", "output_range"}
    if workload.trace:
        data = {name: value for name, value in data.items() if name not in lengths}
    return data | {"num_prompts": workload.size}


def _show(data: dict[str, Any]) -> None:
    points = data["points"]
    show_assumptions(data["deployment"])
    render.print_line(_traffic_text(points[0]["workload"], sweep=len(points) > 1))
    if len(points) == 1:
        _show_point(points[0])
    else:
        _show_sweep(points)
    show_near(data["measured_runs"])
    render.print_trust([point["output_tok_s"] for point in points])


def _traffic_text(workload: dict[str, Any], *, sweep: bool) -> str:
    parts = [f"{workload['arrivals']} arrivals"]
    if "input_tokens" in workload:
        parts.append(f"{workload['input_tokens']:,} in / {workload['output_tokens']:,} out")
        low, high = workload["input_range"]
        parts += [f"lengths × {low:g}–{high:g}"] if low != high else []
    else:
        parts.append("lengths from the trace")
    if not sweep:
        parts.append(f"{workload['num_prompts']:,} requests")
        parts += [f"concurrency {workload['concurrency']}"] if "concurrency" in workload else []
        parts += [f"{workload['request_rate']:g} req/s"] if "request_rate" in workload else []
    return ", ".join(parts)


def _show_point(point: dict[str, Any]) -> None:
    text, num = render.text, render.num
    render.print_table(
        [text("throughput"), num(""), num(INTERVAL)],
        [
            [label, render.estimate(point[name]), render.interval(point[name])]
            for name, label in RATES.items()
        ],
    )
    render.print_table(
        [text("latency"), *(num(name) for name in STATISTICS), num(f"{INTERVAL} of the mean")],
        [[label, *latency_cells(point[name])] for name, label in LATENCIES.items()],
    )
    render.print_line(
        f"{point['preemptions']:,} preemptions; {point['prefix_hit_share']:.1%} of prompt tokens "
        "from the prefix cache"
    )


def latency_cells(values: dict[str, Estimate | None]) -> list[str]:
    """Statistics of a latency, and the interval of its mean."""
    shown = [render.estimate(values[s], form=render.seconds) for s in STATISTICS]
    return [*shown, render.interval(values["mean"], form=render.seconds)]


def load_axis(points: Sequence[dict[str, Any]]) -> tuple[str, list[float]]:
    """Name and values of what a sweep varies."""
    rates = [point["workload"].get("request_rate") for point in points]
    if len(set(rates)) > 1:
        return "requests/s", rates
    return "concurrency", [point["workload"].get("concurrency", 0) for point in points]


def _show_sweep(points: Sequence[dict[str, Any]]) -> None:
    name, loads = load_axis(points)
    num = render.num
    render.print_table(
        [num(name), num("tok/s"), num("a GPU"), num("a user"), num("TTFT"), num("steady"),
         num("p99"), num("TPOT"), num("ITL p99"), num("preempted")],
        [_sweep_row(load, point) for load, point in zip(loads, points, strict=True)],
        "Output rates, and times in ms: means unless p99; steady: TTFT after the first wave",
    )  # fmt: skip


def _sweep_row(load: float, point: dict[str, Any]) -> list[str]:
    times = (
        point["ttft_s"]["mean"],
        point["steady_ttft_s"]["mean"],
        point["ttft_s"]["p99"],
        point["tpot_s"]["mean"],
        point["itl_s"]["p99"],
    )
    rates = (point["output_tok_s"], point["output_tok_s_per_gpu"], point["tok_s_per_user"])
    return [
        f"{load:g}",
        *(render.estimate(rate) for rate in rates),
        *(render.estimate(time, 1e3) for time in times),
        f"{point['preemptions']:,}",
    ]
