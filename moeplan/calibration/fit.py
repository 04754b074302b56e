"""Fit step times: robust least squares in log space, with every parameter tied to its prior.

    minimise  Σ ρ( log(predicted / measured) / noise )  +  Σ ( log(value / prior) / spread )²

over the steps of frozen schedules, so that an error of the scheduler cannot leak into a kernel's
bandwidth. ρ is SciPy's soft_l1 for the steps; the tie to the prior is quadratic. A parameter whose
spread the steps do not narrow is put back to its prior and the rest fitted again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moeplan.calibration.observations import Dataset, StepObservation
from moeplan.calibration.parameters import Parameter, prepared, relevant_parameters
from moeplan.calibration.summary import (
    FittedParameter,
    PricedStep,
    Summary,
    determined_values,
    errors_by_kind,
    priced_steps,
    summarise,
)
from moeplan.errors import InputError
from moeplan.estimate import COVERED
from moeplan.hardware_specs.schema import Hardware

MODEL_ERROR = 0.04
"""Standard deviation of log(step time) that even a perfect fit leaves: the cost model's own."""
NARROWED = 0.8
"""A parameter counts as determined if the steps shrink its spread below this share of the prior."""
USUAL_ROUNDS = 12
"""How often fits price all steps, in multiples of the parameters; tells only how far a fit is."""
MOST_WEIGHT = 16
"""Observations count as at most this many steps: one cell must not drown the others."""
MOST_CELLS = 12
"""A run's cells weigh as at most this many: errors of the cost model are alike in like steps."""
FEWEST_CELLS = 8
"""Held-out groups of steps from which on they tell the error of a fit."""
LEAST_ERROR = 0.03
"""No calibration counts as surer than this: repeats of one setup differ by 2 % in the median."""
_MEMORY = 64
"""Sets of values of which a dataset's predictions are kept: a Jacobian asks for most of them
again."""


Tick = Callable[[float], None]


@dataclass(frozen=True)
class Fit:
    """Outcome of a fit; `covariance` is that of log(value), in the order of the determined ones."""

    parameters: tuple[FittedParameter, ...]
    covariance: np.ndarray
    before: Summary
    after: Summary
    held_out_before: Summary
    held_out_after: Summary
    errors: dict[str, float]
    """|ln(predicted / measured)| that 80 % of decode steps ("step") and of steps with a prompt
    ("prompt") stay below after the fit; of held-out ones where there are enough."""

    @property
    def overrides(self) -> dict[str, float]:
        """Determined parameters by address."""
        return determined_values(self.parameters)


def fit_steps(
    hardware: Hardware, datasets: Sequence[Dataset], tick: Tick = lambda _share: None
) -> Fit:
    """Fit the parameters that the steps of these deployments determine.

    Held-out observations are priced before and after, never fitted; `tick` is called with the rough
    share that is done whenever the steps have been priced. Raises `InputError` where there is
    nothing to fit.
    """
    if not any(data.fitted for data in datasets):
        raise InputError("no measured steps to fit; run a plan with the probe on, or give probe/")
    parameters = relevant_parameters(hardware, datasets)
    problem = _Problem(hardware, datasets, parameters, tick)
    everything = problem.solve(range(len(parameters)))
    determined = [
        i for i in range(len(parameters)) if everything.spread[i] < NARROWED * parameters[i].spread
    ]
    final = problem.solve(determined) if len(determined) < len(parameters) else everything
    fitted = _fitted(parameters, determined, final, everything)
    calibrated = hardware.with_overrides(determined_values(fitted))
    after = priced_steps(calibrated, datasets, held_out=False)
    held_out_after = priced_steps(calibrated, datasets, held_out=True)
    return Fit(
        parameters=tuple(fitted),
        covariance=final.covariance,
        before=summarise(priced_steps(hardware, datasets, held_out=False)),
        after=summarise(after),
        held_out_before=summarise(priced_steps(hardware, datasets, held_out=True)),
        held_out_after=summarise(held_out_after),
        errors=_errors(after, held_out_after),
    )


def _errors(
    fitted_steps: Sequence[PricedStep], held_out_steps: Sequence[PricedStep]
) -> dict[str, float]:
    held, fitted = errors_by_kind(held_out_steps), errors_by_kind(fitted_steps)
    judges = {k: held[k] if len(held[k]) >= FEWEST_CELLS else fitted[k] for k in held}
    every = [error for errors in judges.values() for error in errors]
    return {
        kind: max(LEAST_ERROR, float(np.quantile(errors or every, COVERED)))
        for kind, errors in judges.items()
    }


@dataclass(frozen=True)
class _Solution:
    x: np.ndarray
    """Standardised log changes of the chosen parameters."""
    covariance: np.ndarray
    """Of log(value)."""

    @property
    def spread(self) -> np.ndarray:
        return np.sqrt(np.diag(self.covariance))


