"""Which runs to make: those that narrow a user's decision most for each minute.

A linear-Gaussian design. Every parameter that prices the deployment's steps has a prior spread; a
candidate load shows certain steps, whose times respond to the parameters in known ways; measuring
them narrows the parameters, and with them the predicted duration of the user's own workload. Runs
are picked greedily by the narrowing of that duration a minute. The workload itself is measured
last, held out: it judges the calibration and is never fitted.

A first version: it looks at durations of representative steps, not at the simulated queue, and its
decision is the workload's throughput, not yet the choice between deployments.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moeplan.calibration.fit import MODEL_ERROR
from moeplan.calibration.observations import Dataset
from moeplan.calibration.parameters import Parameter, prepared, relevant_parameters
from moeplan.cost.batch import StepBatch
from moeplan.errors import InputError
from moeplan.hardware_specs.schema import Hardware
from moeplan.simulation.workload import ROUTING_SIGMA
from moeplan.validate.build import Setup, Wanted, deployment_of
from moeplan.validate.workloads import ClosedLoop

MIN_GAIN = 0.005
"""Stop when no candidate narrows the target's spread by this share."""
MODEL_SPREAD = 0.1
"""Standard deviation of the cost model's error for one kind of step, before any measurement: what
fits to published runs leave between models (an assumption, it only spreads the points)."""
MODEL_RANGE_OCTAVES = 2.0
"""Errors of steps that differ by this factor of two in size still resemble each other."""
_NUDGE = 0.02
_OVERHEAD_S = 5.0
"""Warm-up's fixed part and the benchmark's own start, a run."""
_PREFILL_PROMPTS = 8
_SHORT_OUTPUT = 64


@dataclass(frozen=True, slots=True)
class Pick:
    """A chosen load and what measuring it is worth."""

    load: ClosedLoop
    minutes: float
    why: str


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


