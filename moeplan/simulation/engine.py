"""`run`: replicas, a router and a workload in, what happened to every request out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from simpy import AllOf, Environment, Event

from moeplan.errors import DoesNotFitError, InputError
from moeplan.simulation.client import start_client
from moeplan.simulation.front_end import FrontEnd
from moeplan.simulation.kv_pool import CountingPool
from moeplan.simulation.recorder import StepLog
from moeplan.simulation.replica import BlocksMatterError, Replica, ReplicaSpec
from moeplan.simulation.requests import Request, RequestSpec
from moeplan.simulation.result import SimulationResult
from moeplan.simulation.router import make_router
from moeplan.simulation.workload import Workload, requests, warmups

Progress = Callable[[float], None]


def run(
    replicas: Sequence[ReplicaSpec],
    router: str,
    workload: Workload,
    *,
    macro: bool = True,
    record_steps: bool = False,
    progress: Progress | None = None,
) -> SimulationResult:
    """Simulate a workload on replicas behind a router.

    `macro` prices stretches of like decode steps at once; without it every step is an event, with
    the same outcome up to rounding. `record_steps` fills the result's step log. `progress` is
    called with the share of requests that have ended.

    Raises DoesNotFitError if some request can never be served, InputError for no replicas.
    """
    if not replicas:
        raise InputError("replicas is empty: a simulation needs at least one")
    specs = requests(workload)
    for number, replica in enumerate(replicas):
        _check_fit(number, replica, specs)
    findable = [replica.finds_prefixes for replica in replicas]
    shared = any(spec.hash_ids for spec in specs)
    args = (replicas, router, workload, specs, macro, record_steps, progress)
    try:
        return _Run(*args, [shared and finds for finds in findable]).result()
    except BlocksMatterError:
        return _Run(*args, findable).result()


def _check_fit(number: int, replica: ReplicaSpec, specs: Sequence[RequestSpec]) -> None:
    """Refuse a workload whose longest request exceeds the whole cache, before anything runs."""
    pool = CountingPool(replica.kv, 0)
    longest = max(specs, key=lambda spec: spec.input_tokens + spec.output_tokens)
    tokens = longest.input_tokens + longest.output_tokens - 1
    need = pool.blocks_to_admit(tokens)
    if need > pool.usable:
        raise DoesNotFitError(
            f"request {longest.index} ({longest.input_tokens} in, {longest.output_tokens} out) "
            f"needs {need} KV blocks and replica {number} has {pool.usable}: shorten it or give "
            "the cache more memory",
            math.nan,
        )


class _Run:
    """One simulation: wires client, router and replicas together and collects the outcome."""

    def __init__(
        self,
        replicas: Sequence[ReplicaSpec],
        router: str,
        workload: Workload,
        specs: Sequence[RequestSpec],
        macro: bool,
        record_steps: bool,
        progress: Progress | None,
        know_blocks: Sequence[bool],
    ):
        self._env = Environment()
        self._workload = workload
        self._requests = [Request(spec) for spec in specs]
        self._warmups = [Request(spec) for spec in warmups(workload)]
        self._record_steps = record_steps
        self._progress = progress
        self._ended = 0
        self._route = make_router(router, workload.seed)
        self._in_flight = [0] * len(replicas)
        self._replicas = [
            Replica(
                self._env,
                number,
                spec,
                self._finished,
                know_blocks=know,
                macro=macro,
                log_steps=record_steps,
            )
            for number, (spec, know) in enumerate(zip(replicas, know_blocks, strict=True))
        ]
        self._front_ends = [
            FrontEnd(self._env, spec.front_end, replica.submit, replica.streaming)
            for spec, replica in zip(replicas, self._replicas, strict=True)
        ]

    def result(self) -> SimulationResult:
        """Run to the last token."""
        env = self._env
        start_s = float(env.run(env.process(self._play())))
        return self._collect(start_s)

    def _play(self) -> Iterator[Event]:
        env = self._env
        if self._warmups:
            yield AllOf(env, [self._send(request) for request in self._warmups])
        start_s = env.now
        yield start_client(env, self._workload, self._requests, self._send)
        return start_s

    def _send(self, request: Request) -> Event:
        number = self._route(self._in_flight)
        self._in_flight[number] += 1
        request.replica = number
        request.done = self._env.event()
        self._front_ends[number].send(request)
        return request.done

    def _finished(self, request: Request) -> None:
        self._in_flight[request.replica] -= 1
        if self._replicas[request.replica].scheduler.unfinished:
            self._front_ends[request.replica].end()
        assert request.done is not None
        request.done.succeed()
        if request.index < len(self._requests):
            self._ended += 1
            if self._progress is not None:
                self._progress(self._ended / len(self._requests))

    def _collect(self, start_s: float) -> SimulationResult:
        recorders = [replica.recorder for replica in self._replicas]
        gaps, weights = (
            np.concatenate(x) for x in zip(*(r.gaps() for r in recorders), strict=True)
        )
        times, counts = (
            np.concatenate(x) for x in zip(*(r.tokens() for r in recorders), strict=True)
        )
        measured = times > start_s
        everyone = self._requests

        def times_of(name: str) -> np.ndarray:
            return np.array([getattr(r, name) for r in everyone]) - start_s

        def counts_of(name: str) -> np.ndarray:
            return np.array([getattr(r, name) for r in everyone])

        return SimulationResult(
            arrival_s=np.array([r.spec.arrival_s for r in everyone]),
            sent_s=times_of("sent_s"),
            first_token_s=times_of("first_token_s"),
            finish_s=times_of("finish_s"),
            input_tokens=counts_of("prompt"),
            output_tokens=counts_of("output"),
            preemptions=counts_of("preemptions"),
            prefix_hit_tokens=counts_of("hit_tokens"),
            replica=counts_of("replica"),
            gaps_s=gaps,
            gap_counts=weights,
            token_times_s=times[measured] - start_s,
            token_counts=counts[measured],
            workload=self._workload,
            steps=self._step_log(start_s) if self._record_steps else None,
        )

    def _step_log(self, start_s: float) -> StepLog:
        rows = np.concatenate([replica.recorder.log() for replica in self._replicas])
        rows = rows[np.argsort(rows[:, 0], kind="stable")]
        rows[:, 0] -= start_s
        columns = rows[rows[:, 0] >= 0].T
        whole = [c if i in (0, 1, 6) else c.astype(int) for i, c in enumerate(columns)]
        return StepLog(*whole)
