"""What happens in the steps of one replica: token times, gaps between tokens, the step log."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moeplan.simulation.step_plan import StepPlan


@dataclass(frozen=True, slots=True, eq=False)
class StepLog:
    """One row a step, all arrays of one length, in order of `start_s`."""

    start_s: np.ndarray
    duration_s: np.ndarray
    """All stages of a pipeline, queueing between them included."""
    decodes: np.ndarray
    """Sequences that decode."""
    prefill_tokens: np.ndarray
    running: np.ndarray
    waiting: np.ndarray
    kv_usage: np.ndarray
    """Share of the blocks that is held."""
    preemptions: np.ndarray
    replica: np.ndarray

    @property
    def tokens(self) -> np.ndarray:
        """Tokens that each step computes, drafts left out."""
        return self.decodes + self.prefill_tokens


class Recorder:
    """Collects steps; a stretch of like steps comes as arrays."""

    def __init__(self, replica: int, usable_blocks: int, log_steps: bool):
        self._replica = replica
        self._usable = usable_blocks
        self._log_steps = log_steps
        self._last_s = 0.0
        """When the lockstep decodes got their last token."""
        self._gaps: list[float] = []
        self._gap_weights: list[int] = []
        self._times: list[float] = []
        self._counts: list[int] = []
        self._gap_runs: list[np.ndarray] = []
        self._gap_run_weights: list[np.ndarray] = []
        self._time_runs: list[np.ndarray] = []
        self._count_runs: list[np.ndarray] = []
        self._rows: list[tuple[float, ...]] = []
        self._row_runs: list[np.ndarray] = []

    def step(self, plan: StepPlan, start_s: float, end_s: float, told_s: float) -> None:
        """One step has ended: its decodes and the ends of its prefills got a token each.

        `told_s` is when the engine core takes the tokens in, at the end or later.
        """
        for request in plan.held_back:
            request.token_s = self._last_s
        for request in plan.fresh:
            self._gap(told_s - request.token_s, 1)
            request.token_s = told_s
        count = len(plan.decodes)
        if count:
            if count > len(plan.fresh):
                self._gap(told_s - self._last_s, count - len(plan.fresh))
            self._last_s = told_s
        for request in plan.ending:
            if request.token_s == request.token_s:  # not NaN: it is back from a preemption
                self._gap(told_s - request.token_s, 1)
            else:
                request.first_token_s = told_s
            request.token_s = told_s
        tokens = plan.decoded_tokens + len(plan.ending)
        if tokens:
            self._times.append(told_s)
            self._counts.append(tokens)
        if self._log_steps:
            prefill = sum(new for _, new, _ in plan.prefills)
            usage = 1 - plan.free_blocks / self._usable
            self._rows.append(
                (
                    start_s,
                    end_s - start_s,
                    count,
                    prefill,
                    plan.running,
                    plan.waiting,
                    usage,
                    len(plan.preempted),
                )
            )

    def stretch(
        self,
        plan: StepPlan,
        counts: np.ndarray,
        starts_s: np.ndarray,
        ends_s: np.ndarray,
        before_s: np.ndarray,
        tokens: np.ndarray,
    ) -> None:
        """Pure decode steps have ended, `plan` among the last of them.

        Arrays hold one entry a step: sequences, start, end, when they got their last token, and how
        many tokens came.
        """
        if not len(ends_s):
            return
        self._gap_runs.append(ends_s - before_s)
        self._gap_run_weights.append(counts)
        self._time_runs.append(ends_s)
        self._count_runs.append(tokens)
        self._last_s = float(ends_s[-1])
        if self._log_steps:
            usage = 1 - plan.free_blocks / self._usable
            rows = np.zeros((len(ends_s), 8))
            rows[:, 0], rows[:, 1], rows[:, 2] = starts_s, ends_s - starts_s, counts
            rows[:, 4], rows[:, 5], rows[:, 6] = plan.running, plan.waiting, usage
            self._row_runs.append(rows)

    def _gap(self, gap_s: float, weight: int) -> None:
        self._gaps.append(gap_s)
        self._gap_weights.append(weight)

    def gaps(self) -> tuple[np.ndarray, np.ndarray]:
        """Gaps between consecutive tokens of a request, in seconds, and how many there are."""
        return (
            np.concatenate([np.array(self._gaps, float), *self._gap_runs]),
            np.concatenate([np.array(self._gap_weights, int), *self._gap_run_weights]),
        )

    def tokens(self) -> tuple[np.ndarray, np.ndarray]:
        """Times at which tokens came, in seconds, and how many at each; not in order."""
        return (
            np.concatenate([np.array(self._times, float), *self._time_runs]),
            np.concatenate([np.array(self._counts, int), *self._count_runs]),
        )

    def log(self) -> np.ndarray:
        """Rows of the step log, columns as in `StepLog`, replica included."""
        rows = np.concatenate([np.array(self._rows, float).reshape(-1, 8), *self._row_runs])
        return np.column_stack([rows, np.full(len(rows), self._replica)])
