"""Steps from what a client saw: figures of a load generator that one kind of step makes up.

A load generator times requests, and most of its figures mix many kinds of steps. Some are nearly
one kind all the same: the time per token of a lone request or the median gap of a steady crowd is a
decode step, the time to first token of a lone prompt that fits the token budget a prefill step.
Whether a figure is, the simulation of the same run tells: the step's share of the simulated figure.
Where it is `LEAST_SHARE` or more, the measured figure times the share counts as one measured step;
all else (queues, mixed steps, short prompts under the front end's fixed cost) is left out.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from moeplan.calibration.file import Calibration, calibration_of
from moeplan.calibration.fit import Tick, fit_steps
from moeplan.calibration.observations import Dataset, StepObservation
from moeplan.calibration.parameters import prepared
from moeplan.cost.batch import StepBatch
from moeplan.cost.predictor import Prepared
from moeplan.errors import InputError, MoeplanError
from moeplan.hardware_specs.schema import Hardware
from moeplan.records.compare import compare, split_statistic
from moeplan.records.prediction import CachingPredictor, deployment_key, run_record
from moeplan.records.record import RunRecord
from moeplan.records.rules import NotCovered
from moeplan.records.setup import Setup, deployment_of

LEAST_SHARE = 0.9
"""Of a figure, for one kind of step to stand for it; what is left becomes the step's own spread."""
_CENTRAL = (None, "mean", "p50")
"""Statistics that describe the usual step; tails show queues."""

Seconds = Callable[[float, int, int], float]
"""A figure as seconds of one step, given sequences at once and prompt tokens."""
DECODE: dict[str, Seconds] = {
    "tpot_ms": lambda value, _width, _prompt: value * 1e-3,
    "itl_ms": lambda value, _width, _prompt: value * 1e-3,
    "decode_tok_s": lambda value, width, _prompt: width / value,
    "decode_tok_s_per_user": lambda value, _width, _prompt: 1 / value,
}
PREFILL: dict[str, Seconds] = {
    "ttft_ms": lambda value, _width, _prompt: value * 1e-3,
    "prefill_tok_s": lambda value, _width, prompt: prompt / value,
}


@dataclass(frozen=True)
class ClientSteps:
    """Steps that records show, by deployment, and why the other records show none."""

    datasets: tuple[Dataset, ...]
    unused: dict[str, str]
    """Reason by record id."""

    @property
    def used(self) -> list[str]:
        """Ids of records that show a step."""
        return sorted({o.run for data in self.datasets for o in data.observations})


def client_steps(
    records: Sequence[RunRecord],
    hardware: Hardware,
    progress: Tick = lambda _share: None,
) -> ClientSteps:
    """The steps that these records show; `progress` gets the share of records that are read."""
    predict = CachingPredictor(hardware)
    setups: dict[str, list[Setup]] = defaultdict(list)
    found: dict[str, list[StepObservation]] = defaultdict(list)
    unused: dict[str, str] = {}
    for done, record in enumerate(records, 1):
        try:
            setup = deployment_of(record, hardware)
            steps = _steps(record, setup, hardware, predict)
        except MoeplanError as error:
            unused[record.id] = str(error)
        else:
            key = f"{deployment_key(setup.deployment)}|{setup.workload.routing_sigma}"
            setups[key].append(setup)
            found[key] += steps
        progress(done / len(records))
    datasets = [_dataset(setups[key], steps) for key, steps in found.items()]
    return ClientSteps(tuple(datasets), unused)


def _dataset(setups: Sequence[Setup], steps: Sequence[StepObservation]) -> Dataset:
    return Dataset(
        deployment=setups[0].deployment,
        max_sequence_tokens=max(setup.workload.longest_tokens for setup in setups),
        sigma=setups[0].workload.routing_sigma,
        observations=tuple(steps),
    )