class _Problem:
    """Residuals of the steps as a function of standardised log changes."""

    def __init__(
        self,
        hardware: Hardware,
        datasets: Sequence[Dataset],
        parameters: Sequence[Parameter],
        tick: Tick,
    ):
        self._tick, self._asked = tick, 0
        self._parameters = parameters
        self._priced = [_Priced(hardware, data) for data in datasets if data.fitted]
        observations = [o for priced in self._priced for o in priced.data.fitted]
        self._measured = np.log([o.seconds for o in observations])
        cells = Counter(o.run for o in observations)
        self._weights = np.sqrt(
            [_weight(o) * min(1, MOST_CELLS / cells[o.run]) for o in observations]
        )

    def solve(self, chosen: Sequence[int]) -> _Solution:
        """Fit the chosen parameters, the others at their priors."""
        from scipy.optimize import least_squares

        if not len(chosen):
            return _Solution(np.zeros(0), np.zeros((0, 0)))
        steps = self._residuals(chosen)

        def residuals(x: np.ndarray) -> np.ndarray:
            return np.concatenate([_soft(steps(x)), x])

        found = least_squares(
            residuals, np.zeros(len(chosen)), x_scale=1.0, diff_step=1e-3, max_nfev=40
        )
        spread = np.array([self._parameters[i].spread for i in chosen])
        hessian = found.jac.T @ found.jac  # the prior's rows make it positive definite
        return _Solution(found.x, np.linalg.inv(hessian) * np.outer(spread, spread))

    def _residuals(self, chosen: Sequence[int]) -> Callable[[np.ndarray], np.ndarray]:
        picked = [self._parameters[i] for i in chosen]

        def residuals(x: np.ndarray) -> np.ndarray:
            self._asked += 1
            self._tick(min(self._asked / (USUAL_ROUNDS * len(self._parameters)), 1.0))
            values = {
                p.address: p.prior * float(np.exp(p.spread * shift))
                for p, shift in zip(picked, x, strict=True)
            }
            predicted = np.concatenate([priced.seconds(values) for priced in self._priced])
            return (np.log(predicted) - self._measured) * self._weights

        return residuals


class _Priced:
    """Predictions of one dataset's fitted steps, kept by the values that they depend on."""

    def __init__(self, hardware: Hardware, data: Dataset):
        self.data = data
        self._hardware = hardware
        self._known = {p.address for p in relevant_parameters(hardware, [data])}
        self._kept: dict[tuple, np.ndarray] = {}

    def seconds(self, values: Mapping[str, float]) -> np.ndarray:
        """Predicted seconds with parameters at these values, shape (observations,)."""
        own = {address: value for address, value in values.items() if address in self._known}
        key = tuple(own.items())
        if key not in self._kept:
            if len(self._kept) >= _MEMORY:
                self._kept.clear()
            hardware = self._hardware.with_overrides(own)
            self._kept[key] = step_seconds(hardware, self.data, self.data.fitted)
        return self._kept[key]


def step_seconds(
    hardware: Hardware, data: Dataset, observations: Sequence[StepObservation]
) -> np.ndarray:
    """Predicted seconds of these steps, shape (observations,)."""
    timer = prepared(hardware, data).timer
    return np.array([o.priced(timer) for o in observations])


def _weight(observation: StepObservation) -> float:
    """1 / variance of log(seconds): the model's own error, and noise that averages out."""
    count = min(observation.steps, MOST_WEIGHT)
    return 1 / (MODEL_ERROR**2 + observation.spread**2 / count)


def _soft(residuals: np.ndarray) -> np.ndarray:
    """Residuals whose squares are SciPy's soft_l1 loss, 2 (√(1 + z²) − 1), signs kept.

    Applied here and not through `loss=`, which would soften the tie to the priors as well.
    """
    return np.sign(residuals) * np.sqrt(2 * (np.sqrt(1 + residuals**2) - 1))


def _fitted(
    parameters: Sequence[Parameter],
    determined: Sequence[int],
    final: _Solution,
    everything: _Solution,
) -> list[FittedParameter]:
    place = {index: rank for rank, index in enumerate(determined)}
    rows = []
    for index, p in enumerate(parameters):
        rank = place.get(index)
        shift = 0.0 if rank is None else p.spread * float(final.x[rank])
        spread = everything.spread[index] if rank is None else final.spread[rank]
        rows.append(
            FittedParameter(
                address=p.address,
                prior=p.prior,
                prior_spread=p.spread,
                prior_source=f"{p.grade}: {p.source}",
                value=p.prior * float(np.exp(shift)),
                spread=float(spread),
                determined=rank is not None,
            )
        )
    return rows
