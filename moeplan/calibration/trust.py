"""`Trust`: how far the predictions of one deployment may be off, by family of metric.

With a calibration of the deployment's device and engine that determines most of what its steps take
(decided once a deployment, so that one step and whole runs agree):

    half width of ln(value) = sqrt( (z sd)² + e² )

where sd is the spread of the parameters, carried to the steps by their derivatives, and e what 80 %
of the predictions missed after the fit, on runs held out where there are any. Else the errors of
published runs of that kind say it; where there are too few of those, nothing does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist

import numpy as np

from moeplan.calibration.observations import Dataset
from moeplan.calibration.parameters import relevant_parameters
from moeplan.calibration.reach import why_not_measured
from moeplan.calibration.sensitivity import log_responses, step_seconds
from moeplan.cost.batch import StepBatch
from moeplan.cost.predictor import Prepared
from moeplan.estimate import COVERED, Basis, Estimate
from moeplan.hardware_specs.schema import Uncertainty
from moeplan.records.residuals import published_interval
from moeplan.simulation.workload import Workload

Shift = tuple[float, float]
"""Lower and upper bound of ln(measured / predicted)."""
LEAST_DETERMINED = 0.5
"""Share of the steps' prior variance that a calibration's parameters must account for: below it the
calibration says too little about the deployment."""
PUBLISHED = ("tpot", "itl", "ttft", "throughput")
"""Families whose errors published runs tell."""
_JUDGED_BY = {"itl": "tpot", "e2e": "throughput"}
"""Families that a calibration does not judge apart, and the one that speaks for them."""
_Z = NormalDist().inv_cdf((1 + COVERED) / 2)
_USUAL_BATCH = 16
_USUAL_CONTEXT = 1024


@dataclass(frozen=True)
class Trust:
    """Intervals for the predictions of one deployment."""

    basis: Basis
    shifts: Mapping[str, Shift] = field(default_factory=dict)
    """By family; families without are printed without."""
    source: str | None = None
    """What the intervals rest on, in words."""
    caveat: str | None = None
    """Why a calibration that was given does not speak for the deployment."""

    def estimate(
        self, value: float, family: str | None = None, *, inverse: bool = False
    ) -> Estimate:
        """The figure with its interval; `inverse` where it is 1 / the family's figure."""
        shift = self.shifts.get(family) if family else None
        if shift is None:
            return Estimate(value, self.basis, caveat=self.caveat)
        low, high = (-shift[1], -shift[0]) if inverse else shift
        return Estimate(
            value,
            self.basis,
            value * math.exp(low),
            value * math.exp(high),
            self.source,
            self.caveat,
        )


def trust_of(prepared: Prepared, workload: Workload | None = None) -> Trust:
    """What is known of the errors of predictions for a deployment under a workload."""
    published = _published(prepared)
    batches = usual_steps(prepared, workload)
    spread = _spread(prepared, batches)
    if not isinstance(spread, _Spread):
        return replace(published, caveat=spread)
    decode, prompt = np.eye(2)
    whole = _shares(spread.seconds, workload)
    weights = {"tpot": whole, "itl": decode, "ttft": prompt, "e2e": whole, "throughput": whole}
    known = {
        family: spread.half_width(weight, family)
        for family, weight in weights.items()
        if spread.judges(family)
    }
    shifts = {family: (-half, half) for family, half in known.items()}
    return Trust("measured here", {**published.shifts, **shifts}, spread.source)


def step_trust(prepared: Prepared, batch: StepBatch) -> Trust:
    """What is known of the error of one step's predicted time; nothing without a calibration."""
    spread = _spread(prepared, [batch])
    if not isinstance(spread, _Spread):
        return Trust(prepared.basis, caveat=spread)
    half = spread.half_width(np.ones(1), "prompt" if batch.prefill_chunks else "step")
    return Trust("measured here", {"step": (-half, half)}, spread.source)


