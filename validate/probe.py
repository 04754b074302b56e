"""Steps that `inside/moeplan_stepprobe.py` recorded in an engine, as arrays."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from moeplan.cost.batch import StepBatch
from moeplan.errors import RecordError

SYNC_CLASS = "moeplan_stepprobe.StepProbe"
ASYNC_CLASS = "moeplan_stepprobe.AsyncStepProbe"
FOLDER_VARIABLE = "MOEPLAN_STEPPROBE"
"""Environment variable that tells the probe where to write."""

_SCHEDULED, _UPDATED, _ARRIVED, _IDLE, _PREEMPTED = 1, 2, 3, 4, 5
Event = tuple[int, int, int]
"""Request number, steps scheduled before, nanoseconds."""
_HEAD = 8
"""Integers of a schedule event before its requests."""
_BENCH_INDEX = re.compile(r"bench-[0-9a-f]+-(\d+)-\d")


@dataclass(frozen=True, slots=True)
class ProbedRequest:
    """A request as the engine knew it. Lengths in tokens."""

    number: int
    id: str
    prompt_tokens: int
    max_tokens: int

    @property
    def bench_index(self) -> int | None:
        """Position in the benchmark's list of requests, None for another client's."""
        found = _BENCH_INDEX.search(self.id)
        return int(found[1]) if found else None


@dataclass(frozen=True)
class StepTrace:
    """Scheduler steps of one engine. Times in nanoseconds of the host's monotonic clock.

    Per step, shape (steps,): `begin_ns` and `scheduled_ns` bound schedule(), `result_ns` is when
    its result came in (0 where the engine stopped before), `waiting`, `running` and `free` (blocks)
    are those after it; `idle_after` marks steps after whose result nothing was left to do. Request
    rows of step i are `first[i]:first[i + 1]` of `number`, `new` (tokens scheduled) and `computed`
    (tokens computed after the step). `arrivals` are (request number, steps scheduled before it
    came, time), `preemptions` (request number, step that took its blocks, time).
    """

    facts: dict[str, Any]
    requests: list[ProbedRequest]
    begin_ns: np.ndarray
    scheduled_ns: np.ndarray
    result_ns: np.ndarray
    waiting: np.ndarray
    running: np.ndarray
    free: np.ndarray
    first: np.ndarray
    number: np.ndarray
    new: np.ndarray
    computed: np.ndarray
    idle_after: np.ndarray
    arrivals: list[Event]
    preemptions: list[Event]

    def __len__(self) -> int:
        return len(self.begin_ns)

    def rows(self, step: int) -> Iterator[tuple[int, int, int]]:
        """(request number, tokens scheduled, tokens computed after) of each request of a step."""
        part = slice(self.first[step], self.first[step + 1])
        yield from zip(
            self.number[part].tolist(),
            self.new[part].tolist(),
            self.computed[part].tolist(),
            strict=True,
        )

    def batch(self, step: int) -> StepBatch:
        """Composition of a step, as the cost model sees it.

        A resumed request recomputes: whatever takes more than its next token is a prefill chunk.
        """
        decodes, chunks, sampled = [], [], 0
        for number, new, computed in self.rows(step):
            if new == 1 and computed > self.requests[number].prompt_tokens:
                decodes.append(computed - 1)
            else:
                chunks.append((new, computed - new))
                sampled += computed >= self.requests[number].prompt_tokens
        return StepBatch(decodes, chunks, len(decodes) + sampled)

    def seconds(self) -> np.ndarray:
        """Duration of each step, shape (steps,); NaN where it cannot be told.

        Synchronous: from one schedule() to the next, or to the result where nothing followed.
        Asynchronous: from result to result, or from schedule() to result after a pause.
        """
        ends = self._ends_async() if self.facts.get("async") else self._ends_sync()
        begins = self.begin_ns.astype(float)
        if self.facts.get("async") and len(self) > 1:
            follows = ~self.idle_after[:-1]
            begins[1:] = np.where(follows, self.result_ns[:-1], begins[1:])
        return np.where(self.result_ns > 0, (ends - begins) * 1e-9, np.nan)

    def idle_before(self) -> np.ndarray:
        """Which steps an asynchronous engine started with nothing else to do, shape (steps,)."""
        first = np.ones(len(self), dtype=bool)
        first[1:] = self.idle_after[:-1]
        return first & bool(self.facts.get("async"))

    def _ends_async(self) -> np.ndarray:
        return self.result_ns.astype(float)

    def _ends_sync(self) -> np.ndarray:
        ends = self.result_ns.astype(float)
        if len(self) > 1:
            follows = ~self.idle_after[:-1]
            ends[:-1] = np.where(follows, self.begin_ns[1:], ends[:-1])
        return ends

    def chunked(self) -> int:
        """Steps' prefills that left a part of the prompt for a later step."""
        prompts = np.array([request.prompt_tokens for request in self.requests])
        return int(np.sum((self.computed < prompts[self.number]) & (self.new > 0)))

    def hit_tokens(self) -> int:
        """Tokens that the prefix cache supplied, over all admissions."""
        lost: dict[int, list[int]] = {}
        for number, step, _ in self.preemptions:
            lost.setdefault(step, []).append(number)
        admitted: set[int] = set()
        total = 0
        for step in range(len(self)):
            admitted.difference_update(lost.get(step, ()))
            for number, new, computed in self.rows(step):
                if number not in admitted:
                    admitted.add(number)
                    total += computed - new
        return total

    def between(self, begin_ns: int, end_ns: int) -> StepTrace:
        """The steps scheduled in a span of time, with requests numbered anew by arrival."""
        chosen = np.flatnonzero((self.begin_ns >= begin_ns) & (self.begin_ns < end_ns))
        if not len(chosen):
            raise RecordError("no step was recorded in that span; was the probe switched on?")
        low, high = int(chosen[0]), int(chosen[-1]) + 1
        part = slice(self.first[low], self.first[high])
        arrivals = [(n, s - low, t) for n, s, t in self.arrivals if low <= s < high]
        preemptions = [(n, s - low, t) for n, s, t in self.preemptions if low <= s < high]
        order = {n: i for i, n in enumerate(dict.fromkeys(n for n, _, _ in arrivals))}
        strangers = set(self.number[part].tolist()) - set(order)
        if strangers:
            raise RecordError(f"{len(strangers)} requests of the span arrived before it began")
        requests = [self.requests[n] for n in order]
        return StepTrace(
            self.facts,
            [ProbedRequest(i, r.id, r.prompt_tokens, r.max_tokens) for i, r in enumerate(requests)],
            *(getattr(self, name)[low:high] for name in _PER_STEP),
            self.first[low : high + 1] - self.first[low],
            np.array([order[n] for n in self.number[part].tolist()], dtype=np.int64),
            self.new[part],
            self.computed[part],
            self.idle_after[low:high],
            [(order[n], s, t) for n, s, t in arrivals],
            [(order[n], s, t) for n, s, t in preemptions],
        )

    def to_bytes(self) -> bytes:
        """One compressed file that `trace_from_bytes` reads."""
        stream = io.BytesIO()
        about = {"facts": self.facts, "requests": [list(_fields(r)) for r in self.requests]}
        arrays = {name: getattr(self, name) for name in (*_PER_STEP, *_PER_ROW, "idle_after")}
        for name in _EVENTS:
            arrays[name] = np.array(getattr(self, name), dtype=np.int64).reshape(-1, 3)
        np.savez_compressed(stream, about=json.dumps(about), **arrays)
        return stream.getvalue()


