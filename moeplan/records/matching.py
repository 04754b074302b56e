"""Measured runs of a deployment that is being predicted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from moeplan.records.record import RunRecord


def matching(
    records: Iterable[RunRecord], deployment: dict[str, Any], workload: dict[str, Any]
) -> list[RunRecord]:
    """Records of the same model, weights, GPUs, placement and lengths.

    `deployment` and `workload` are those of `moeplan simulate --json`. Settings, engine version and
    client protocol may differ.
    """
    return [
        record
        for record in records
        if _same_machine(record, deployment) and _same_lengths(record, workload)
    ]


def _same_machine(record: RunRecord, deployment: dict[str, Any]) -> bool:
    spread, placement = record.parallelism, deployment["placement"]
    return (
        record.architecture == deployment["model"]
        and record.weight_format == deployment["checkpoint"]["name"]
        and record.hardware == deployment["device"]
        and record.speculative is None
        and spread.disagg is None
        and all(
            (getattr(spread, name) or 1) == placement[name] for name in ("tp", "pp", "replicas")
        )
    )


def _same_lengths(record: RunRecord, workload: dict[str, Any]) -> bool:
    lengths = (record.workload.input_tokens, record.workload.output_tokens)
    return lengths == (workload.get("input_tokens"), workload.get("output_tokens"))