def calibrate_records(
    records: Sequence[RunRecord],
    hardware: Hardware,
    progress: Tick = lambda _share: None,
) -> tuple[Calibration, ClientSteps]:
    """Fit step times to what these records show, and say which of them show nothing.

    Raises `InputError` where none shows a step.
    """
    steps = client_steps(records, hardware, lambda share: progress(share / 2))
    if not steps.datasets:
        reasons = [f"{name}: {reason}" for name, reason in list(steps.unused.items())[:3]]
        raise InputError("; ".join(["no record shows the time of a step", *reasons]))
    found = calibration_of(
        fit_steps(hardware, steps.datasets, lambda share: progress((1 + share) / 2)),
        setups=sorted({_line(data) for data in steps.datasets}),
        sources=steps.used,
    )
    return found, steps


def _line(data: Dataset) -> str:
    """A deployment in one line."""
    deployment = data.deployment
    return (
        f"{deployment.architecture.slug} {deployment.checkpoint.name}, {deployment.placement} on "
        f"{deployment.device}"
    )


def _steps(
    record: RunRecord, setup: Setup, hardware: Hardware, predict: CachingPredictor
) -> list[StepObservation]:
    """The decode and the prefill step that a record shows; raises `NotCovered` where none."""
    if record.speculative is not None:
        raise NotCovered("drafted tokens: gaps between tokens are no steps")
    if setup.deployment.placement.replicas > 1:
        raise NotCovered("several engines behind a router: how many sequences each ran is not said")
    run = _Run.of(record, setup, hardware, predict)
    best = [min(kind, key=_doubt, default=None) for kind in (run.decodes(), run.prefills())]
    steps = [step for step in best if step is not None]
    if not steps:
        raise NotCovered(
            f"one kind of step makes up less than {LEAST_SHARE:.0%} of each of its figures"
        )
    return steps


def _doubt(step: StepObservation) -> float:
    return step.spread


@dataclass(frozen=True)
class _Run:
    """One record beside its simulation."""

    id: str
    setup: Setup
    prepared: Prepared
    figures: dict[str, tuple[float, float]]
    """Measured and simulated, by metric."""

    @classmethod
    def of(
        cls, record: RunRecord, setup: Setup, hardware: Hardware, predict: CachingPredictor
    ) -> _Run:
        compared = compare(record, setup, run_record(record, setup, predict), predict).metrics
        figures = {name: (c.measured, c.predicted.value) for name, c in compared.items()}
        return cls(record.id, setup, prepared(hardware, _dataset([setup], ())), figures)

    @property
    def width(self) -> int:
        """Sequences that the client keeps at once; 0 where the number varies."""
        workload = self.setup.workload
        steady = workload.arrivals in ("closed", "rounds", "offline")
        return min(workload.concurrency or workload.size, workload.size) if steady else 0

    def decodes(self) -> Iterator[StepObservation]:
        """Decode steps of all sequences, half their answers written."""
        workload = self.setup.workload
        runs = 0 < self.width <= self.prepared.engine.max_num_seqs
        if not runs or workload.trace or workload.output_tokens < 2:
            return
        context = workload.input_tokens + workload.output_tokens // 2
        yield from self._shown(DECODE, StepBatch((context,) * self.width, (), self.width))

    def prefills(self) -> Iterator[StepObservation]:
        """The step of a lone prompt that fits the token budget."""
        workload, engine = self.setup.workload, self.prepared.engine
        fits = workload.input_tokens <= engine.max_num_batched_tokens
        if self.width != 1 or workload.trace or workload.shared_prefix_tokens or not fits:
            return
        yield from self._shown(PREFILL, StepBatch((), ((workload.input_tokens, 0),), 1))

    def _shown(self, kinds: dict[str, Seconds], batch: StepBatch) -> Iterator[StepObservation]:
        step = self.prepared.timer.step_seconds(batch)
        for name, (measured, simulated) in self.figures.items():
            base, statistic = split_statistic(name)
            if base not in kinds or statistic not in _CENTRAL:
                continue
            prompt = self.setup.workload.input_tokens
            share = step / kinds[base](simulated, self.width, prompt)
            if LEAST_SHARE <= share <= 1 / LEAST_SHARE:
                seconds = share * kinds[base](measured, self.width, prompt)
                yield StepObservation(batch, seconds, spread=abs(math.log(share)), run=self.id)
