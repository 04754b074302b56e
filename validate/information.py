"""What measuring a load tells about the figure that a user decides on: a linear-Gaussian design."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moeplan.calibration.fit import MODEL_ERROR
from moeplan.calibration.observations import Dataset
from moeplan.calibration.parameters import Parameter, prepared, relevant_parameters
from moeplan.calibration.sensitivity import log_responses, step_seconds
from moeplan.cost.batch import StepBatch
from moeplan.hardware_specs.schema import Hardware
from moeplan.validate.decision import Decision, Metric, chance_of_wrong
from moeplan.validate.workloads import ClosedLoop

NO_CHOICE = Decision()
"""The workload's throughput, held against nothing."""
SHARED_ERROR = 0.5
"""Share of the cost model's error that like steps of two deployments have in common (an assumption:
they run much of the same kernels)."""
MODEL_SPREAD = 0.1
"""Standard deviation of the cost model's error for one kind of step, before any measurement: what
fits to published runs leave between models (an assumption, it only spreads the points)."""
MODEL_RANGE_OCTAVES = 2.0
"""Errors of steps that differ by this factor of two in size still resemble each other."""
_OVERHEAD_S = 5.0
"""Warm-up's fixed part and the benchmark's own start, a run."""


@dataclass(frozen=True, slots=True)
class _Phase:
    """Steps of one composition that a load goes through."""

    batch: StepBatch
    steps: float