def _published(prepared: Prepared) -> Trust:
    deployment, engine = prepared.deployment, prepared.engine.engine
    model = deployment.architecture.slug
    found = {
        family: interval
        for family in PUBLISHED
        if (interval := published_interval(family, deployment.device, engine, model))
    }
    if not found:
        return Trust(prepared.basis)
    shifts = {family: (interval.low, interval.high) for family, interval in found.items()}
    usual = found.get("tpot") or next(iter(found.values()))
    return Trust(prepared.basis, shifts, usual.source)


def _spread(prepared: Prepared, batches: Sequence[StepBatch]) -> _Spread | str | None:
    """What a calibration leaves open of these steps; why it does not say; None without one."""
    known = prepared.hardware.uncertainty
    if known is None:
        return None
    if reason := why_not_measured(known, prepared):
        return reason
    share, spread = _Spread.of(prepared, known, batches)
    if share < LEAST_DETERMINED:
        return f"calibration determines only {share:.0%} of what such steps may differ by"
    return spread


@dataclass(frozen=True)
class _Spread:
    """What a calibration leaves open of some steps."""

    seconds: np.ndarray
    """Of the steps."""
    response: np.ndarray
    """d ln(seconds) / d ln(parameter), shape (steps, fitted parameters)."""
    covariance: np.ndarray
    """Of those parameters."""
    known: Uncertainty

    @classmethod
    def of(
        cls, prepared: Prepared, known: Uncertainty, batches: Sequence[StepBatch]
    ) -> tuple[float, _Spread]:
        """Share that it determines of the prior variance of usual steps; what it leaves open."""
        hardware = prepared.hardware
        data = Dataset(prepared.deployment, prepared.engine.max_model_len, prepared.sigma, ())
        parameters = relevant_parameters(hardware, [data])
        values = {p.address: p.prior for p in parameters}
        both = [*batches, *usual_steps(prepared, None)]
        response, count = log_responses(hardware, data, values, both), len(batches)
        places = {address: place for place, address in enumerate(known.addresses)}
        fitted = np.array([address in places for address in values])
        variance = (response[count:] * np.array([p.spread for p in parameters])) ** 2
        order = [places[address] for address in values if address in places]
        return float(variance[:, fitted].sum() / variance.sum()), cls(
            step_seconds(hardware, data, batches),
            response[:count, fitted],
            np.array(known.covariance)[np.ix_(order, order)],
            known,
        )

    @property
    def source(self) -> str:
        """In words."""
        return f"the {self.known.source}"

    def judges(self, family: str) -> bool:
        """Whether served runs judged a family; single steps stand for all but the queue's."""
        return family != "ttft" or "ttft" in self.known.errors

    def half_width(self, weight: np.ndarray, family: str) -> float:
        """Half width of the interval of ln(figure), steps weighing so in it."""
        errors = self.known.errors
        missed = errors.get(_JUDGED_BY.get(family, family), errors["step"])
        response = weight @ self.response
        return math.hypot(_Z * math.sqrt(float(response @ self.covariance @ response)), missed)


def usual_steps(prepared: Prepared, workload: Workload | None) -> list[StepBatch]:
    """A decode step and a prompt's first step, as the workload has them."""
    engine = prepared.engine
    if workload is None or workload.trace:
        width, context, prompt = _USUAL_BATCH, _USUAL_CONTEXT, _USUAL_CONTEXT
    else:
        width = min(workload.concurrency or _USUAL_BATCH, workload.size)
        context = workload.input_tokens + workload.output_tokens // 2
        prompt = workload.input_tokens
    width = min(width, engine.max_num_seqs, max(prepared.memory.sequences(context), 1))
    chunk = min(prompt, engine.max_num_batched_tokens)
    return [StepBatch([context] * width, (), width), StepBatch((), [(chunk, 0)], 1)]


def _shares(seconds: np.ndarray, workload: Workload | None) -> np.ndarray:
    """Shares of a run's duration that decode and prompts take."""
    if workload is None or workload.trace:
        return np.array([1.0, 0.0])
    parts = seconds * np.array([workload.output_tokens, workload.concurrency or 1])
    return parts / parts.sum()