def candidates(target: ClosedLoop, max_seqs: int) -> list[ClosedLoop]:
    """Loads to choose from: decode sweeps over batch size at three contexts, and prefills."""
    most = min(2 * target.concurrency, max_seqs)
    batches = [2**power for power in range(int(math.log2(most)) + 1)]
    inputs = sorted({128, max(target.input_tokens // 4, 1), target.input_tokens})
    decodes = [
        ClosedLoop(
            concurrency=batch, input_tokens=n, output_tokens=_SHORT_OUTPUT, num_prompts=2 * batch
        )
        for batch in batches
        for n in inputs
    ]
    lengths = [2**power for power in range(6, int(math.log2(max(target.input_tokens, 64))) + 1)]
    prefills = [
        ClosedLoop(concurrency=1, input_tokens=n, output_tokens=1, num_prompts=_PREFILL_PROMPTS)
        for n in lengths
    ]
    return decodes + prefills


class Design:
    """What measuring each candidate tells about the target's duration.

    One Gaussian over the standardised log parameters and the log times of every step of every load:
    steps vary with the parameters, and by an error of the cost model's own that like steps share.
    """

    def __init__(self, hardware: Hardware, data: Dataset, loads: Sequence[ClosedLoop]):
        """The last of `loads` is the target."""
        ready = prepared(hardware, data)
        engine = ready.engine
        self.loads = list(loads)
        self._phases = [
            phases(x, engine.max_num_batched_tokens, engine.max_num_seqs) for x in loads
        ]
        self._parameters = relevant_parameters(hardware, [data])
        batches = [phase.batch for group in self._phases for phase in group]
        self._seconds = np.array([ready.timer.step_seconds(b) for b in batches])
        response = self._responses(hardware, data, batches)
        steps = response @ response.T + _model_errors(batches)
        self._covariance = np.block(
            [[np.eye(len(self._parameters)), response.T], [response, steps]]
        )

    def _responses(
        self, hardware: Hardware, data: Dataset, batches: Sequence[StepBatch]
    ) -> np.ndarray:
        """d log(step) / d standardised log(parameter), shape (batches, parameters)."""
        columns = []
        for p in self._parameters:
            nudged = hardware.with_overrides({p.address: p.prior * math.exp(_NUDGE * p.spread)})
            timer = prepared(nudged, data).timer
            seconds = np.array([timer.step_seconds(b) for b in batches])
            columns.append(np.log(seconds / self._seconds) / _NUDGE)
        return np.array(columns).T.reshape(len(batches), len(self._parameters))

    def _rows(self, load: int) -> np.ndarray:
        """Places of a load's steps among all steps."""
        start = sum(len(group) for group in self._phases[:load])
        return np.arange(start, start + len(self._phases[load]))

    def duration_s(self, load: int) -> float:
        """Predicted seconds of a load's representative steps."""
        steps = np.array([phase.steps for phase in self._phases[load]])
        return float(steps @ self._seconds[self._rows(load)])

    def minutes(self, load: int, repeats: int) -> float:
        """Estimated minutes of measuring a load, warm-up included."""
        return ((repeats + 1) * self.duration_s(load) + _OVERHEAD_S) / 60

    def spread(self, covariance: np.ndarray | None = None) -> float:
        """Standard deviation of log(target duration) with what is measured so far."""
        known = self._covariance if covariance is None else covariance
        last = len(self._phases) - 1
        rows = self._rows(last)
        share = np.array([p.steps for p in self._phases[last]]) * self._seconds[rows]
        share /= share.sum()
        places = rows + len(self._parameters)
        return math.sqrt(float(share @ known[np.ix_(places, places)] @ share))

    def with_load(self, load: int) -> np.ndarray:
        """Covariance once the steps of a load are measured too."""
        places = self._rows(load) + len(self._parameters)
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


def _model_errors(batches: Sequence[StepBatch]) -> np.ndarray:
    """Covariance of the cost model's own errors: shared by like steps, none between kinds.

    Steps are like that differ little in tokens and in context, both in octaves.
    """
    places = np.array([_place(batch) for batch in batches])
    apart = ((places[:, None, :] - places[None, :, :]) ** 2).sum(axis=2)
    decode = np.array([not batch.prefill_chunks for batch in batches])
    same = decode[:, None] == decode[None, :]
    return MODEL_SPREAD**2 * np.exp(-apart / (2 * MODEL_RANGE_OCTAVES**2)) * same


def _place(batch: StepBatch) -> tuple[float, float]:
    context = sum(batch.decode_contexts) + sum(before for _, before in batch.prefill_chunks)
    return math.log2(batch.tokens), math.log2(1 + context / max(len(batch.decode_contexts), 1))


def choose_runs(
    hardware: Hardware, data: Dataset, target: ClosedLoop, minutes: float, repeats: int
) -> tuple[list[Pick], Pick]:
    """Loads to fit, best first, and the held-out target, together within `minutes`.

    Raises `InputError` where not even the target fits into the time.
    """
    max_seqs = prepared(hardware, data).engine.max_num_seqs
    loads = [*candidates(target, max_seqs), target]
    design = Design(hardware, data, loads)
    last = len(loads) - 1
    left = minutes - design.minutes(last, repeats)
    if left < 0:
        raise InputError(
            f"minutes {minutes:g}: the workload alone takes {design.minutes(last, repeats):.1f}; "
            "allow more, or lower --num-prompts or --repeats"
        )
    picks: list[Pick] = []
    open_loads = set(range(last))
    while best := _best(design, open_loads, left, repeats):
        picks.append(_pick(design, best, repeats))
        left -= picks[-1].minutes
        design.take(best)
        open_loads.discard(best)
    why = (
        f"held out: your workload judges the calibration; its duration is expected to be known to "
        f"±{design.spread():.1%} by then"
    )
    return picks, Pick(target, design.minutes(last, repeats), why)


def _best(design: Design, open_loads: set[int], left: float, repeats: int) -> int | None:
    """The load with the largest narrowing a minute; None if none fits or helps."""
    now = design.spread()
    best, value = None, 0.0
    for load in open_loads:
        minutes = design.minutes(load, repeats)
        gain = now - design.spread(design.with_load(load))
        if minutes <= left and gain > MIN_GAIN * now and gain / minutes > value:
            best, value = load, gain / minutes
    return best


def _pick(design: Design, load: int, repeats: int) -> Pick:
    before, after = design.spread(), design.spread(design.with_load(load))
    parameter = design.narrowed(load)
    why = (
        f"narrows your workload's duration from ±{before:.2%} to ±{after:.2%}; says most about "
        f"{parameter.address}"
    )
    return Pick(design.loads[load], design.minutes(load, repeats), why)


def wanted_runs(
    setup: Setup, target: ClosedLoop, folder: Path, minutes: float, repeats: int
) -> list[Wanted]:
    """The chosen runs by key, the held-out target last."""
    data = Dataset(
        deployment=deployment_of(setup, folder),
        max_sequence_tokens=target.input_tokens + target.output_tokens,
        sigma=ROUTING_SIGMA[setup.routing],
        observations=(),
    )
    picks, held = choose_runs(setup.hardware(folder), data, target, minutes, repeats)
    runs = [Wanted(_key(p.load), p.why, "fit", p.load, repeats, p.minutes) for p in picks]
    return [*runs, Wanted("workload", held.why, "held-out", target, repeats, held.minutes)]


def _key(load: ClosedLoop) -> str:
    if load.output_tokens == 1:
        return f"prefill-{load.input_tokens}"
    return f"decode-{load.concurrency}x{load.input_tokens}"
