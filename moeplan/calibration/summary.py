"""What a fit says about each parameter, and how well steps are priced before and after it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from moeplan.calibration.observations import Dataset, StepObservation
from moeplan.calibration.parameters import prepared
from moeplan.hardware_specs.schema import Hardware

PricedStep = tuple[StepObservation, float]
"""Measured steps, and their predicted seconds."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FittedParameter(_Frozen):
    """A parameter before and after. Spreads are standard deviations of log(value)."""

    address: str
    prior: float
    prior_spread: float
    prior_source: str
    value: float
    spread: float
    determined: bool
    """False: the runs say too little about it; `value` is the prior."""


def determined_values(parameters: Iterable[FittedParameter]) -> dict[str, float]:
    """Fitted values by address, for `Hardware.with_overrides`; priors that were kept left out."""
    return {p.address: p.value for p in parameters if p.determined}


class RunSummary(_Frozen):
    """Errors of the steps of one run: |predicted / measured - 1| and the mean signed one."""

    run: str
    steps: int
    cells: int
    """Groups of like steps; the statistics are over these."""
    median_error: float
    p90_error: float
    bias: float


class Summary(_Frozen):
    """Errors of steps by run and over all runs."""

    cells: int
    median_error: float | None
    p80_error: float | None
    p90_error: float | None
    bias: float | None
    runs: list[RunSummary]


def priced_steps(
    hardware: Hardware, datasets: Sequence[Dataset], *, held_out: bool
) -> list[PricedStep]:
    """The fitted or the held-out steps, each with its predicted seconds."""
    found: list[PricedStep] = []
    for data in datasets:
        chosen = data.held_out if held_out else data.fitted
        if chosen:
            timer = prepared(hardware, data).timer
            found += [(observation, observation.priced(timer)) for observation in chosen]
    return found


def summarise(priced: Sequence[PricedStep]) -> Summary:
    """Compare predicted steps with the measured ones."""
    errors: list[float] = []
    runs: dict[str, tuple[int, list[float]]] = {}
    for observation, predicted in priced:
        error = predicted / observation.seconds - 1
        steps, own = runs.get(observation.run, (0, []))
        runs[observation.run] = (steps + observation.steps, [*own, error])
        errors.append(error)
    return Summary(
        cells=len(errors),
        median_error=_quantile(errors, 0.5),
        p80_error=_quantile(errors, 0.8),
        p90_error=_quantile(errors, 0.9),
        bias=float(np.mean(errors)) if errors else None,
        runs=[_run_summary(name, steps, own) for name, (steps, own) in sorted(runs.items())],
    )


def errors_by_kind(priced: Sequence[PricedStep]) -> dict[str, list[float]]:
    """|ln(predicted / measured)| of decode steps ("step") and of steps with a prompt ("prompt")."""
    found: dict[str, list[float]] = {"step": [], "prompt": []}
    for observation, predicted in priced:
        kind = "prompt" if observation.batch.prefill_chunks else "step"
        found[kind].append(abs(math.log(predicted / observation.seconds)))
    return found


def _run_summary(name: str, steps: int, errors: list[float]) -> RunSummary:
    size = np.abs(errors)
    return RunSummary(
        run=name,
        steps=steps,
        cells=len(errors),
        median_error=float(np.median(size)),
        p90_error=float(np.quantile(size, 0.9)),
        bias=float(np.mean(errors)),
    )


def _quantile(errors: list[float], share: float) -> float | None:
    return float(np.quantile(np.abs(errors), share)) if errors else None
