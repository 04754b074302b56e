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
from dataclasses import dataclass, field

import numpy as np
from simpy import Environment, Event, Interrupt

from moeplan.cost.batch import StepBatch, StepTimer
from moeplan.cost.kv_layout import KVCacheSpec
from moeplan.errors import DoesNotFitError
from moeplan.simulation.front_end import FrontEndCosts
from moeplan.simulation.pipelined import make_scheduler
from moeplan.simulation.recorder import Recorder
from moeplan.simulation.requests import Request
from moeplan.simulation.step_plan import SchedulerSettings, StepPlan
from moeplan.simulation.stretch import Stretch, price

_INSTANT = 1e-9
"""Seconds. What arrives as a step ends is seen at the end of the next one, whichever SimPy happens
to process first: a client that reacts to the step is later than the engine's own loop."""


Launch = Callable[[StepBatch], tuple[float, float]]
"""Seconds that the GPU computes a step, and that the host launches it."""


@dataclass(frozen=True, slots=True)
class ReplicaSpec:
    """One engine of a deployment."""

    timer: StepTimer
    kv: KVCacheSpec
    settings: SchedulerSettings
    front_end: FrontEndCosts = field(default_factory=FrontEndCosts)
    """What requests spend between the client and the engine core."""
    launch: Launch | None = None
    """Times of steps that the host launches kernel by kernel while earlier ones run; None where a
    step's time says all."""
    launches_block: bool = False
    """Whether the engine core itself launches and sees no requests meanwhile (one GPU: vLLM starts
    worker processes only for more); tokens that a step sampled meanwhile wait for it too."""

    @property
    def finds_prefixes(self) -> bool:
        """Whether its cache can find anything; recurrent state is not kept (a simplification)."""
        recurrent = any(group.kind == "recurrent" for group in self.kv.groups)
        return self.settings.enable_prefix_caching and not recurrent


