"""Predicted against measured, stage by stage: memory, schedule, step times, what the client saw.

An error of an early stage is a cause of those after it, so a run's duration is also taken apart:

    predicted − measured  =  schedule  +  step times  +  outside of steps

    schedule:     the predicted schedule's steps against the recorded ones, both priced alike
    step times:   recorded steps as predicted against as measured
    outside:      what the engine and client spend between steps
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from moeplan.errors import MoeplanError
from moeplan.validate.measured import MeasuredRun, Spread
from moeplan.validate.predict import hardware_of, own_hardware, prepared_of
from moeplan.validate.probe import StepTrace
from moeplan.validate.schedule import ScheduleComparison, compare_schedule, requests_of
from moeplan.validate.workloads import TimedTrace

if TYPE_CHECKING:
    from moeplan.cost.predictor import Prepared
    from moeplan.hardware_specs import Hardware
    from moeplan.validate.plan import Plan

SHOWN = ("output_tok_s", "tpot_ms_mean", "ttft_ms_mean", "ttft_ms_p99", "itl_ms_p99", "e2e_s_mean")
"""Metrics of tables; all that both sides have are compared."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure."""

    name: str
    predicted: float
    measured: float
    spread: float = 0.0
    """Half the range over repeats, relative to the mean."""

    @property
    def error(self) -> float | None:
        """predicted / measured - 1; None where nothing was measured."""
        return self.predicted / self.measured - 1 if self.measured else None


@dataclass(frozen=True, slots=True)
class StepErrors:
    """Errors of predicted step times on recorded steps, by kind of step."""

    kind: str
    """"decode", "mixed" or "prefill"."""
    steps: int
    median_ms: float
    """Measured."""
    median_error: float
    """Median of |predicted / measured - 1|."""
    bias: float
    """Predicted / measured sum, minus 1."""


@dataclass(frozen=True, slots=True)
class Attribution:
    """Where a run's predicted duration and the measured one part ways, in seconds."""

    predicted_s: float
    measured_s: float
    schedule_s: float
    step_times_s: float
    outside_s: float


@dataclass(frozen=True)
class Comparison:
    """One run, stage by stage. `notes` say what could not be compared."""

    key: str
    role: str
    why: str
    memory: list[Row]
    schedule: list[Row]
    replay: ScheduleComparison | None
    step_errors: list[StepErrors]
    client: list[Row]
    attribution: Attribution | None
    notes: list[str]


def compare(run: MeasuredRun, plan_folder: Path, hardware: Hardware | None = None) -> Comparison:
    """Compare one run with the prediction stored before it.

    Step times are priced with the plan's own hardware files and calibration, unless `hardware` is
    given, and with the experts that the routers were counted to touch. Traces and hardware files
    are looked up relative to `plan_folder`.
    """
    notes: list[str] = []
    prepared = _prepared(run, plan_folder, hardware, notes)
    notes += _doubts_about_routing(run)
    replay, errors, attribution = None, [], None
    if prepared is None or not run.traces:
        notes += [] if run.traces else ["no steps were recorded"]
    else:
        replay = _replay(run, plan_folder, prepared, notes)
        errors = step_errors(run.traces, prepared)
        attribution = _attribute(run, prepared)
    return Comparison(
        key=run.key,
        role=run.run.role,
        why=run.run.why,
        memory=_memory(run),
        schedule=_schedule(run),
        replay=replay,
        step_errors=errors,
        client=_client(run),
        attribution=attribution,
        notes=notes,
    )


def _prepared(
    run: MeasuredRun, folder: Path, hardware: Hardware | None, notes: list[str]
) -> Prepared | None:
    """The run's deployment, None where it cannot be priced here."""
    try:
        hardware = hardware or _hardware(run.plan, folder, notes)
        return prepared_of(run.plan, folder, hardware, run.sigma)
    except MoeplanError as error:
        notes.append(f"steps cannot be priced here: {error}")
        return None


def _hardware(plan: Plan, folder: Path, notes: list[str]) -> Hardware:
    """The plan's hardware data, without its calibration where that is not at hand."""
    try:
        return hardware_of(plan, folder)
    except MoeplanError as error:
        own = own_hardware(plan, folder)
        notes.append(f"steps are priced without a calibration: {error}")
        return own


def _doubts_about_routing(run: MeasuredRun) -> list[str]:
    """Figures of a MoE model without weights are evidence only where its routers were checked."""
    if run.plan.launch.model or not run.facts.moe_backend:
        return []
    if not run.routing:
        return ["routing was not checked: figures above batch 1 are no evidence"]
    return [
        f"routers touch {t.distinct:.1f} experts at {t.batch_tokens} tokens a step, "
        f"{t.expected:.1f} expected"
        for t in run.routing
    ]


def _memory(run: MeasuredRun) -> list[Row]:
    predicted, facts = run.plan.memory, run.facts
    blocks = run.engine["cache_config"].get("num_gpu_blocks")
    found = {
        "KV cache tokens": (predicted.kv_cache_tokens, facts.kv_cache_tokens),
        "KV blocks": (predicted.num_blocks, int(blocks) if blocks else None),
        "weights GiB": (predicted.weights_gib, facts.weights_gib),
    }
    return [Row(name, p, m) for name, (p, m) in found.items() if m is not None]


