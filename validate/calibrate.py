"""From stored runs to a calibration: recorded steps of fitted runs, held-out ones only compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from moeplan.calibration.file import Calibration, calibration_of
from moeplan.calibration.fit import fit_steps
from moeplan.calibration.front_end import FrontEndFit, fit_front_end
from moeplan.calibration.observations import Dataset, StepObservation, group_steps
from moeplan.cost.batch import StepBatch
from moeplan.cost.used_tables import used_tables
from moeplan.errors import InputError
from moeplan.estimate import COVERED
from moeplan.hardware_specs.schema import Hardware
from moeplan.validate.front_end import front_end_data
from moeplan.validate.measured import MeasuredRun
from moeplan.validate.plan import Plan
from moeplan.validate.predict import (
    build_deployment,
    predict_load,
    prepared_of,
    resolved_scenario,
)
from moeplan.validate.probe import StepTrace

Placed = tuple[MeasuredRun, Path]
"""A run, and the folder that its plan's model and traces are relative to."""


def calibrate(runs: Sequence[Placed], hardware: Hardware) -> Calibration:
    """Fit step times, then what requests spend outside of the core.

    Raises `InputError` where no run has recorded steps.
    """
    by_setup: dict[str, list[Placed]] = {}
    for run, folder in runs:
        by_setup.setdefault(_setup(run.plan), []).append((run, folder))
    datasets = [_dataset(group, hardware) for group in by_setup.values()]
    datasets = [data for data in datasets if data.observations]
    if not datasets:
        raise InputError("none of these runs recorded its steps; run a plan with the probe on")
    fit = fit_steps(hardware, datasets)
    calibrated = hardware.with_overrides(fit.overrides)
    fitted = [(run, folder) for run, folder in runs if run.run.role == "fit" and run.traces]
    front_end = _front_end(fitted, calibrated)
    return calibration_of(
        fit,
        setups=sorted(by_setup),
        sources=sorted(run.folder.key for run, _ in fitted),
        front_end=front_end,
        served=_served_errors(runs, calibrated.with_overrides(front_end.overrides)),
    )


def _setup(plan: Plan) -> str:
    """A deployment in one line."""
    return ", ".join(f"{name} {value}" for name, value in sorted(plan.deployment.items()))


def _dataset(runs: Sequence[Placed], hardware: Hardware) -> Dataset:
    first, folder = runs[0]
    plan = first.plan
    prepared = [prepared_of(run.plan, place, hardware, run.sigma) for run, place in runs]
    observations = [o for run, _ in runs for o in observed_steps(run)]
    return Dataset(
        deployment=build_deployment(resolved_scenario(plan.scenario, folder), hardware),
        max_sequence_tokens=max(p.engine.max_model_len for p in prepared),
        sigma=first.sigma,
        observations=tuple(observations),
    )


def observed_steps(run: MeasuredRun) -> list[StepObservation]:
    """Steps of a run's clean repeats, like ones gathered."""
    batches, seconds, idle = [], [], []
    for trace in run.traces:
        found = [trace.batch(step) for step in range(len(trace))]
        batches += found
        seconds += np.where(_timed_alone(trace, found), trace.seconds(), np.nan).tolist()
        idle += trace.idle_before().tolist()
    held_out = run.run.role == "held-out"
    return group_steps(batches, seconds, run=run.key, held_out=held_out, idle=idle)


def _timed_alone(trace: StepTrace, batches: Sequence[StepBatch]) -> np.ndarray:
    """Which steps' recorded times are their own, shape (steps,).

    An asynchronous engine takes a result only once the next step is launched. Launching a step with
    a prompt may take longer than the GPU: it then counts to the step before, and the step itself
    seems short. Left out are steps before one with a prompt, and prompts that start in a busy
    engine.
    """
    if not trace.facts.get("async"):
        return np.ones(len(trace), dtype=bool)
    prompts = np.array([bool(batch.prefill_chunks) for batch in batches])
    follows = np.append(prompts[1:] & ~trace.idle_before()[1:], False)
    return ~follows & (~prompts | trace.idle_before())


def _front_end(runs: Sequence[Placed], hardware: Hardware) -> FrontEndFit:
    """Constants of the host outside of the core, of the deployment of the first run."""
    if not runs:
        return FrontEndFit()
    first, folder = runs[0]
    prepared = prepared_of(first.plan, folder, hardware)
    data = front_end_data([run for run, _ in runs], prepared.engine.host.step_us * 1e-6)
    return fit_front_end(hardware, used_tables(prepared), data)


SERVED = {"tpot": "tpot_ms_mean", "ttft": "ttft_ms_mean", "throughput": "output_tok_s"}
"""Figure that judges each family of metrics."""
FEWEST_RUNS = 3
"""Held-out runs from which on they alone tell the error of served figures."""


def _served_errors(runs: Sequence[Placed], hardware: Hardware) -> dict[str, float]:
    """|ln(predicted / measured)| that 80 % of served runs stay below, by family of metric.

    Runs are simulated anew with the calibrated constants; held-out ones judge where there are
    enough.
    """
    held = [placed for placed in runs if placed[0].run.role == "held-out"]
    found: dict[str, list[float]] = {}
    for run, folder in held if len(held) >= FEWEST_RUNS else runs:
        prepared = prepared_of(run.plan, folder, hardware, run.sigma)
        predicted = predict_load(prepared, run.run.load, folder, run.plan.routing).metrics
        for family, name in SERVED.items():
            if name in predicted and name in run.metrics:
                ratio = predicted[name] / run.metrics[name].mean
                found.setdefault(family, []).append(abs(math.log(ratio)))
    return {family: conformal(errors) for family, errors in found.items()}


def conformal(errors: Sequence[float], share: float = COVERED) -> float:
    """The value that the next error stays below with that probability, if it is like these.

    The ⌈(n + 1) share⌉-th smallest; the largest where there are too few to tell.
    """
    rank = math.ceil((len(errors) + 1) * share)
    return sorted(errors)[min(rank, len(errors)) - 1]