def _streamed(step: tuple[StepPlan, float, float]) -> tuple[int, float, float]:
    """Tokens that a step gives out, its start and end."""
    plan, start, end = step
    return plan.decoded_tokens + len(plan.ending), start, end


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
        self.scheduler = make_scheduler(spec.settings, spec.kv, know_blocks=know_blocks)
        self.recorder = Recorder(number, self.scheduler.pool.usable, log_steps)
        self._env = env
        self._timer = spec.timer
        self._launch_times, self._launches_block = spec.launch, spec.launches_block
        self._host_free_s = 0.0
        self._finished = finished
        self._macro = macro
        self._recompute_hits = spec.finds_prefixes and not know_blocks
        self._depth = spec.settings.max_concurrent_batches
        self._stages = spec.settings.pipeline_parallel_size
        self._stage_free_s = [0.0] * self._stages
        self._ends_s: deque[float] = deque([0.0] * self._stages, maxlen=self._stages)
        self._in_flight: deque[tuple[StepPlan, float, float]] = deque()
        self._inbox: deque[tuple[float, Request]] = deque()
        self._idle: Event | None = None
        self._last_step = (0, 0.0, -math.inf)
        self._interruptible = False
        self._stretch_under_way: Stretch | None = None
        self._reach = 1 << 30  # steps priced at once; falls where arrivals cut stretches short
        self._process = env.process(self._run())

    def submit(self, request: Request) -> None:
        """Queue a request now."""
        self._inbox.append((self._env.now, request))
        if self._idle is not None:
            self._idle.succeed()
            self._idle = None
        elif self._interruptible:
            self._interruptible = False
            self._process.interrupt()

    def streaming(self) -> float:
        """Tokens a second of the step under way; 0 where nothing decodes.

        One that ends now still is, whichever SimPy happens to process first.
        """
        since = self._env.now - _INSTANT
        for tokens, start, end in (self._last_step, *map(_streamed, self._in_flight)):
            if end >= since:
                return float(tokens / (end - start))
        stretch = self._stretch_under_way
        if stretch is None:
            return 0.0
        step = min(int(np.searchsorted(stretch.ends_s, since)), len(stretch.ends_s) - 1)
        return float(stretch.tokens[step] / (stretch.ends_s[step] - stretch.starts_s[step]))

    def _run(self) -> Iterator[Event]:
        env = self._env
        while True:
            self._take_in(env.now - _INSTANT)
            steps = self._steady_steps() if self._macro else 0
            if steps > 1:
                yield from self._stretch(steps)
                continue
            yield from self._launch()
            if not self._in_flight:
                if not self._inbox:
                    self._idle = env.event()
                    yield self._idle
                self._take_in(env.now)
                continue
            plan, start, end = self._in_flight[0]
            if end > env.now:
                yield env.timeout(end - env.now)
            self._in_flight.popleft()
            self._complete(plan, start, end, max(end, env.now))  # later if the host was busy

    def _take_in(self, until_s: float) -> None:
        """Hand the scheduler what had arrived by then."""
        inbox = self._inbox
        while inbox and inbox[0][0] <= until_s:
            self.scheduler.add(inbox.popleft()[1])

    def _launch(self) -> Iterator[Event]:
        """Schedule steps until the pipeline is full or nothing is left to schedule."""
        while len(self._in_flight) < self._depth:
            plan = self.scheduler.schedule()
            if plan is None:
                break
            if plan.preempted and self._recompute_hits:
                raise BlocksMatterError
            self._in_flight.append((plan, *self._run_time(plan)))
            if self._launches_block and self._host_free_s > self._env.now:
                yield from self._blocked()
        if not self._in_flight and self.scheduler.unfinished:
            self._refuse_head()

    def _blocked(self) -> Iterator[Event]:
        """Launch a step; who arrives meanwhile is seen only then."""
        yield self._env.timeout(self._host_free_s - self._env.now)
        self._take_in(self._env.now - _INSTANT)

    def _launched(self, batch: StepBatch) -> tuple[float, float]:
        """Start and end of a step whose launching overlaps the steps before it."""
        assert self._launch_times is not None
        gpu, launch = self._launch_times(batch)
        self._host_free_s = max(self._env.now, self._host_free_s) + launch
        start = max(self._env.now, self._stage_free_s[0])
        self._stage_free_s[0] = end = max(start + gpu, self._host_free_s)
        self._ends_s.append(end)
        return start, end

    def _run_time(self, plan: StepPlan) -> tuple[float, float]:
        """Start and end of a step in the pipeline, behind those before it."""
        free = self._stage_free_s
        if self._launch_times and plan.batch.prefill_chunks:
            return self._launched(plan.batch)
        if self._stages == 1:
            start = max(self._env.now, free[0])
            free[0] = end = start + self._timer.step_seconds(plan.batch)
            self._ends_s.append(end)
            return start, end
        ready = self._ends_s[0] if plan.decodes else 0.0  # their tokens are known by then
        start = time = max(self._env.now, ready, free[0])
        for stage, seconds in enumerate(self._timer.stage_seconds(plan.batch)):
            free[stage] = time = max(time, free[stage]) + seconds
        self._ends_s.append(time)
        return start, time

    def _complete(self, plan: StepPlan, start: float, end: float, told_s: float) -> None:
        self.scheduler.complete(plan)
        self.recorder.step(plan, start, end, told_s)
        self._last_step = _streamed((plan, start, end))
        for request in plan.last:
            request.finish_s = told_s
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
        if self._env.peek() == self._env.now:
            return 0  # something else happens now, an arrival perhaps
        return min(self.scheduler.steady_steps(len(self._in_flight)), self._reach)

    def _stretch(self, steps: int) -> Iterator[Event]:
        """Run like decode steps as one event, up to the first step end after an arrival.

        At each turn the oldest step in flight completes and one is scheduled; so as many stay in
        flight as there are now.
        """
        cohorts = self.scheduler.cohorts()
        previous = list(self._ends_s)[-len(cohorts) :]
        if not self._in_flight:  # the next step is launched now
            previous[0] = max(previous[0], self._env.now)
        stretch = price(self._timer, cohorts, steps, previous, self._stage_free_s)
        open_ends = [end for _, _, end in self._in_flight]
        self._stretch_under_way = stretch
        done = yield from self._sleep(np.concatenate((open_ends, stretch.ends_s))[:steps])
        self._stretch_under_way = None
        self._complete_stretch(stretch, done)

    def _complete_stretch(self, stretch: Stretch, done: int) -> None:
        """Take in `done` turns of a stretch."""
        in_flight, starts, ends = self._in_flight, stretch.starts_s, stretch.ends_s
        opened = len(in_flight)
        plans = self.scheduler.advance(done)
        for _ in range(min(opened, done)):
            plan, start, end = in_flight.popleft()
            self._complete(plan, start, end, end)
        completed = max(done - opened, 0)
        self.recorder.stretch(
            plans[-1],
            stretch.counts[:completed],
            starts[:completed],
            ends[:completed],
            stretch.before_s[:completed],
            stretch.tokens[:completed],
        )
        if completed:
            last = completed - 1
            self._last_step = (int(stretch.tokens[last]), float(starts[last]), float(ends[last]))
        turns = len(stretch.cohorts)
        for step in range(max(0, completed - turns), completed):
            for request in stretch.cohorts[step % turns].members:
                request.token_s = float(ends[step])
        for step in range(completed, done):
            plan = plans[step - done]
            in_flight.append((plan, float(starts[step]), float(ends[step])))
        self._ends_s.extend(ends[max(0, done - self._stages) : done].tolist())
        self._stage_free_s = stretch.stages_free_s[:, done - 1].tolist()

    def _sleep(self, ends: np.ndarray) -> Iterator[Event]:
        """Wait for the last of these times, or the first after an arrival; how many passed."""
        env = self._env
        done = len(ends)
        self._interruptible = True
        try:
            yield env.timeout(ends[-1] - env.now)
            self._reach = max(self._reach, 4 * done)
        except Interrupt:
            done = int(np.searchsorted(ends, env.now + _INSTANT)) + 1
            self._reach = 4 * done + 8
            if ends[done - 1] > env.now:
                yield env.timeout(ends[done - 1] - env.now)
        self._interruptible = False
        return done
