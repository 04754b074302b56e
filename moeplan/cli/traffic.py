"""Options that describe the traffic, and the workloads that they stand for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from pydantic import Field

from moeplan.errors import InputError
from moeplan.options import Options
from moeplan.scenario import MOST_TOKENS

if TYPE_CHECKING:
    from moeplan.simulation.workload import TraceRow, Workload

PROMPTS_PER_CONCURRENCY = 10
PROMPTS_AT_A_RATE = 1000
"""As `vllm bench serve` sends when nobody says how many."""
MOST_POINTS = 100

Number = TypeVar("Number", int, float)


class LoadOptions(Options):
    """Lengths and arrivals."""

    input: int = Field(1024, ge=1, le=MOST_TOKENS, description="Prompt tokens.")
    output: int = Field(128, ge=1, le=MOST_TOKENS, description="Tokens to generate.")
    range_ratio: float = Field(
        0.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Lengths spread evenly over 1 ± this share of the nominal ones.",
    )
    arrivals: Literal["closed", "rounds", "poisson", "gamma", "trace", "offline"] | None = Field(
        None,
        description="closed: --concurrency requests always in flight; rounds: that many at once, "
        "wait for all, repeat; poisson, gamma: at --rate; trace: at the file's times; offline: all "
        "at once.  [default: closed, or poisson with --rate]",
    )
    concurrency: str | None = Field(
        None, description="Requests in flight; several sweep, such as 1,4,16.  [default: 1]"
    )
    rate: str | None = Field(None, description="Requests a second; several sweep, such as 0.5,1,2.")
    burstiness: float = Field(
        1.0, gt=0, le=1e6, description="Shape of gamma gaps: 1 is Poisson, more is more even."
    )
    num_prompts: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description=f"Requests in all.  [default: {PROMPTS_PER_CONCURRENCY} × concurrency, "
        f"{PROMPTS_AT_A_RATE} at a rate]",
    )
    shared_prefix: int = Field(
        0, ge=0, le=MOST_TOKENS, description="Leading tokens that all prompts share."
    )
    routing: Literal["uniform", "random", "default", "chat", "domain"] = Field(
        "default", description="Kind of text: how unevenly it uses the experts."
    )
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Seed of lengths and arrivals.")


class TrafficOptions(LoadOptions):
    """What clients send, and when."""

    trace: Path | None = Field(
        None,
        description="File of recorded requests (JSON lines: timestamp, input_length, "
        "output_length, hash_ids); gives lengths, and times with --arrivals trace.",
        json_schema_extra={"positional": True},
    )


def build_workloads(traffic: TrafficOptions) -> list[Workload]:
    """One workload a point of the sweep, in the order given.

    Raises `InputError` where options contradict each other or a list holds no numbers.
    """
    levels = _numbers("concurrency", traffic.concurrency, int)
    rates = _numbers("rate", traffic.rate, float)
    if len(levels) > 1 and len(rates) > 1:
        raise InputError("concurrency and rate both hold lists; sweep one of them")
    arrivals = traffic.arrivals or ("poisson" if rates else "closed")
    if rates and arrivals not in ("poisson", "gamma"):
        raise InputError(f"rate does not go with {arrivals} arrivals; use --arrivals poisson")
    if not levels and arrivals in ("closed", "rounds"):
        levels = [1]
    rows = _trace_rows(traffic, arrivals)
    points = [(level, rate) for level in levels or [None] for rate in rates or [None]]
    return [_workload(traffic, arrivals, rows, level, rate) for level, rate in points]


def _trace_rows(traffic: TrafficOptions, arrivals: str) -> tuple[TraceRow, ...]:
    from moeplan.simulation.trace import read_trace

    if traffic.trace is not None:
        return read_trace(traffic.trace)
    if arrivals == "trace":
        raise InputError("arrivals is trace, but no file is named; write --arrivals trace FILE")
    return ()


def _workload(
    traffic: TrafficOptions,
    arrivals: str,
    rows: tuple[TraceRow, ...],
    level: int | None,
    rate: float | None,
) -> Workload:
    from moeplan.simulation.workload import Workload

    spread = (1.0 - traffic.range_ratio, 1.0 + traffic.range_ratio)
    closed = arrivals in ("closed", "rounds")
    prompts = PROMPTS_PER_CONCURRENCY * (level or 1) if closed else PROMPTS_AT_A_RATE
    return Workload(
        arrivals=arrivals,
        num_prompts=traffic.num_prompts or prompts,
        input_tokens=traffic.input,
        output_tokens=traffic.output,
        input_range=spread,
        output_range=spread,
        concurrency=level,
        request_rate=rate,
        burstiness=traffic.burstiness,
        shared_prefix_tokens=traffic.shared_prefix,
        trace=rows,
        routing=traffic.routing,
        seed=traffic.seed,
    )


def _numbers(name: str, text: str | None, read: Callable[[str], Number]) -> list[Number]:
    """Read "1,4,16"; raise `InputError` naming the word that is no positive number."""
    words = [word.strip() for word in text.split(",")] if text is not None else []
    if len(words) > MOST_POINTS:
        raise InputError(f"{name} holds {len(words)} values; sweep at most {MOST_POINTS}")
    return [_number(name, word, read) for word in words]


def _number(name: str, word: str, read: Callable[[str], Number]) -> Number:
    kind = "whole number" if read is int else "number"
    try:
        value = read(word)
    except ValueError:
        raise InputError(f"{name} holds {word!r}; write {kind}s with commas between") from None
    if not 0 < value <= 1_000_000:  # NaN fails too
        raise InputError(f"{name} is {word}; it must be a {kind} above 0, at most 1,000,000")
    return value