_PER_STEP = ("begin_ns", "scheduled_ns", "result_ns", "waiting", "running", "free")
_PER_ROW = ("first", "number", "new", "computed")
_EVENTS = ("arrivals", "preemptions")


def _fields(request: ProbedRequest) -> tuple[int, str, int, int]:
    return request.number, request.id, request.prompt_tokens, request.max_tokens


def trace_from_bytes(content: bytes) -> StepTrace:
    """A trace that `to_bytes` wrote. Raises `RecordError` where the content is another."""
    try:
        with np.load(io.BytesIO(content)) as arrays:
            about = json.loads(str(arrays["about"]))
            values = {name: arrays[name] for name in (*_PER_STEP, *_PER_ROW, "idle_after")}
            events = {
                name: [(int(n), int(s), int(t)) for n, s, t in arrays[name]] for name in _EVENTS
            }
    except (OSError, ValueError, KeyError) as error:
        raise RecordError(f"not a recorded step trace: {error}") from error
    requests = [ProbedRequest(*row) for row in about["requests"]]
    return StepTrace(about["facts"], requests, **values, **events)


def read_probe(folder: Path) -> StepTrace:
    """The steps that one engine left in the probe's folder.

    Raises `RecordError` where there is none, or where several engines (data parallel) wrote.
    A last event that was cut off is left out.
    """
    found = sorted(folder.glob("*.steps.i64"))
    if len(found) != 1:
        raise RecordError(
            f"{folder} holds the steps of {len(found)} engine processes; one is needed "
            "(was --scheduler-cls given, and a fresh folder for each start?)"
        )
    lines = found[0].with_name(found[0].name.replace(".steps.i64", ".meta.jsonl")).read_text()
    facts, *rows = (json.loads(line) for line in lines.splitlines() if line.endswith(("}", "]")))
    requests = [ProbedRequest(*row) for row in rows]
    content = found[0].read_bytes()
    events = np.frombuffer(content[: len(content) // 8 * 8], dtype="<i8")
    return _assemble(facts, requests, events.tolist())


@dataclass(slots=True)
class _Builder:
    """Events in order, sorted into columns."""

    steps: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    results: dict[int, int] = field(default_factory=dict)
    rows: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    arrivals: list[Event] = field(default_factory=list)
    preemptions: list[Event] = field(default_factory=list)
    idle: set[int] = field(default_factory=set)
    last_result: int = -1

    def take(self, events: list[int], at: int) -> int:
        """Read the event at a position; returns that of the next."""
        kind = events[at]
        if kind == _SCHEDULED:
            return self._scheduled(events, at)
        if kind == _UPDATED:
            self.last_result = events[at + 2]
            self.results[self.last_result] = events[at + 1]
            return at + 3
        if kind == _ARRIVED:
            self.arrivals.append((events[at + 2], len(self.steps), events[at + 1]))
            return at + 3
        if kind == _PREEMPTED:
            self.preemptions.append((events[at + 2], len(self.steps), events[at + 1]))
            return at + 3
        if kind == _IDLE:
            self.idle.add(self.last_result)
            return at + 2
        raise RecordError(f"unknown event {kind} at integer {at} of a step file; it is damaged")

    def _scheduled(self, events: list[int], at: int) -> int:
        _, time_ns, spent, _step, waiting, running, free, count = events[at : at + _HEAD]
        end = at + _HEAD + 3 * count
        if end > len(events):
            raise IndexError
        self.steps.append((time_ns - spent, time_ns, waiting, running, free))
        self.rows.extend(events[at + _HEAD : end])
        self.counts.append(count)
        return end


def _assemble(facts: dict[str, Any], requests: list[ProbedRequest], events: list[int]) -> StepTrace:
    builder, at = _Builder(), 0
    try:
        while at < len(events):
            at = builder.take(events, at)
    except (IndexError, ValueError):  # the engine was killed while it wrote
        pass
    columns = np.array(builder.steps, dtype=np.int64).reshape(-1, 5)
    rows = np.array(builder.rows, dtype=np.int64).reshape(-1, 3)
    count = len(columns)
    return StepTrace(
        facts,
        requests,
        begin_ns=columns[:, 0],
        scheduled_ns=columns[:, 1],
        result_ns=np.array([builder.results.get(i, 0) for i in range(count)], dtype=np.int64),
        waiting=columns[:, 2],
        running=columns[:, 3],
        free=columns[:, 4],
        first=np.concatenate([[0], np.cumsum(builder.counts, dtype=np.int64)]),
        number=rows[:, 0],
        new=rows[:, 1],
        computed=rows[:, 2],
        idle_after=np.array([i in builder.idle for i in range(count)], dtype=bool),
        arrivals=builder.arrivals,
        preemptions=builder.preemptions,
    )
