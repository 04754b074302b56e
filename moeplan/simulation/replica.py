"""One engine in simulated time: a SimPy process that clocks a `Scheduler` with a `StepTimer`.

The loop is the one of vLLM's engine core: schedule and launch steps until as many are in flight as
may be, wait for the oldest, take in its tokens, go on. Who arrives meanwhile is seen at the next
turn; so with asynchronous scheduling, where a successor is always launched already, a request waits
for one to two steps before its first.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from simpy import Environment, Event, Interrupt

from moeplan.cost.batch import StepTimer
from moeplan.cost.kv_layout import KVCacheSpec
from moeplan.errors import DoesNotFitError
from moeplan.simulation.recorder import Recorder
from moeplan.simulation.requests import Request
from moeplan.simulation.scheduler import Scheduler
from moeplan.simulation.step_plan import SchedulerSettings, StepPlan


@dataclass(frozen=True, slots=True)
class ReplicaSpec:
    """One engine of a deployment."""

    timer: StepTimer
    kv: KVCacheSpec
    settings: SchedulerSettings
    front_end_seconds: float = 0.0
    """From the client's send until the engine core has the request, and back: HTTP, tokens."""


class BlocksMatterError(Exception):
    """A preempted request may find its own blocks again: counting blocks is not enough."""


class Replica:
    """One engine. `submit` hands it a request; `finished` is called with each that ends."""

    def __init__(
        self,
        env: Environment,
        number: int,
        spec: ReplicaSpec,
        finished: Callable[[Request], None],
        *,
        know_blocks: bool,
        macro: bool,
        log_steps: bool,
    ):
        self.scheduler = Scheduler(spec.settings, spec.kv, know_blocks=know_blocks)
        self.recorder = Recorder(number, self.scheduler.pool.usable, log_steps)
        self._env = env
        self._timer = spec.timer
        self._finished = finished
        self._macro = macro
        self._recompute_hits = spec.settings.enable_prefix_caching and not know_blocks
        self._depth = spec.settings.max_concurrent_batches
        self._stages = spec.settings.pipeline_parallel_size
        self._stage_free_s = [0.0] * self._stages
        self._ends_s: deque[float] = deque([0.0] * self._stages, maxlen=self._stages)
        self._in_flight: deque[tuple[StepPlan, float, float]] = deque()
        self._inbox: list[Request] = []
        self._idle: Event | None = None
        self._stretching = False
        self._reach = 1 << 30  # steps priced at once; falls where arrivals cut stretches short
        self._process = env.process(self._run())

    def submit(self, request: Request) -> None:
        """Queue a request now."""
        self._inbox.append(request)
        if self._idle is not None:
            self._idle.succeed()
            self._idle = None
        elif self._stretching:
            self._stretching = False
            self._process.interrupt()

    def _run(self) -> Iterator[Event]:
        env, scheduler = self._env, self.scheduler
        while True:
            if self._inbox:
                for request in self._inbox:
                    scheduler.add(request)
                self._inbox.clear()
            steps = self._steady_steps() if self._macro else 0
            if steps > 1:
                yield from self._stretch(steps)
                continue
            self._launch()
            if not self._in_flight:
                self._idle = env.event()
                yield self._idle
                continue
            plan, start, end = self._in_flight.popleft()
            if end > env.now:
                yield env.timeout(end - env.now)
            self._complete(plan, start, end)

    def _launch(self) -> None:
        """Schedule steps until the pipeline is full or nothing is left to schedule."""
        while len(self._in_flight) < self._depth:
            plan = self.scheduler.schedule()
            if plan is None:
                break
            if plan.preempted and self._recompute_hits:
                raise BlocksMatterError
            self._in_flight.append((plan, *self._run_time(plan)))
        if not self._in_flight and self.scheduler.unfinished:
            self._refuse_head()

    def _run_time(self, plan: StepPlan) -> tuple[float, float]:
        """Start and end of a step in the pipeline, behind those before it."""
        if self._stages == 1:
            start = max(self._env.now, self._ends_s[0])
            end = start + self._timer.step_seconds(plan.batch)
            self._ends_s.append(end)
            return start, end
        ready = self._ends_s[0] if plan.decodes else 0.0  # their tokens are known by then
        start = time = max(self._env.now, ready, self._stage_free_s[0])
        for stage, seconds in enumerate(self._timer.stage_seconds(plan.batch)):
            time = max(time, self._stage_free_s[stage]) + seconds
            self._stage_free_s[stage] = time
        self._ends_s.append(time)
        return start, time

    def _complete(self, plan: StepPlan, start: float, end: float) -> None:
        self.scheduler.complete(plan)
        self.recorder.step(plan, start, end)
        for request in plan.last:
            request.finish_s = end
            self._finished(request)

    def _refuse_head(self) -> None:
        head = self.scheduler.waiting[0]
        pool = self.scheduler.pool
        raise DoesNotFitError(
            f"a request of {head.target} tokens needs {pool.blocks_to_admit(head.target)} KV "
            f"blocks at once and the engine has {pool.usable}; shorten it, lower "
            "max_num_batched_tokens or give the cache more memory",
            math.nan,
        )

    # Stretches of like steps

    def _steady_steps(self) -> int:
        if len(self._in_flight) != self._depth - 1 or self._env.peek() == self._env.now:
            return 0  # something else happens now, an arrival perhaps
        open_plan = self._in_flight[0][0] if self._in_flight else None
        return min(self.scheduler.steady_steps(open_plan), self._reach)

    def _stretch(self, steps: int) -> Iterator[Event]:
        """Run like decode steps as one event, up to the first step end after an arrival.

        With a step in flight, each turn schedules one step and completes the one before.
        """
        env = self._env
        seconds = self._timer.decode_seconds(self.scheduler.contexts(), steps)
        if self._in_flight:
            _, start, end = self._in_flight.popleft()
            starts = np.concatenate(([start], end + np.cumsum(np.concatenate(([0.0], seconds)))))
            ends = starts[1:]  # one longer than the stretch: the last step stays in flight
        else:
            ends = env.now + np.cumsum(seconds)
            starts = np.concatenate(([env.now], ends[:-1]))
        done = yield from self._sleep(ends[:steps])
        plan = self.scheduler.advance(done)
        self.recorder.stretch(plan, starts[:done], ends[:done])
        if len(ends) > steps:
            self._in_flight.append((plan, float(starts[done]), float(ends[done])))
        self._ends_s.append(float(ends[done if len(ends) > steps else done - 1]))

    def _sleep(self, ends: np.ndarray) -> Iterator[Event]:
        """Wait for the last of these times, or the first after an arrival; how many passed."""
        env = self._env
        done = len(ends)
        self._stretching = True
        try:
            yield env.timeout(ends[-1] - env.now)
            self._reach = max(self._reach, 4 * done)
        except Interrupt:
            done = int(np.searchsorted(ends, env.now)) + 1
            self._reach = 4 * done + 8
            if ends[done - 1] > env.now:
                yield env.timeout(ends[done - 1] - env.now)
        self._stretching = False
        return done