def phases(load: ClosedLoop, budget: int, max_seqs: int) -> list[_Phase]:
    """Representative steps of a closed loop: prefill chunks, and decodes at half the output."""
    running = min(load.concurrency, max_seqs, load.num_prompts)
    waves = load.num_prompts / running
    tokens = load.input_tokens
    chunk = min(tokens, budget)
    found = [_Phase(StepBatch((), [(chunk, 0)], 1), load.num_prompts * math.ceil(tokens / chunk))]
    if load.output_tokens > 1:
        contexts = [tokens + load.output_tokens // 2] * running
        found.append(_Phase(StepBatch(contexts, (), running), waves * (load.output_tokens - 1)))
    return found


class Design:
    """What measuring each candidate tells about the figure that is decided on.

    One Gaussian over the standardised log parameters and the log times of every step of every load:
    steps vary with the parameters, and by an error of the cost model's own that like steps share.
    """

    def __init__(
        self,
        hardware: Hardware,
        data: Dataset,
        loads: Sequence[ClosedLoop],
        decision: Decision = NO_CHOICE,
        rival: Dataset | None = None,
        margin: float = 0.0,
    ):
        """The last of `loads` is the target; `rival` is another deployment under it.

        `margin` is the decision's `log_margin` as predicted.
        """
        self.loads = list(loads)
        self.decision, self._margin = decision, margin
        sides = [_Side(hardware, data, loads)]
        if rival is not None:
            sides.append(_Side(hardware, rival, loads[-1:]))
        self._own = sides[0]
        self._parameters = relevant_parameters(hardware, [side.data for side in sides])
        response = np.vstack([side.responses(self._parameters) for side in sides])
        steps = response @ response.T + _model_errors(sides)
        self._covariance = np.block(
            [[np.eye(len(self._parameters)), response.T], [response, steps]]
        )
        self._weights = self._figure(sides)
        self._first = self.spread()

    def _figure(self, sides: Sequence[_Side]) -> np.ndarray:
        """Weights of all steps in ln of the figure: the target's less the rival's."""
        signed = [
            sign * side.shares(self.decision.metric)
            for sign, side in zip((1, -1), sides, strict=False)
        ]
        return np.concatenate([np.zeros(len(self._parameters)), *signed])

    def duration_s(self, load: int) -> float:
        """Predicted seconds of a load's representative steps."""
        return self._own.duration_s(load)

    def minutes(self, load: int, repeats: int) -> float:
        """Estimated minutes of measuring a load, warm-up included."""
        return ((repeats + 1) * self.duration_s(load) + _OVERHEAD_S) / 60

    def spread(self, covariance: np.ndarray | None = None) -> float:
        """Standard deviation of ln of the figure with what is measured so far."""
        known = self._covariance if covariance is None else covariance
        return math.sqrt(max(float(self._weights @ known @ self._weights), 0.0))

    def doubt(self, covariance: np.ndarray | None = None) -> float:
        """What runs are to take off: the expected chance of a wrong choice, else the spread."""
        spread = self.spread(covariance)
        if not self.decision.is_choice:
            return spread
        return chance_of_wrong(self._margin, self._first, spread)

    def with_load(self, load: int) -> np.ndarray:
        """Covariance once the steps of a load are measured too."""
        places = self._own.rows(load) + len(self._parameters)
        seen = self._covariance[:, places]
        noise = MODEL_ERROR**2 * np.eye(len(places))
        inner = self._covariance[np.ix_(places, places)] + noise
        return self._covariance - seen @ np.linalg.solve(inner, seen.T)

    def take(self, load: int) -> None:
        """Count a load as measured."""
        self._covariance = self.with_load(load)

    def narrowed(self, load: int) -> Parameter:
        """The parameter whose spread a load narrows most."""
        count = len(self._parameters)
        before = np.diag(self._covariance)[:count]
        after = np.diag(self.with_load(load))[:count]
        return self._parameters[int(np.argmax(before / after))]


class _Side:
    """Representative steps of loads on one deployment."""

    def __init__(self, hardware: Hardware, data: Dataset, loads: Sequence[ClosedLoop]):
        engine = prepared(hardware, data).engine
        self.hardware, self.data = hardware, data
        self.phases = [phases(x, engine.max_num_batched_tokens, engine.max_num_seqs) for x in loads]
        self.batches = [phase.batch for group in self.phases for phase in group]
        self.seconds = step_seconds(hardware, data, self.batches)

    def responses(self, parameters: Sequence[Parameter]) -> np.ndarray:
        """d log(step) / d standardised log(parameter), shape (batches, parameters)."""
        values = {p.address: p.prior for p in parameters}
        spreads = np.array([p.spread for p in parameters])
        return log_responses(self.hardware, self.data, values, self.batches) * spreads

    def rows(self, load: int) -> np.ndarray:
        """Places of a load's steps among all steps."""
        start = sum(len(group) for group in self.phases[:load])
        return np.arange(start, start + len(self.phases[load]))

    def duration_s(self, load: int) -> float:
        """Predicted seconds of a load's representative steps."""
        steps = np.array([phase.steps for phase in self.phases[load]])
        return float(steps @ self.seconds[self.rows(load)])

    def shares(self, metric: Metric) -> np.ndarray:
        """Shares of the target's steps in the figure, 0 for all others, shape (batches,)."""
        last = len(self.phases) - 1
        rows = self.rows(last)
        parts = np.array(
            [phase.steps if _counts(phase, metric) else 0.0 for phase in self.phases[last]]
        )
        found = np.zeros(len(self.batches))
        found[rows] = parts * self.seconds[rows]
        return found / found.sum() if found.sum() else found


def _counts(phase: _Phase, metric: Metric) -> bool:
    """Whether a phase's steps are part of a metric's time."""
    if metric == "throughput":
        return True
    return bool(phase.batch.prefill_chunks) == (metric == "ttft")


def _model_errors(sides: Sequence[_Side]) -> np.ndarray:
    """Covariance of the cost model's own errors: shared by like steps, none between kinds.

    Steps are like that differ little in tokens and in context, both in octaves; those of two
    deployments share `SHARED_ERROR` of it.
    """
    batches = [batch for side in sides for batch in side.batches]
    owner = np.repeat(np.arange(len(sides)), [len(side.batches) for side in sides])
    places = np.array([_place(batch) for batch in batches])
    apart = ((places[:, None, :] - places[None, :, :]) ** 2).sum(axis=2)
    decode = np.array([not batch.prefill_chunks for batch in batches])
    same = decode[:, None] == decode[None, :]
    shared = np.where(owner[:, None] == owner[None, :], 1.0, SHARED_ERROR)
    return MODEL_SPREAD**2 * np.exp(-apart / (2 * MODEL_RANGE_OCTAVES**2)) * same * shared


def _place(batch: StepBatch) -> tuple[float, float]:
    context = sum(batch.decode_contexts) + sum(before for _, before in batch.prefill_chunks)
    return math.log2(batch.tokens), math.log2(1 + context / max(len(batch.decode_contexts), 1))
