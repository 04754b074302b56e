"""The scheduler of an engine that verifies drafts: every decode gains some tokens a step.

vLLM's rules (v1/core/sched/scheduler.py, async_scheduler.py):

- A decode computes its drafts and one more token, all of them against the budget; what is rejected
  is taken off when the step's result is known. Its blocks stay.
- Blocks are taken for all drafts, and for those that the drafter writes ahead.
- A step that is scheduled before its predecessor's result is known has to assume that everything
  was accepted. A request whose last token that predecessor sampled wastes its row.

How many drafts a step accepts follows the rates of `Speculation`: each request has a sequence of
evenly spread numbers of its own, so that its mean comes out whatever else runs.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from moeplan.cost.batch import StepBatch
from moeplan.cost.kv_layout import KVCacheSpec
from moeplan.errors import InputError
from moeplan.simulation.requests import Request
from moeplan.simulation.scheduler_base import Cohort, SchedulerBase
from moeplan.simulation.step_plan import SchedulerSettings, StepPlan

_STRIDE = (5**0.5 - 1) / 2
"""Multiples of it, modulo 1, are spread evenly (golden ratio)."""
_STRIDE_OF_REQUESTS = 2**0.5 - 1
_LONGEST_STRETCH = 512
"""Steps looked ahead at most."""


class SpeculativeScheduler(SchedulerBase):
    """vLLM V1's scheduler with drafts; see `SchedulerBase` for its rules and use."""

    def __init__(
        self, settings: SchedulerSettings, kv: KVCacheSpec, *, know_blocks: bool | None = None
    ):
        """See `SchedulerBase`. Raises InputError without drafts and for pipeline stages."""
        drafts = settings.speculation
        if drafts is None or settings.pipeline_parallel_size > 1:
            raise InputError(
                f"pipeline_parallel_size is {settings.pipeline_parallel_size} and speculation "
                f"{drafts}; this scheduler takes 1 stage and drafts: use make_scheduler"
            )
        super().__init__(settings, kv, know_blocks=know_blocks)
        self._each = drafts.tokens_a_step
        self._lookahead = drafts.lookahead
        self._rising_rates = drafts.acceptance[::-1]
        self._ended: list[int] = []  # contexts of those that the plan at hand ends
        self._wasted: list[int] = []  # contexts of those that the plan before this one ended

    def steady_steps(self, open_plans: int) -> int:
        """See `SchedulerBase.steady_steps`; none where it matters who takes which block."""
        running = self.running
        if not running or self._prefills or self.pool.ordered or open_plans != self.pool.lag:
            return 0
        if self._wasted or not all(r.decoding and r.in_step >= 0 for r in running):
            return 0
        if len(running) * self._each > self.settings.max_num_batched_tokens:
            return 0
        if self.waiting and not self._stays_blocked():
            return 0
        gained = np.cumsum(self._gains(), axis=0)
        left = np.array([r.final - r.computed for r in running])
        return self._within_blocks(gained, int((gained < left).all(axis=1).sum()))

    def _within_blocks(self, gained: np.ndarray, limit: int) -> int:
        """Steps, at most `limit`, whose blocks are free (those freed are not counted on)."""
        computed = np.array([r.computed for r in self.running])
        held = np.array([r.held for r in self.running])
        margin = 2 * self._each + self._lookahead
        while limit > 0:
            total = np.maximum(computed + gained[limit - 1] + margin, held)
            if sum(int((-(-total // s) + (-held // s)).sum()) for s in self.pool.sizes) <= (
                self.pool.free
            ):
                break
            limit //= 2
        return limit

    def _gains(self) -> np.ndarray:
        """Tokens that each running decode gets in the coming steps, (steps, sequences)."""
        running = self.running
        steps = min(min(r.final - r.computed for r in running), _LONGEST_STRETCH)
        first = np.array([r.verified for r in running])
        index = np.array([r.index for r in running])
        turns = first + np.arange(1, steps + 1)[:, None]
        places = (index * _STRIDE_OF_REQUESTS + turns * _STRIDE) % 1.0
        return 1 + len(self._rising_rates) - np.searchsorted(self._rising_rates, places, "right")

    def cohorts(self) -> list[Cohort]:
        """See `SchedulerBase.cohorts`: all decodes, with what they gain."""
        running = tuple(self.running)
        return [Cohort(running, np.array([r.computed for r in running]), self._gains())]

    def advance(self, steps: int) -> list[StepPlan]:
        """See `SchedulerBase.advance`: all but the last step at once."""
        gains = self._gains()[:steps]
        before = gains[:-1].sum(axis=0).tolist()
        last = gains[-2].tolist() if steps > 1 else None
        index = self._index + steps - 1
        for i, request in enumerate(self.running):
            request.computed += before[i]
            request.verified += steps - 1
            if last:
                request.chunk_start = request.computed - last[i]
                request.in_step = index - 1
            self._extend_decode(request)
        plan = StepPlan(index)
        self._step_some(plan, self.running[:])
        return [self._seal(plan)]

    def accepted(self, request: Request) -> int:
        """How many drafts of a request its next step accepts."""
        request.verified += 1
        place = (request.index * _STRIDE_OF_REQUESTS + request.verified * _STRIDE) % 1.0
        return len(self._rising_rates) - bisect_right(self._rising_rates, place)

    def _step_some(self, plan: StepPlan, decodes: list[Request]) -> None:
        plan.take(decodes)
        for request in decodes:
            gain = min(1 + self.accepted(request), request.final - request.computed)
            plan.gains.append(gain)
            request.chunk_start = request.computed
            request.computed += gain
            request.in_step = plan.index
            if request.computed == request.final:
                self._ended.append(request.computed)
                self._end(plan, request)

    def complete(self, plan: StepPlan) -> None:
        """See `SchedulerBase.complete`."""
        super().complete(plan)
        if plan.index == self._index - 1:  # nothing was scheduled meanwhile
            self._wasted = []

    def _seal(self, plan: StepPlan) -> StepPlan:
        sealed = super()._seal(plan)
        batch = sealed.batch
        sealed.batch = StepBatch(
            [*batch.decode_contexts, *self._wasted],
            batch.prefill_chunks,
            batch.sampled_rows + len(self._wasted),
            self._each,
        )
        self._wasted, self._ended = self._ended if self.settings.async_scheduling else [], []
        return sealed

    def _extend_decode(self, request: Request) -> bool:
        cached, before = request.computed, request.chunk_start
        lag = self.pool.lag
        assumed = max(cached, before + self._each) if lag and request.in_step >= 0 else cached
        total = max(min(assumed + self._each + self._lookahead, request.final), request.held)
        known = before if lag else cached
        done = known if self.pool.window_lag else assumed
        if not self.pool.extend(request, request.held, total, done, known):
            return False
        request.held = total
        return True

    def _chunk(self, request: Request, budget: int) -> int:
        if request.decoding:
            return min(self._each, budget)
        return super()._chunk(request, budget)

    def _prefill(self, plan: StepPlan, request: Request, chunk: int) -> None:
        request.held = max(request.computed + chunk, request.held)
        super()._prefill(plan, request, chunk)

    def _release(self, request: Request, *, again: bool) -> None:
        computed, request.computed = request.computed, request.held
        super()._release(request, again=again)
        request.computed, request.held = computed, 0

    def _join(self, request: Request) -> None:
        request.decoding = True
        request.in_step = -1

    def _leave(self, request: Request) -> None:
        request.decoding = False

    def _eligible(self, request: Request) -> bool:  # noqa: ARG002
        return True