def _schedule(run: MeasuredRun) -> list[Row]:
    predicted, counters = run.run.predicted, run.counters
    rows = []
    if run.traces:
        steps = [float(len(trace)) for trace in run.traces]
        decodes = [float(np.mean(_decodes(trace))) for trace in run.traces]
        rows = [
            Row("steps", predicted.steps, float(np.mean(steps)), _half_range(steps)),
            Row("decodes a step", predicted.mean_decodes, float(np.mean(decodes))),
        ]
    if "num_preemptions" in counters:
        rows.append(Row("preemptions", predicted.preemptions, counters["num_preemptions"]))
    if run.traces:  # the server's own counter leaves out what resumed requests find again
        hits = [float(trace.hit_tokens()) for trace in run.traces]
        rows.append(Row("prefix hit tokens", predicted.prefix_hit_tokens, float(np.mean(hits))))
    return rows


def _decodes(trace: StepTrace) -> np.ndarray:
    return np.array([len(trace.batch(step).decode_contexts) for step in range(len(trace))])


def _client(run: MeasuredRun) -> list[Row]:
    predicted = run.run.predicted.metrics
    found: dict[str, Spread] = run.metrics
    return [
        Row(name, predicted[name], found[name].mean, found[name].half_range)
        for name in predicted
        if name in found
    ]


def _replay(
    run: MeasuredRun, folder: Path, prepared: Prepared, notes: list[str]
) -> ScheduleComparison | None:
    """The recorded arrivals through our scheduler, with the engine's own number of blocks."""
    from moeplan.simulation.api import scheduler_settings

    trace = run.traces[0]
    load = run.run.load
    rows = load.rows(folder) if isinstance(load, TimedTrace) else []
    chunk = load.chunk_tokens if isinstance(load, TimedTrace) else 0
    kv = prepared.kv
    blocks = trace.facts.get("num_gpu_blocks")
    if blocks and blocks != kv.num_blocks:
        kv = replace(kv, num_blocks=blocks)
        notes.append(f"replayed with the engine's {blocks} blocks, not the predicted ones")
    return compare_schedule(
        trace, requests_of(trace, rows, chunk), scheduler_settings(prepared), kv
    )


def compare_replay(run: MeasuredRun, folder: Path, hardware: Hardware) -> ScheduleComparison:
    """The first repeat's recorded arrivals through our scheduler; needs recorded steps."""
    return _replay(run, folder, prepared_of(run.plan, folder, hardware, run.sigma), [])


def step_errors(traces: Sequence[StepTrace], prepared: Prepared) -> list[StepErrors]:
    """Errors of step times by kind of step, over the steps of all repeats."""
    found: dict[str, list[tuple[float, float]]] = {}
    for trace in traces:
        predicted = priced_steps(trace, prepared)
        for step, measured in enumerate(trace.seconds()):
            if measured > 0:  # NaN is not
                found.setdefault(kind_of(trace, step), []).append((predicted[step], measured))
    return [_summary(kind, np.array(pairs)) for kind, pairs in sorted(found.items())]


def _summary(kind: str, pairs: np.ndarray) -> StepErrors:
    predicted, measured = pairs.T
    return StepErrors(
        kind=kind,
        steps=len(pairs),
        median_ms=float(np.median(measured)) * 1e3,
        median_error=float(np.median(np.abs(predicted / measured - 1))),
        bias=float(predicted.sum() / measured.sum() - 1),
    )


def kind_of(trace: StepTrace, step: int) -> str:
    """What a step computes: "decode", "prefill", or "mixed"."""
    batch = trace.batch(step)
    if not batch.prefill_chunks:
        return "decode"
    return "mixed" if batch.decode_contexts else "prefill"


def priced_steps(trace: StepTrace, prepared: Prepared) -> np.ndarray:
    """Predicted seconds of every recorded step, shape (steps,)."""
    timer = prepared.timer
    price = (timer.step_seconds, timer.idle_seconds)
    idle = trace.idle_before()
    return np.array([price[int(idle[step])](trace.batch(step)) for step in range(len(trace))])


def _attribute(run: MeasuredRun, prepared: Prepared) -> Attribution:
    predicted = run.run.predicted
    predicted_s = predicted.metrics["duration_s"]
    measured_s = run.metrics["duration_s"].mean
    priced, recorded = [], []
    for trace in run.traces:
        seconds = trace.seconds()
        known = ~np.isnan(seconds)
        priced.append(float(priced_steps(trace, prepared)[known].sum()))
        recorded.append(float(seconds[known].sum()))
    predicted_steps_s = predicted.steps * predicted.mean_step_ms * 1e-3
    schedule = predicted_steps_s - float(np.mean(priced))
    times = float(np.mean(priced)) - float(np.mean(recorded))
    return Attribution(
        predicted_s, measured_s, schedule, times, predicted_s - measured_s - schedule - times
    )


def _half_range(values: Sequence[float]) -> float:
    mean = float(np.mean(values))
    return (max(values) - min(values)) / 2 / mean if mean else 0.0
