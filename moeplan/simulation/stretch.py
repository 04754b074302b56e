"""A stretch of like decode steps: who decodes in turn, and when each step starts and ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moeplan.cost.batch import StepTimer
from moeplan.simulation.scheduler_base import Cohort


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """Steps that the cohorts take in turn; arrays hold one entry a step, times in seconds."""

    cohorts: Sequence[Cohort]
    starts_s: np.ndarray
    ends_s: np.ndarray
    before_s: np.ndarray
    """End of the same cohort's step before."""
    stages_free_s: np.ndarray
    """When each pipeline stage is done with each step, shape (stages, steps)."""

    @property
    def counts(self) -> np.ndarray:
        """Sequences of each step."""
        sizes, steps = [len(cohort.members) for cohort in self.cohorts], len(self.ends_s)
        return np.tile(sizes, -(-steps // len(sizes)))[:steps]

    @property
    def tokens(self) -> np.ndarray:
        """Tokens that come with each step."""
        gains = self.cohorts[0].gains
        return self.counts if gains is None else gains[: len(self.ends_s)].sum(axis=1)


def price(
    timer: StepTimer,
    cohorts: Sequence[Cohort],
    steps: int,
    previous_s: Sequence[float],
    free_s: Sequence[float],
) -> Stretch:
    """Price `steps` steps and let them flow through the pipeline.

    `previous_s` are the ends of each cohort's last step, `free_s` the times at which each stage has
    done all that was launched before. A step starts when both its cohort and the first stage are
    ready; it may be launched earlier, never later.
    """
    if len(free_s) == 1:
        seconds = _seconds(timer, cohorts[0], steps)
        times = np.cumsum(np.concatenate(([max(previous_s[0], free_s[0])], seconds)))
        before = np.concatenate(([previous_s[0]], times[1:-1]))
        return Stretch(cohorts, times[:-1], times[1:], before, times[None, 1:])
    return _flow(cohorts, _stage_seconds(timer, cohorts, steps), previous_s, free_s)


def _seconds(timer: StepTimer, cohort: Cohort, steps: int) -> np.ndarray:
    if cohort.gains is None:
        return timer.decode_seconds(cohort.contexts, steps)
    gained = np.cumsum(cohort.gains[:steps], axis=0) - cohort.gains[:steps]
    return timer.draft_seconds(cohort.contexts + gained)


def _stage_seconds(timer: StepTimer, cohorts: Sequence[Cohort], steps: int) -> np.ndarray:
    """Seconds of each step at each stage, shape (steps, stages)."""
    turns = len(cohorts)
    seconds = np.empty((steps, timer.stages))
    for turn, cohort in enumerate(cohorts):
        taken = len(range(turn, steps, turns))
        if taken:
            seconds[turn::turns] = timer.decode_stage_seconds(cohort.contexts, taken).T
    return seconds


def _flow(
    cohorts: Sequence[Cohort],
    seconds: np.ndarray,
    previous_s: Sequence[float],
    free_s: Sequence[float],
) -> Stretch:
    """Steps queue at each stage in turn; plain floats, as each depends on the one before."""
    free = list(free_s)
    ends, starts, frees = list(previous_s), [], []
    rows = zip(*seconds.T.tolist(), strict=True)  # tuples that live for a step: nothing to collect
    for row, before in zip(rows, ends, strict=False):  # `ends` of the same cohort's step before
        time = before if before > free[0] else free[0]
        starts.append(time)
        for stage, duration in enumerate(row):
            if free[stage] > time:  # a call of max takes longer
                time = free[stage]
            free[stage] = time = time + duration
        ends.append(time)
        frees += free
    return Stretch(
        cohorts,
        np.array(starts),
        np.array(ends[len(cohorts) :]),
        np.array(ends[: len(starts)]),
        np.array(frees).reshape(seconds.shape).T,
    )
