"""A run over time: its steps and requests as columns, and as a trace that Perfetto opens."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import Any

from moeplan.simulation.recorder import StepLog
from moeplan.simulation.result import SimulationResult

MICRO = 1e6
Columns = dict[str, list[Any]]
_STEPS = ("start_s", "duration_s", "decodes", "prefill_tokens", "running", "waiting", "kv_usage",
          "preemptions", "replica")  # fmt: skip
_WHOLE_STEPS = frozenset(_STEPS[2:]) - {"kv_usage"}
_REQUESTS = ("sent_s", "first_token_s", "finish_s", "input_tokens", "output_tokens",
             "preemptions", "prefix_hit_tokens", "replica")  # fmt: skip
_COUNTERS = ("decodes", "prefill_tokens", "running", "waiting", "kv_usage")


def timeline(result: SimulationResult) -> dict[str, Columns]:
    """Steps (one entry a step, in order of start) and requests (in order of sending).

    Times in seconds after the client's start, `kv_usage` as a share of the blocks. The run must
    have recorded its steps.
    """
    steps = result.steps
    assert steps is not None, "run with record_steps=True"
    return {
        "steps": {name: _step_column(steps, name) for name in _STEPS},
        "requests": {name: getattr(result, name).tolist() for name in _REQUESTS},
    }


def _step_column(steps: StepLog, name: str) -> list[Any]:
    column = getattr(steps, name)
    return (column.astype(int) if name in _WHOLE_STEPS else column).tolist()


def lanes(starts_s: Sequence[float], ends_s: Sequence[float], replicas: Sequence[int]) -> list[int]:
    """A row for each span such that spans of a row do not overlap: the lowest free on its replica.

    Shape (spans,) each; rows count from 0 on every replica.
    """
    free: dict[int, list[int]] = {}
    busy: dict[int, list[tuple[float, int]]] = {}
    found = [0] * len(starts_s)
    for i in sorted(range(len(starts_s)), key=starts_s.__getitem__):
        spare, used = free.setdefault(replicas[i], []), busy.setdefault(replicas[i], [])
        while used and used[0][0] <= starts_s[i] + _ROUNDING_S:
            heapq.heappush(spare, heapq.heappop(used)[1])
        found[i] = heapq.heappop(spare) if spare else len(used)
        heapq.heappush(used, (ends_s[i], found[i]))
    return found


def chrome_trace(data: dict[str, Columns]) -> dict[str, Any]:
    """A `timeline` in the trace-event format, which ui.perfetto.dev and chrome://tracing read.

    One process a replica, with threads of steps (several where pipeline stages overlap), a thread
    a request lane, and counters. Times in microseconds.
    """
    steps, requests = data["steps"], data["requests"]
    ends = [s + d for s, d in zip(steps["start_s"], steps["duration_s"], strict=True)]
    step_lanes = lanes(steps["start_s"], ends, steps["replica"])
    request_lanes = lanes(requests["sent_s"], requests["finish_s"], requests["replica"])
    return {
        "traceEvents": [
            *_names("engine steps", 0, steps["replica"], step_lanes),
            *_names("requests", _FIRST_REQUEST_LANE, requests["replica"], request_lanes),
            *_steps(steps, step_lanes),
            *_requests(requests, request_lanes),
        ],
        "displayTimeUnit": "ms",
    }


_ROUNDING_S = 1e-9
_FIRST_REQUEST_LANE = 1000


def _names(
    kind: str, first: int, replicas: Sequence[int], rows: Sequence[int]
) -> Iterator[dict[str, Any]]:
    for replica in sorted(set(replicas)):
        yield _name("process_name", replica, 0, f"replica {replica}")
    for replica, row in sorted(set(zip(replicas, rows, strict=True))):
        yield _name("thread_name", replica, first + row, f"{kind} {row + 1}")


def _name(kind: str, replica: int, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": replica, "tid": thread, "args": {"name": name}}


def _rows(columns: Columns) -> Iterator[dict[str, Any]]:
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def _steps(steps: Columns, step_lanes: Sequence[int]) -> Iterator[dict[str, Any]]:
    for step, lane in zip(_rows(steps), step_lanes, strict=True):
        replica, start_s = step["replica"], step["start_s"]
        yield _slice(_kind(step), replica, lane, start_s, step["duration_s"], step)
        for name in _COUNTERS:
            counted = {name: step[name]}
            yield {"ph": "C", "name": name, "pid": replica, "ts": start_s * MICRO, "args": counted}


def _kind(step: dict[str, Any]) -> str:
    if step["prefill_tokens"]:
        return "mixed" if step["decodes"] else "prefill"
    return "decode"


def _requests(requests: Columns, request_lanes: Sequence[int]) -> Iterator[dict[str, Any]]:
    for index, (found, lane) in enumerate(zip(_rows(requests), request_lanes, strict=True)):
        replica, thread = found["replica"], _FIRST_REQUEST_LANE + lane
        sent, first, end = found["sent_s"], found["first_token_s"], found["finish_s"]
        yield _slice("to first token", replica, thread, sent, first - sent, {"request": index})
        yield _slice(f"request {index}", replica, thread, first, end - first, found)


def _slice(
    name: str, replica: int, thread: int, start_s: float, duration_s: float, facts: dict[str, Any]
) -> dict[str, Any]:
    return {
        "ph": "X",
        "name": name,
        "pid": replica,
        "tid": thread,
        "ts": start_s * MICRO,
        "dur": duration_s * MICRO,
        "args": facts,
    }
