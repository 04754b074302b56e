"""What a load generator sends, as a plan says it and as `vllm bench serve` is told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from moeplan.errors import RecordError
from moeplan.simulation.trace import read_trace
from moeplan.simulation.workload import Routing, TraceRow, Workload

_WARM_UP_TOKENS = 1 << 16
_WARM_UP_OUTPUT = 16
Count = Annotated[int, Field(ge=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ClosedLoop(_Strict):
    """A fixed number of requests in flight; the next starts when one ends."""

    kind: Literal["closed_loop"] = "closed_loop"
    concurrency: Count
    input_tokens: Count
    output_tokens: Count
    num_prompts: Count

    def bench_options(self, _folder: Path) -> list[str]:
        """Options of `vllm bench serve` beyond the common ones."""
        return [*_random_lengths(self), "--max-concurrency", str(self.concurrency)]

    def shrunk(self) -> ClosedLoop:
        """A warm-up: one wave of the same prompts, its outputs cut; the engine knows its decodes.

        CUDA graphs of all decode sizes exist before the first request; what compiles while serving
        are prefills of new sizes.
        """
        most = max(_WARM_UP_TOKENS // self.input_tokens, 8)
        prompts = min(self.num_prompts, self.concurrency, most)
        output = min(self.output_tokens, _WARM_UP_OUTPUT)
        return self.model_copy(update={"num_prompts": prompts, "output_tokens": output})


class Poisson(_Strict):
    """Open loop: requests arrive at a mean rate, whatever the server does."""

    kind: Literal["poisson"] = "poisson"
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """Requests a second."""
    burstiness: Annotated[float, Field(gt=0)] = 1.0
    """Shape of the gamma distribution of gaps; 1 is Poisson."""
    input_tokens: Count
    output_tokens: Count
    num_prompts: Count

    def bench_options(self, _folder: Path) -> list[str]:
        """Options of `vllm bench serve` beyond the common ones."""
        pace = ["--request-rate", str(self.rate), "--burstiness", str(self.burstiness)]
        return [*_random_lengths(self), *pace]

    def shrunk(self) -> Poisson:
        """A warm-up, at the same pace."""
        output = min(self.output_tokens, _WARM_UP_OUTPUT)
        prompts = min(self.num_prompts, 16)
        return self.model_copy(update={"num_prompts": prompts, "output_tokens": output})


class TimedTrace(_Strict):
    """Requests at given times with given lengths and shared contents, from a JSON Lines file."""

    kind: Literal["timed_trace"] = "timed_trace"
    path: str
    """File, relative to the plan."""
    chunk_tokens: Count = 16
    """Tokens behind one hash id."""
    num_prompts: Count
    max_concurrency: Count | None = None
    """Requests in flight at most; None leaves the times alone to decide."""

    def bench_options(self, folder: Path) -> list[str]:
        """Options of `vllm bench serve` beyond the common ones; `folder` is that of the plan."""
        options = ["--dataset-name", "timed_trace", "--dataset-path", str(folder / self.path)]
        options += ["--timed-trace-chunk-hash-size", str(self.chunk_tokens)]
        options += ["--num-prompts", str(self.num_prompts)]
        if self.max_concurrency:
            options += ["--max-concurrency", str(self.max_concurrency)]
        return options

    def rows(self, folder: Path) -> list[TraceRow]:
        """The requests sent, in order.

        Raises `RecordError` where the file is malformed, too short, or lacks contents (the
        benchmark cuts a prompt for which there are too few hash ids).
        """
        path = folder / self.path
        rows = list(read_trace(path))[: self.num_prompts]
        if len(rows) < self.num_prompts:
            raise RecordError(f"{path}: {len(rows)} rows; num_prompts asks for {self.num_prompts}")
        for number, row in enumerate(rows, 1):
            if len(row.hash_ids) * self.chunk_tokens < row.input_length:
                raise RecordError(
                    f"{path}, line {number}: {len(row.hash_ids)} hash_ids of {self.chunk_tokens} "
                    f"tokens do not cover input_length {row.input_length}; add hash_ids"
                )
        return rows


LoadPoint = Annotated[ClosedLoop | Poisson | TimedTrace, Field(discriminator="kind")]


def _random_lengths(load: ClosedLoop | Poisson) -> list[str]:
    options = ["--dataset-name", "random", "--random-input-len", str(load.input_tokens)]
    options += ["--random-output-len", str(load.output_tokens), "--ignore-eos"]
    return [*options, "--num-prompts", str(load.num_prompts)]


def requested_lengths(load: LoadPoint, folder: Path) -> tuple[list[int], list[int]]:
    """Prompt and output tokens of each request, in order of sending."""
    if isinstance(load, TimedTrace):
        rows = load.rows(folder)
        return [row.input_length for row in rows], [row.output_length for row in rows]
    return [load.input_tokens] * load.num_prompts, [load.output_tokens] * load.num_prompts


def to_workload(load: LoadPoint, folder: Path, routing: Routing) -> Workload:
    """The same load as the simulator takes it; `folder` is that of the plan."""
    if isinstance(load, TimedTrace):
        return Workload(
            arrivals="trace",
            trace=tuple(load.rows(folder)),
            hash_chunk_tokens=load.chunk_tokens,
            concurrency=load.max_concurrency,
            routing=routing,
        )
    lengths = {"input_tokens": load.input_tokens, "output_tokens": load.output_tokens}
    if isinstance(load, ClosedLoop):
        pace = {"arrivals": "closed", "concurrency": load.concurrency}
    else:
        pace = {"arrivals": "gamma", "request_rate": load.rate, "burstiness": load.burstiness}
    return Workload(num_prompts=load.num_prompts, routing=routing, **lengths, **pace)


def write_trace(path: Path, rows: Sequence[TraceRow]) -> None:
    """Write a trace that both `vllm bench serve` and the simulator read."""
    path.write_text("".join(row.model_dump_json() + "\n" for row in rows))
