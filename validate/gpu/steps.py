"""Read recorded steps and pick those of one kind out of a phase of a measurement."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

SETTLE = 3
"""Decode steps left out after a batch forms: the first still share the engine with prefills."""


@dataclass(frozen=True, slots=True)
class Step:
    """One scheduler step; times are seconds on the host's monotonic clock."""

    decodes: int
    context: int
    """Sum of the decodes' contexts, in tokens."""
    chunks: tuple[tuple[int, int], ...]
    """Prefill chunks: tokens, and tokens computed before."""
    scheduled: float
    returned: float
    period: float
    """From the step before's return, or from its own scheduling when the engine was idle."""
    preempted: int

    @property
    def tokens(self) -> int:
        """Tokens computed in the step."""
        return self.decodes + sum(tokens for tokens, _ in self.chunks)


def lines(path: Path) -> Iterable[str]:
    """Complete lines of a plain or gzipped file."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt") as source:
        for line in source:
            if line.endswith("\n"):
                yield line


def read_steps(path: Path) -> list[Step]:
    """All steps of one engine, in order of return."""
    steps: list[Step] = []
    before = float("-inf")
    for line in lines(path):
        record: dict[str, Any] = json.loads(line)
        begun = before if record["s"] < before else record["s"]
        before = record["u"]
        chunks = tuple((tokens, done) for tokens, done in record["p"])
        timing = (record["s"], record["u"], record["u"] - begun)
        steps.append(Step(record["d"], record["c"], chunks, *timing, record["pre"]))
    return steps


def within(steps: Sequence[Step], phase: dict[str, Any]) -> list[Step]:
    """Steps that returned during a phase."""
    return [step for step in steps if phase["t0"] <= step.returned <= phase["t1"]]


def steady_decodes(steps: Sequence[Step], batch: int) -> list[Step]:
    """Steps of exactly `batch` decodes and nothing else, once they settled."""
    return [s for s in steps if s.decodes == batch and not s.chunks][SETTLE:]


def spread(seconds: Sequence[float]) -> dict[str, Any]:
    """Median, tenth and ninetieth percentile and count.

    Raises:
        ValueError: no values.
    """
    if not seconds:
        raise ValueError("seconds is empty: nothing to summarise")
    ordered = sorted(seconds)
    last = len(ordered) - 1
    return {
        "seconds": round(median(ordered), 7),
        "seconds_p10": round(ordered[round(0.1 * last)], 7),
        "seconds_p90": round(ordered[round(0.9 * last)], 7),
        "n": len(ordered),
    }
