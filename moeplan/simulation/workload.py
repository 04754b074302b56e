"""`Workload`: which requests a client sends, when, and how it waits for them."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moeplan.cost.routing import ROUTING_SIGMA
from moeplan.errors import InputError
from moeplan.simulation.requests import RequestSpec

Arrivals = Literal["closed", "rounds", "poisson", "gamma", "trace", "offline"]
Routing = Literal["uniform", "random", "default", "chat", "domain"]

_Tokens = Annotated[int, Field(ge=1, le=10_000_000, strict=True)]
_Fraction = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]


class _Frozen(BaseModel):
    """Refuses what it does not know, and says which field is wrong in one line."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **data: Any):
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise InputError(_first_complaint(error)) from None


def _first_complaint(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    return f"{field} is {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}"


class TraceRow(_Frozen):
    """One request of a recorded workload: a line of a `timed_trace` file."""

    timestamp: Annotated[float, Field(ge=0, le=1e8, allow_inf_nan=False)]
    """Seconds after the start."""
    input_length: _Tokens
    output_length: _Tokens
    hash_ids: tuple[int, ...] = ()
    """Content of the prompt, chunk by chunk; equal ids mean equal tokens."""


class Workload(_Frozen):
    """Requests and the client that sends them.

    `arrivals`: *closed* keeps `concurrency` requests in flight; *rounds* sends `concurrency` at
    once, waits for all and repeats (llama-benchy); *poisson* and *gamma* send at `request_rate`,
    with `concurrency` as an optional cap in the client; *trace* sends at the trace's times;
    *offline* sends everything at once.

    Raises InputError that names the field and its value.
    """

    arrivals: Arrivals = "closed"
    num_prompts: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] = 1
    input_tokens: _Tokens = 1024
    output_tokens: _Tokens = 128
    input_range: tuple[_Fraction, _Fraction] = (1.0, 1.0)
    """Lengths are uniform between these fractions of `input_tokens`; vLLM's
    `--random-range-ratio` r is (1 - r, 1 + r)."""
    output_range: tuple[_Fraction, _Fraction] = (1.0, 1.0)
    concurrency: Annotated[int, Field(ge=1, le=100_000, strict=True)] | None = None
    request_rate: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] | None = None
    """Requests a second."""
    burstiness: Annotated[float, Field(gt=0)] = 1.0
    """Shape of gamma gaps: 1 is Poisson, larger is more even; infinite is constant."""
    shared_prefix_tokens: Annotated[int, Field(ge=0, le=10_000_000, strict=True)] = 0
    """Leading tokens that all prompts share."""
    trace: tuple[TraceRow, ...] = ()
    """Lengths, contents and (with `arrivals` *trace*) times; replaces the lengths above."""
    hash_chunk_tokens: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] = 16
    """Tokens that one hash id of the trace stands for."""
    num_warmups: Annotated[int, Field(ge=0, le=100_000, strict=True)] = 0
    """Requests sent at once and waited for before the run; they are not measured."""
    routing: Routing = "default"
    popularity_sigma: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] | None = None
    """Spread of expert popularity where it is known; replaces that of `routing`."""
    seed: Annotated[int, Field(ge=0, strict=True)] = 0

    def model_post_init(self, _context: Any) -> None:
        """Check what concerns several fields."""
        if self.arrivals in ("closed", "rounds") and self.concurrency is None:
            raise InputError(f"concurrency is missing: {self.arrivals} arrivals need it")
        if self.arrivals in ("poisson", "gamma") and self.request_rate is None:
            raise InputError(f"request_rate is missing: {self.arrivals} arrivals need it")
        if self.arrivals == "poisson" and self.burstiness != 1.0:
            raise InputError(f"burstiness is {self.burstiness}: poisson means 1; use gamma")
        if self.arrivals == "trace" and not self.trace:
            raise InputError("trace is empty: trace arrivals need its rows")
        for name in ("input_range", "output_range"):
            low, high = getattr(self, name)
            if low > high:
                raise InputError(f"{name} is {(low, high)}: the low fraction exceeds the high one")

    @property
    def routing_sigma(self) -> float:
        """Spread of expert popularity that the traffic brings."""
        known = self.popularity_sigma
        return ROUTING_SIGMA[self.routing] if known is None else known

    @property
    def first_wave(self) -> int:
        """Requests that all start together, so that their TTFT is mostly queueing."""
        if self.arrivals in ("closed", "rounds"):
            return min(self.concurrency or 0, self.size)
        return self.size if self.arrivals == "offline" else 0

    @property
    def size(self) -> int:
        """Requests in all, without warm-up: the trace's rows if there is one."""
        return len(self.trace) or self.num_prompts

    @property
    def longest_tokens(self) -> int:
        """Tokens of the longest sequence that the workload may make."""
        if self.trace:
            return max(row.input_length + row.output_length for row in self.trace)
        longest_input = _bounds(self.input_tokens, self.input_range)[1]
        return longest_input + _bounds(self.output_tokens, self.output_range)[1]


