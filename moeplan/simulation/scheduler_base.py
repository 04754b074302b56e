"""vLLM V1's scheduling rules as a pure state machine: no time, no events.

Rules (v1/core/sched/scheduler.py of vLLM 0.24 to 0.33, checked against recorded schedules):

- A step has a token budget. Running requests come first, in order of admission: one token a decode,
  the rest of the prompt, as far as the budget goes, for a prefill.
- When blocks run out, the last of the running requests gives its own back, keeps what it generated
  and queues in front to be computed again; nothing is admitted in a step in which that happened.
- Then waiting requests are admitted in order, if the whole sequence fits in the free blocks.
- With asynchronous scheduling a step is scheduled while its predecessor runs. The last token is
  known in advance, so nothing is wasted; what a step frees is there for the step after the next.

How decodes advance is left to `Scheduler` (one step after the other) and `PipelinedScheduler`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moeplan.cost.batch import StepBatch
from moeplan.cost.kv_layout import KVCacheSpec
from moeplan.simulation.chunking import ChunkRule
from moeplan.simulation.kv_pool import CountingPool, KVPool
from moeplan.simulation.prefix_cache import PrefixCachePool
from moeplan.simulation.requests import Request
from moeplan.simulation.step_plan import SchedulerSettings, StepPlan


@dataclass(frozen=True, slots=True, eq=False)
class Cohort:
    """Requests that decode in the same steps."""

    members: tuple[Request, ...]
    contexts: np.ndarray
    """Cached tokens of each before the next step."""
    gains: np.ndarray | None = None
    """Tokens that each gets in the coming steps, (steps, members); None: one a step."""


class SchedulerBase(ABC):
    """One engine's queues. Call `schedule` and `complete` in turn, each plan completed in order.

    With `async_scheduling` (or pipeline stages) up to `max_concurrent_batches` plans may be open.
    """

    def __init__(
        self, settings: SchedulerSettings, kv: KVCacheSpec, *, know_blocks: bool | None = None
    ):
        """`know_blocks` picks the pool: identities of blocks (the default where prefixes are
        cached), or mere counts, which is faster and exact as long as nothing is found again.
        """
        self.settings = settings
        if know_blocks is None:
            know_blocks = settings.enable_prefix_caching
        lag = int(settings.async_scheduling)
        self.pool: KVPool = (PrefixCachePool if know_blocks else CountingPool)(kv, lag)
        self.running: list[Request] = []
        """In order of admission."""
        self.waiting: deque[Request] = deque()
        self.preemptions = 0
        self._prefills: list[Request] = []
        self._groups = len(self.pool.sizes)
        self._reserve = int(settings.watermark * kv.num_blocks)
        self._rule = ChunkRule(settings, kv)
        self._unsaid: StepPlan | None = None  # preempted something, but computes nothing
        self._index = 0
        self._admitted = 0
        self._completed = 0

    def add(self, request: Request) -> None:
        """Queue a request."""
        self.waiting.append(request)

    def schedule(self) -> StepPlan | None:
        """Plan the next step, or None if there is nothing to compute now."""
        plan, self._unsaid = self._unsaid or StepPlan(self._index), None
        plan.index = self._index
        budget = self.settings.max_num_batched_tokens
        preempted = self.preemptions
        if self.settings.mixed_prefill:
            budget = self._run(plan, budget)
        else:
            budget = self._run_each(plan, budget, self._prefills)
        if self.preemptions == preempted:
            self._admit(plan, budget)
        if not self.settings.mixed_prefill and not plan.prefills:
            self._run_decodes(plan, budget)
        if not plan.decodes and not plan.prefills:
            self._unsaid = plan if plan.preempted else None
            return None
        return self._seal(plan)

    def complete(self, plan: StepPlan) -> None:
        """Take in the tokens of the oldest open plan; its `last` requests are finished."""
        self._completed = max(self._completed, plan.index + 1)
        for request in plan.last:
            if request.blocks:  # else it was preempted while its last token was on its way
                self.running.remove(request)
                self._release(request, again=False)

    @property
    def unfinished(self) -> int:
        """Requests waiting or running."""
        return len(self.waiting) + len(self.running)

    # How decodes advance

    @abstractmethod
    def steady_steps(self, open_plans: int) -> int:
        """How many of the coming plans surely hold the same decodes in turn, and nothing else.

        Neither an end, an admission, a preemption nor a budget shortage falls into them, provided
        that nobody is added and that each is scheduled when the oldest of `open_plans` plans (the
        new ones included) completes. 0 if the next plan may differ, or if the engine would not
        schedule just one plan now.
        """

    @abstractmethod
    def cohorts(self) -> list[Cohort]:
        """Who decodes in the coming plans, in turn."""

    @abstractmethod
    def advance(self, steps: int) -> list[StepPlan]:
        """Schedule and complete `steps` plans in turn, as `steady_steps` allows.

        Returns the last of them, one a cohort at most, in order.
        """

    def _step_together(self, plan: StepPlan, budget: int, prefills: Sequence[Request]) -> bool:  # noqa: ARG002
        """One token for every decode, if that is what taking requests in order would give.

        `prefills` are taken after them. Never, unless decodes are kept in lockstep.
        """
        return False

    @abstractmethod
    def _step_some(self, plan: StepPlan, decodes: list[Request]) -> None:
        """One token for these decodes, whose blocks are there; the others wait."""

    @abstractmethod
    def _extend_decode(self, request: Request) -> bool:
        """Take the block of one more token, if one is needed; False if there is none."""

    @abstractmethod
    def _join(self, request: Request) -> None:
        """A prompt is computed: decode from the next step on."""

    @abstractmethod
    def _leave(self, request: Request) -> None:
        """A decode is preempted; its `computed` becomes absolute."""

    @abstractmethod
    def _eligible(self, request: Request) -> bool:
        """Whether a decode's previous token is known when the next step begins."""

    def _release(self, request: Request, *, again: bool) -> None:
        self.pool.release(request, again=again)

    def _end(self, plan: StepPlan, request: Request) -> None:
        """A step takes a request (`computed` is absolute) to where its last token is sampled."""
        request.decoding = False
        request.generated = request.output
        request.target = request.final
        plan.last.append(request)

    def _seal(self, plan: StepPlan) -> StepPlan:
        plan.batch = StepBatch(
            plan.contexts,
            [(new, before) for _, new, before in plan.prefills],
            len(plan.decodes) + len(plan.ending),
        )
        plan.running = len(self.running)
        plan.waiting = len(self.waiting)
        plan.free_blocks = self.pool.free
        self._index = plan.index + 1
        return plan

    # Running requests

    def _run(self, plan: StepPlan, budget: int) -> int:
        if self._step_together(plan, budget, self._prefills):
            return self._run_each(plan, budget - len(plan.decodes), self._prefills)
        return self._run_each(plan, budget, self.running)

    def _run_decodes(self, plan: StepPlan, budget: int) -> None:
        if not self._step_together(plan, budget, ()):
            self._run_each(plan, budget, [r for r in self.running if r.decoding])

    def _run_each(self, plan: StepPlan, budget: int, queue: list[Request]) -> int:
        """Take requests one by one; preempt from the end of the running ones for want of blocks."""
        decodes: list[Request] = []
        for request in queue[:]:
            if budget <= 0:
                break
            chunk = self._chunk(request, budget) if request.blocks else 0
            if not chunk:
                continue
            if not self._make_room(plan, request, chunk):
                break
            if request.decoding:
                decodes.append(request)
            else:
                self._prefill(plan, request, chunk)
            budget -= chunk
        if decodes:
            self._step_some(plan, decodes)
        return budget

    def _make_room(self, plan: StepPlan, request: Request, chunk: int) -> bool:
        while not self._extend(request, chunk):
            victim = self.running[-1]
            self._preempt(plan, victim)
            if victim is request:
                return False
        return True

    def _extend(self, request: Request, chunk: int) -> bool:
        if request.decoding:
            return self._extend_decode(request)
        before = request.computed
        done = request.chunk_start if self.pool.window_lag else before
        return self.pool.extend(request, before, before + chunk, done, before + chunk)

    def _preempt(self, plan: StepPlan, victim: Request) -> None:
        """Back to the head of the queue. Tokens on their way arrive before it is admitted again."""
        self.running.pop()
        self.preemptions += 1
        victim.preemptions += 1
        plan.preempted.append(victim)
        if victim.regular:
            plan.held_back.append(victim)
        if victim.decoding:
            self._leave(victim)
            victim.generated = victim.computed - victim.prompt + 1
            victim.regular = False
        elif victim.generated < victim.output:
            self._prefills.remove(victim)
        self._release(victim, again=True)
        if victim.generated < victim.output:  # else its last token is on its way
            victim.computed = 0
            victim.target = victim.prompt + victim.generated
            self.waiting.appendleft(victim)

    def _chunk(self, request: Request, budget: int) -> int:
        """Tokens of a request that a step with that much budget left takes; 0 if it cannot run."""
        if request.decoding:
            return int(self._eligible(request))
        return self._rule.size(request.computed, request.target, request.junction, budget)

    # Prompts

    def _admit(self, plan: StepPlan, budget: int) -> None:
        running, waiting = self.running, self.waiting
        while waiting and budget > 0 and len(running) < self.settings.max_num_seqs:
            request = waiting[0]
            hit = self.pool.lookup(request)
            request.computed = hit.tokens
            chunk = self._chunk(request, budget)
            reserve = self._reserve if running else 0
            if not self.pool.admit(request, hit, hit.tokens + chunk, reserve):
                request.computed = 0
                return
            waiting.popleft()
            self._admitted += 1
            request.seq = self._admitted
            request.hit_tokens += hit.tokens
            running.append(request)
            self._prefills.append(request)
            self._prefill(plan, request, chunk)
            budget -= chunk

    def _stays_blocked(self) -> bool:
        """Whether the head of the queue cannot be admitted while decodes only take blocks."""
        if len(self.running) >= self.settings.max_num_seqs:
            return True
        head = self.waiting[0]
        return not self.pool.windowed and not self.pool.fits(
            head, self.pool.lookup(head), self._reserve
        )

    def _prefill(self, plan: StepPlan, request: Request, chunk: int) -> None:
        before = request.computed
        request.chunk_start = before
        request.computed = before + chunk
        plan.prefills.append((request, chunk, before))
        if request.computed == request.target:
            self._prefills.remove(request)
            plan.ending.append(request)
            if request.computed == request.final:
                self._end(plan, request)
            else:
                self._join(request)
