"""Client protocols: when each request is sent, given when earlier ones end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from simpy import AllOf, Environment, Event, Process, Resource

from moeplan.simulation.requests import Request
from moeplan.simulation.workload import Workload

Send = Callable[[Request], Event]
"""Sends a request now; the event succeeds with its last token."""

_Steps = Iterator[Event]


def start_client(
    env: Environment, workload: Workload, queue: Sequence[Request], send: Send
) -> Event:
    """Send every request as the workload says; the event succeeds when all have ended."""
    if workload.arrivals == "closed":
        rest = iter(queue)
        slots = range(min(workload.concurrency or 1, len(queue)))
        return AllOf(env, [env.process(_slot(rest, send)) for _ in slots])
    if workload.arrivals == "rounds":
        return env.process(_rounds(env, queue, send, workload.concurrency or 1))
    if workload.arrivals == "offline":
        return AllOf(env, [send(request) for request in queue])
    return env.process(_open_loop(env, queue, send, workload.concurrency))


def _slot(rest: Iterator[Request], send: Send) -> _Steps:
    """One of the closed loop's slots: the next request leaves when the last one has ended."""
    for request in rest:
        yield send(request)


def _rounds(env: Environment, queue: Sequence[Request], send: Send, width: int) -> _Steps:
    for start in range(0, len(queue), width):
        yield AllOf(env, [send(request) for request in queue[start : start + width]])


def _open_loop(env: Environment, queue: Sequence[Request], send: Send, cap: int | None) -> _Steps:
    """Requests leave at their times; above `cap` in flight they wait, in order, unsent."""
    start = env.now
    slots = Resource(env, cap) if cap else None
    ends: list[Event] = []
    for request in queue:
        delay = start + request.spec.arrival_s - env.now
        if delay > 0:
            yield env.timeout(delay)
        ends.append(send(request) if slots is None else _capped(env, slots, request, send))
    yield AllOf(env, ends)


def _capped(env: Environment, slots: Resource, request: Request, send: Send) -> Process:
    def steps() -> _Steps:
        with slots.request() as slot:
            yield slot
            yield send(request)

    return env.process(steps())
