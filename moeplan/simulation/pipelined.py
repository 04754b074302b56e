"""The scheduler of an engine with pipeline stages: several batches are under way.

A decode cannot be scheduled again before its token is known. So decodes form cohorts, one a batch
under way, that take turns. With asynchronous scheduling a cohort's next batch is queued one turn
ahead: it may be scheduled once as many batches have followed as there are stages
(v1/core/sched/async_scheduler.py, `next_decode_eligible_step`). Chunks of one prompt follow each
other through the pipeline without waiting.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moeplan.cost.kv_layout import KVCacheSpec
from moeplan.simulation.requests import Request
from moeplan.simulation.scheduler import Scheduler
from moeplan.simulation.scheduler_base import Cohort, SchedulerBase
from moeplan.simulation.speculative import SpeculativeScheduler
from moeplan.simulation.step_plan import SchedulerSettings, StepPlan


def make_scheduler(
    settings: SchedulerSettings, kv: KVCacheSpec, *, know_blocks: bool | None = None
) -> SchedulerBase:
    """The scheduler for these settings; `know_blocks` as in `SchedulerBase`."""
    piped = settings.pipeline_parallel_size > 1
    if settings.speculation is not None:
        return SpeculativeScheduler(settings, kv, know_blocks=know_blocks)
    return (PipelinedScheduler if piped else Scheduler)(settings, kv, know_blocks=know_blocks)


class PipelinedScheduler(SchedulerBase):
    """vLLM V1's scheduler with pipeline stages; see `SchedulerBase` for its rules and use."""

    def steady_steps(self, open_plans: int) -> int:
        """See `SchedulerBase.steady_steps`."""
        running = self.running
        if not running or self._prefills or not all(r.decoding for r in running):
            return 0
        if any(r.chunk_start != r.computed - 1 for r in running):
            return 0  # windows of who just left a prompt still cover its last chunk
        cohorts = self.cohorts()
        turns = len(cohorts)
        stages = self.settings.pipeline_parallel_size
        queued_ahead = self.settings.async_scheduling and turns == stages
        if turns > stages or open_plans != (turns if queued_ahead else turns - 1):
            return 0
        oldest = min(r.in_step for r in running)
        widest = max(len(cohort.members) for cohort in cohorts)
        if oldest < self._index - turns or widest > self.settings.max_num_batched_tokens:
            return 0
        if self.waiting and not self._stays_blocked():
            return 0
        limit = min(r.final - r.computed for r in running) - 1
        contexts = np.concatenate([cohort.contexts for cohort in cohorts])
        return turns * self.pool.steps_within(contexts, limit) if limit > 0 else 0

    def cohorts(self) -> list[Cohort]:
        """See `SchedulerBase.cohorts`: decodes by the step that sampled their last token."""
        groups: dict[int, list[Request]] = {}
        for request in self.running:
            groups.setdefault(request.in_step, []).append(request)
        return [
            Cohort(tuple(groups[step]), np.array([r.computed for r in groups[step]]))
            for step in sorted(groups)
        ]

    def advance(self, steps: int) -> list[StepPlan]:
        """See `SchedulerBase.advance`."""
        cohorts, first = self.cohorts(), self._index
        self._advance_pool(cohorts, steps)
        turns = len(cohorts)
        for turn, cohort in enumerate(cohorts):
            taken = len(range(turn, steps, turns))
            for request in cohort.members:
                request.computed += taken
                if taken:
                    request.chunk_start = request.computed - 1
                    request.in_step = first + turn + turns * (taken - 1)
        self._completed += steps
        newest = range(max(0, steps - turns), steps)
        return [self._last_plan(first + step, cohorts[step % turns].members) for step in newest]

    def _advance_pool(self, cohorts: Sequence[Cohort], steps: int) -> None:
        turns = len(cohorts)
        if not self.pool.ordered:
            for turn, cohort in enumerate(cohorts):
                taken = len(range(turn, steps, turns))
                self.pool.advance(cohort.members, cohort.contexts, taken)
            return
        lag, behind = self.pool.lag, self.pool.window_lag
        for step in range(steps):  # block by block: members may have just left their prompts
            cohort, first = cohorts[step % turns], step < turns
            contexts = cohort.contexts + step // turns
            due = range(len(contexts)) if first else self.pool.due(contexts)
            for index in due:
                request, cached = cohort.members[index], int(contexts[index])
                done = request.chunk_start if behind and first else cached - behind
                self.pool.extend(request, cached, cached + 1, done, cached + 1 - lag)

    def _last_plan(self, index: int, members: tuple[Request, ...]) -> StepPlan:
        plan = StepPlan(index)
        plan.decodes = members
        plan.fresh = list(members)
        plan.contexts = [r.computed - 1 for r in members]
        return self._seal(plan)

    def _step_some(self, plan: StepPlan, decodes: list[Request]) -> None:
        plan.take(decodes)
        for request in decodes:
            request.chunk_start = request.computed
            request.computed += 1
            if request.computed == request.final:
                self._end(plan, request)
            else:
                request.in_step = plan.index

    def _extend_decode(self, request: Request) -> bool:
        cached, lag = request.computed, self.pool.lag
        done = request.chunk_start if self.pool.window_lag else cached
        return self.pool.extend(request, cached, cached + 1, done, cached + 1 - lag)

    def _join(self, request: Request) -> None:
        request.decoding = True
        request.in_step = self._index

    def _leave(self, request: Request) -> None:
        request.decoding = False

    def _eligible(self, request: Request) -> bool:
        if request.in_step < self._completed:
            return True
        stages = self.settings.pipeline_parallel_size
        return self.settings.async_scheduling and self._index - request.in_step >= stages
