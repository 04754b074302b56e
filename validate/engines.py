"""What stored runs say of each engine they were measured on: memory, routing, schedule, steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from moeplan.validate.again import Again
from moeplan.validate.compare import compare_replay, priced_steps
from moeplan.validate.measured import MeasuredRun
from moeplan.validate.plan import Plan
from moeplan.validate.predict import prepared_of
from moeplan.validate.probe import StepTrace
from moeplan.validate.routing import Touched

if TYPE_CHECKING:
    from moeplan.hardware_specs import Hardware

Placed = tuple[MeasuredRun, Path]
"""A run, and the folder that its plan's traces are relative to."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Recorded steps of one kind, priced twice: with constants as they were, and as given now.

    An asynchronous engine takes a result once the next step is launched, and launching a step with
    a prompt can take longer than the GPU: such steps are timed together with the one before.
    """

    kind: str
    """"decode" or "prompts"."""
    timed: int
    """Steps or groups of steps."""
    median_ms: float
    """Measured."""
    median_error: float
    """Median of |predicted / measured - 1|, constants as they were."""
    bias: float
    """Sum predicted / sum measured - 1."""
    median_error_now: float
    bias_now: float


@dataclass(frozen=True, slots=True)
class EngineSummary:
    """One deployment, over its runs."""

    name: str
    runs: int
    kv_predicted: int
    kv_measured: int | None
    weights_predicted_gib: float
    weights_measured_gib: float | None
    touched: list[Touched]
    sigma: float
    """Spread of expert popularity as counted, or as assumed where nothing was."""
    steps: int
    steps_equal: int
    """Steps of first repeats, and those that the simulated schedule has too."""
    preemptions: int
    preemptions_simulated: int
    kinds: list[Steps]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How predictions fared, by engine and by run."""

    engines: list[EngineSummary]
    runs: list[Again]


def summarise(runs: Sequence[Placed], then: Hardware, now: Hardware) -> list[EngineSummary]:
    """One summary a deployment, in order of appearance; both prices take the experts counted."""
    groups: dict[str, list[Placed]] = {}
    for run, folder in runs:
        groups.setdefault(engine_name(run.plan), []).append((run, folder))
    return [_summary(name, group, then, now) for name, group in groups.items()]


def engine_name(plan: Plan) -> str:
    """ "gpt-oss-120b, 2 × h100_sxm"."""
    about = plan.deployment
    form = f" {about['checkpoint']}" if "checkpoint" in about else ""
    many = f"{about['tp']} × " if about.get("tp", 1) > 1 else ""
    return f"{about['model']}{form}, {many}{about['device']}"


def _summary(name: str, runs: Sequence[Placed], then: Hardware, now: Hardware) -> EngineSummary:
    first = runs[0][0]
    replays = [compare_replay(run, folder, now) for run, folder in runs if run.traces]
    return EngineSummary(
        name=name,
        runs=len(runs),
        kv_predicted=first.plan.memory.kv_cache_tokens,
        kv_measured=first.facts.kv_cache_tokens,
        weights_predicted_gib=first.plan.memory.weights_gib,
        weights_measured_gib=first.facts.weights_gib,
        touched=first.routing or [],
        sigma=first.sigma,
        steps=sum(replay.steps for replay in replays),
        steps_equal=sum(replay.steps - len(replay.differing) for replay in replays),
        preemptions=sum(replay.recorded_preemptions for replay in replays),
        preemptions_simulated=sum(replay.preemptions for replay in replays),
        kinds=_kinds(runs, then, now),
    )


def _kinds(runs: Sequence[Placed], then: Hardware, now: Hardware) -> list[Steps]:
    rows = [row for placed in runs for row in _priced(placed, then, now)]
    found = []
    for prompts, kind in ((False, "decode"), (True, "prompts")):
        mine = np.array([row[1:] for row in rows if row[0] is prompts])
        if len(mine):
            measured, *priced = mine.T
            errors = [value for price in priced for value in _errors(price, measured)]
            found.append(Steps(kind, len(mine), float(np.median(measured)) * 1e3, *errors))
    return found


def _errors(predicted: np.ndarray, measured: np.ndarray) -> tuple[float, float]:
    median = float(np.median(np.abs(predicted / measured - 1)))
    return median, float(predicted.sum() / measured.sum() - 1)


def _priced(
    placed: Placed, then: Hardware, now: Hardware
) -> Iterator[tuple[bool, float, float, float]]:
    """Whether a prompt is in it, measured seconds, and both prices of what was timed as one."""
    run, folder = placed
    both = [prepared_of(run.plan, folder, hardware, run.sigma) for hardware in (then, now)]
    for trace in run.traces:
        prices = [priced_steps(trace, prepared) for prepared in both]
        prompts = _prompts(trace)
        seconds = trace.seconds()
        for part in _timed_together(trace, prompts):
            measured = float(seconds[part].sum())
            if measured > 0:  # NaN is not
                before, after = (float(price[part].sum()) for price in prices)
                yield bool(prompts[part].any()), measured, before, after


def _prompts(trace: StepTrace) -> np.ndarray:
    return np.array([bool(trace.batch(step).prefill_chunks) for step in range(len(trace))])


def _timed_together(trace: StepTrace, prompts: np.ndarray) -> Iterator[slice]:
    """Runs of steps whose recorded times only add up to their own."""
    joins = prompts & ~trace.idle_before() & bool(trace.facts.get("async"))
    starts = np.flatnonzero(~joins | (np.arange(len(trace)) == 0))
    for start, end in zip(starts, [*starts[1:], len(trace)], strict=True):
        yield slice(int(start), int(end))