def _bounds(tokens: int, fractions: tuple[float, float]) -> tuple[int, int]:
    """Shortest and longest length, as vLLM's random data set rounds them; at least 1."""
    low, high = math.floor(tokens * fractions[0]), math.ceil(tokens * fractions[1])
    return max(low, 1), max(high, 1)


def requests(workload: Workload) -> list[RequestSpec]:
    """The requests in the order of sending, the same for the same seed; warm-up not included."""
    rng = np.random.default_rng(workload.seed)
    if workload.trace:
        rows = workload.trace
        if workload.arrivals == "trace":
            rows = tuple(sorted(rows, key=lambda row: row.timestamp))
        return [_of_row(i, row, workload) for i, row in enumerate(rows)]
    count = workload.num_prompts
    inputs = _lengths(rng, count, *_bounds(workload.input_tokens, workload.input_range))
    outputs = _lengths(rng, count, *_bounds(workload.output_tokens, workload.output_range))
    times = _send_times(workload, rng)
    shared = _shared_prefix(workload)
    return [
        RequestSpec(i, time, n_in, n_out, *shared)
        for i, (time, n_in, n_out) in enumerate(
            zip(times, inputs.tolist(), outputs.tolist(), strict=True)
        )
    ]


def _lengths(rng: np.random.Generator, count: int, low: int, high: int) -> np.ndarray:
    """Whole lengths from `low` to `high`, uniform, one from each of `count` equal parts.

    Their mean is that of the range for every seed: independent draws of 100 lengths miss it by
    6 %, which a loaded engine makes a multiple of in its queue.
    """
    places = (rng.permutation(count) + rng.random(count)) / count
    return low + np.floor(places * (high - low + 1)).astype(int)


def warmups(workload: Workload) -> list[RequestSpec]:
    """Warm-up requests: the workload's nominal lengths, and its shared prefix."""
    first = workload.size
    return [
        RequestSpec(
            i, 0.0, workload.input_tokens, workload.output_tokens, *_shared_prefix(workload)
        )
        for i in range(first, first + workload.num_warmups)
    ]


def _of_row(index: int, row: TraceRow, workload: Workload) -> RequestSpec:
    time = row.timestamp if workload.arrivals == "trace" else 0.0
    chunk = workload.hash_chunk_tokens
    return RequestSpec(index, time, row.input_length, row.output_length, row.hash_ids, chunk)


def _shared_prefix(workload: Workload) -> tuple[tuple[int, ...], int]:
    """Hash ids of the prompts: one for the prefix that all share; what follows is unique."""
    shared = workload.shared_prefix_tokens
    return ((0,), shared) if shared else ((), 0)


def _send_times(workload: Workload, rng: np.random.Generator) -> list[float]:
    """Send times in seconds; gaps are rescaled so that the last request goes out at n / rate.

    That is what `vllm bench serve` does (benchmarks/serve.py).
    """
    count, rate = workload.num_prompts, workload.request_rate
    if workload.arrivals not in ("poisson", "gamma") or rate is None:
        return [0.0] * count
    if math.isinf(workload.burstiness):
        return [(i + 1) / rate for i in range(count)]
    times = np.cumsum(rng.gamma(workload.burstiness, 1.0, count))
    return list(times * (count / rate / times[-1]))
