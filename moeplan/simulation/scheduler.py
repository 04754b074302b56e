"""The scheduler of an engine without pipeline stages: decodes advance in lockstep.

That holds as long as budget and blocks suffice for all of them; otherwise requests are taken one by
one (`SchedulerBase`). Both ways give the same schedule.
"""

from __future__ import annotations

from collections.abc import Sequence

from moeplan.cost.kv_layout import KVCacheSpec
from moeplan.errors import InputError
from moeplan.simulation.lockstep import Lockstep
from moeplan.simulation.requests import Request
from moeplan.simulation.scheduler_base import Cohort, SchedulerBase
from moeplan.simulation.step_plan import SchedulerSettings, StepPlan


class Scheduler(SchedulerBase):
    """vLLM V1's scheduler; see `SchedulerBase` for its rules and use."""

    def __init__(
        self, settings: SchedulerSettings, kv: KVCacheSpec, *, know_blocks: bool | None = None
    ):
        """See `SchedulerBase`. Raises InputError for pipeline stages (`make_scheduler`)."""
        if settings.pipeline_parallel_size > 1:
            raise InputError(
                f"pipeline_parallel_size is {settings.pipeline_parallel_size}; this scheduler "
                "takes 1: use make_scheduler"
            )
        super().__init__(settings, kv, know_blocks=know_blocks)
        pool = self.pool
        self._lockstep = Lockstep(pool.cycle, pool.residues, pool.windowed and pool.window_lag > 0)

    def steady_steps(self, open_plans: int) -> int:
        """See `SchedulerBase.steady_steps`."""
        lockstep = self._lockstep
        count = len(lockstep.members)
        if not count or count != len(self.running) or open_plans != self.pool.lag:
            return 0
        if lockstep.fresh or lockstep.settling or count > self.settings.max_num_batched_tokens:
            return 0
        if self.waiting and not self._stays_blocked():
            return 0
        limit = lockstep.steps_to_end() - 1
        return self.pool.steps_within(lockstep.context_array(), limit) if limit > 0 else 0

    def cohorts(self) -> list[Cohort]:
        """See `SchedulerBase.cohorts`: all decodes."""
        return [Cohort(self._lockstep.snapshot(), self._lockstep.context_array())]

    def advance(self, steps: int) -> list[StepPlan]:
        """See `SchedulerBase.advance`."""
        lockstep = self._lockstep
        self.pool.advance(lockstep.members, lockstep.context_array(), steps)
        plan = StepPlan(self._index + steps - 1)
        plan.decodes = lockstep.snapshot()
        lockstep.jump(steps - 1)
        plan.contexts = lockstep.contexts()
        lockstep.jump(1)
        return [self._seal(plan)]

    def _step_together(self, plan: StepPlan, budget: int, prefills: Sequence[Request]) -> bool:
        lockstep = self._lockstep
        members = lockstep.members
        if not members:
            return True
        if len(members) > budget or (prefills and prefills[0].seq < members[-1].seq):
            return False
        due = lockstep.due()
        if len(due) * self._groups > self.pool.free:
            return False
        for request in due:
            self._extend_decode(request)
        plan.decodes = lockstep.snapshot()
        plan.contexts = lockstep.contexts()
        plan.fresh = lockstep.fresh
        self._tick(plan)
        return True

    def _tick(self, plan: StepPlan) -> None:
        for request in self._lockstep.tick():
            self._end(plan, request)

    def _step_some(self, plan: StepPlan, decodes: list[Request]) -> None:
        lockstep = self._lockstep
        clock = lockstep.clock
        plan.decodes = tuple(decodes)
        plan.contexts = [r.computed + clock for r in decodes]
        chosen = set(decodes)
        left_out = [r for r in lockstep.members if r not in chosen]
        plan.fresh = [r for r in lockstep.fresh if r in chosen]
        plan.held_back += [r for r in left_out if r.regular]
        for request in left_out:  # before the tick, so that nobody ends by it
            lockstep.hold_back(request)
        waiting_turn = [r for r in lockstep.fresh if r not in chosen]
        self._tick(plan)
        lockstep.fresh = waiting_turn
        for request in waiting_turn:
            request.regular = False

    def _extend_decode(self, request: Request) -> bool:
        cached = request.computed + self._lockstep.clock
        lag, behind = self.pool.lag, self.pool.window_lag
        done = cached - behind if request.regular or not behind else request.chunk_start
        return self.pool.extend(request, cached, cached + 1, done, cached + 1 - lag)

    def _join(self, request: Request) -> None:
        request.regular = False
        self._lockstep.join(request)

    def _leave(self, request: Request) -> None:
        self._lockstep.leave(request)

    def _eligible(self, request: Request) -> bool:  # noqa: ARG002
        return True
