"""Measured runs near a prediction: those of its deployment, by whether their traffic is the same.

Engine settings and version may differ; a reader compares with that in mind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from moeplan.records.matching import (
    arrivals_of,
    same_arrivals,
    same_deployment,
    same_lengths,
    same_model,
)
from moeplan.records.published import published_records
from moeplan.records.record import RunRecord
from moeplan.records.served import served_records

Traffic = tuple[int, int, str]
"""Prompt tokens, output tokens, arrivals as in `Workload`."""


@dataclass(frozen=True, slots=True)
class Near:
    """Known runs near a prediction, in the order of the records."""

    same: list[RunRecord]
    """Of the deployment, with the same traffic, the load aside."""
    other: list[RunRecord]
    """Of the deployment, with other traffic."""
    spread: dict[str, int]
    """Runs of this model, weights and GPU that are placed otherwise, by placement."""


def known_records() -> list[RunRecord]:
    """Published runs, then those that moeplan's validator served."""
    return [*published_records(), *served_records()]


def near(
    records: Iterable[RunRecord], deployment: dict[str, Any], workload: dict[str, Any]
) -> Near:
    """Those of `records` that say how requests were sent.

    `deployment` and `workload` as in `moeplan simulate --json`.
    """
    alike = [r for r in records if same_model(r, deployment) and arrivals_of(r)]
    own = [r for r in alike if same_deployment(r, deployment)]
    same = [r for r in own if same_lengths(r, workload) and same_arrivals(r, workload)]
    placements = Counter(_placement(r) for r in alike if r not in own)
    return Near(same, [r for r in own if r not in same], dict(placements.most_common()))


def _placement(record: RunRecord) -> str:
    """As `Placement` prints itself."""
    spread = record.parallelism
    parts = [f"TP{spread.tp or 1}"]
    parts += [f"PP{spread.pp}"] if (spread.pp or 1) > 1 else []
    parts += ["EP"] if (spread.ep or 1) > 1 else []
    copies = f"{spread.replicas}×" if spread.replicas > 1 else ""
    return copies + " ".join(parts)


def traffic_of(record: RunRecord) -> Traffic:
    """Nominal lengths and arrivals of a record."""
    lengths = record.workload.input_tokens, record.workload.output_tokens
    return round(lengths[0]), round(lengths[1]), arrivals_of(record) or ""


def in_flight(record: RunRecord) -> int:
    """Requests that the client kept open; 0 where it sent them at a rate, or nobody says."""
    lone = record.workload.mode == "single_stream"
    return record.workload.concurrency or (1 if lone else 0)


def gap_of_rate_ms(record: RunRecord) -> float | None:
    """Milliseconds a token of a lone client; tools count crowds in ways of their own."""
    rate = record.measured.get("decode_tok_s")
    return 1e3 / rate if rate and in_flight(record) == 1 else None
