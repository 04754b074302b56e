"""What `validate compare` prints: engines in the order in which an error spreads, then runs."""

from __future__ import annotations

from collections.abc import Sequence

from moeplan.cli import render
from moeplan.validate.again import JUDGED, KV, Again, Figure, Share, shares
from moeplan.validate.engines import Accuracy, EngineSummary

_NAMES = {"output_tok_s": "tok/s", "tpot_ms_mean": "TPOT ms", "ttft_ms_mean": "TTFT ms", KV: "KV"}


def show_again(found: Sequence[Again]) -> None:
    """What was measured of each run, both predictions' errors, and the errors over runs."""
    served = JUDGED[:-1]
    for role in dict.fromkeys(run.role for run in found):
        head = [render.text(f"{role} run", keep=True)]
        for name in served:
            head += [render.num(_NAMES[name]), render.num("error %")]
        rows = [
            [run.key, *(cell for name in served for cell in _cells(run.figures.get(name)))]
            for run in found
            if run.role == role
        ]
        title = "measured, and predicted / measured − 1: before the run, then anew"
        render.print_table(head, rows, title)
    _show_shares(shares(found))


def _cells(figure: Figure | None) -> list[str]:
    if figure is None:
        return ["–", "–"]
    errors = "/".join(_short(error) for error in (figure.error_before, figure.error_anew))
    measured = figure.measured
    return [f"{measured:,.0f}" if measured >= 1000 else f"{measured:.4g}", errors]


def _short(error: float) -> str:
    """In per cent; one decimal below 10 % keeps the columns narrow."""
    return f"{100 * error:+.1f}" if abs(error) < 0.0995 else f"{100 * error:+.0f}"


def _show_shares(found: Sequence[Share]) -> None:
    head = [render.text("runs", keep=True), render.text("figure", keep=True), render.num("number")]
    for when in ("before", "anew"):
        head += [render.num(f"median {when}"), render.num(f"p90 {when}")]
    rows = []
    for s in found:
        errors = (s.median_before, s.p90_before, s.median_anew, s.p90_anew)
        rows.append([s.role, _NAMES[s.name], f"{s.runs}", *(f"{x:.1%}" for x in errors)])
    render.print_table(head, rows, "absolute errors; KV once an engine")


def show_accuracy(found: Accuracy) -> None:
    """Memory, routing, schedule and steps of each engine, then its runs."""
    _show_memory(found.engines)
    _show_routing(found.engines)
    _show_schedule(found.engines)
    _show_steps(found.engines)
    show_again(found.runs)


def _show_memory(engines: Sequence[EngineSummary]) -> None:
    head = [render.text("engine", keep=True), render.num("KV predicted"), render.num("measured")]
    head += [render.num("error"), render.num("weights GiB predicted"), render.num("measured")]
    rows = []
    for e in engines:
        error = e.kv_predicted / e.kv_measured - 1 if e.kv_measured else None
        rows.append(
            [e.name, f"{e.kv_predicted:,}", f"{e.kv_measured:,}" if e.kv_measured else "–",
             _percent(error), f"{e.weights_predicted_gib:.2f}",
             f"{e.weights_measured_gib:.2f}" if e.weights_measured_gib else "–"]
        )  # fmt: skip
    render.print_table(head, rows, "memory, predicted before the run")


def _show_routing(engines: Sequence[EngineSummary]) -> None:
    head = [render.text("engine", keep=True), render.num("tokens"), render.num("layer calls")]
    head += [render.num("experts touched"), render.num("meant"), render.num("spread counted")]
    rows = [
        [e.name, f"{t.batch_tokens}", f"{t.calls}", f"{t.distinct:.1f}", f"{t.expected:.1f}",
         f"{e.sigma:.2f}"]
        for e in engines
        for t in e.touched
        if t.batch_tokens > 1
    ]  # fmt: skip
    if rows:
        render.print_table(head, rows, "distinct experts a router call")


def _show_schedule(engines: Sequence[EngineSummary]) -> None:
    head = [render.text("engine", keep=True), *map(render.num, ("runs", "steps", "equal"))]
    head += [render.num("preemptions"), render.num("simulated")]
    rows = [
        [e.name, f"{e.runs}", f"{e.steps:,}", f"{e.steps_equal:,}", f"{e.preemptions}",
         f"{e.preemptions_simulated}"]
        for e in engines
    ]  # fmt: skip
    title = "schedule: recorded arrivals through the simulated scheduler, first repeats"
    render.print_table(head, rows, title)


def _show_steps(engines: Sequence[EngineSummary]) -> None:
    head = [render.text("engine", keep=True), render.text("steps", keep=True)]
    head += map(render.num, ("timed", "ms", "shipped", "calibrated"))
    rows = [
        [e.name, k.kind, f"{k.timed:,}", f"{k.median_ms:.2f}",
         f"{k.median_error:.1%} {k.bias:+.1%}", f"{k.median_error_now:.1%} {k.bias_now:+.1%}"]
        for e in engines
        for k in e.kinds
    ]  # fmt: skip
    title = "step times, experts as counted: median error and bias, shipped, calibrated"
    render.print_table(head, rows, title)


def _percent(error: float | None) -> str:
    return "–" if error is None else f"{error:+.1%}"
