"""Whether a measured run is of the deployment and lengths that are being predicted.

Engine settings and version may differ.
"""

from __future__ import annotations

from typing import Any

from moeplan.records.record import RunRecord
from moeplan.records.rules import NotCovered, Rules
from moeplan.records.setup_workload import workload_of


def same_model(record: RunRecord, deployment: dict[str, Any]) -> bool:
    """Whether a record has this model, weights and GPU, on this engine and without drafts.

    Prefill and decode on servers of their own are no such engine. `deployment` is that of
    `moeplan simulate --json`.
    """
    return (
        record.architecture == deployment["model"]
        and record.weight_format == deployment["checkpoint"]["name"]
        and record.hardware == deployment["device"]
        and record.engine.name == deployment["engine"]["name"]
        and record.speculative is None
        and record.parallelism.disagg is None
    )


def same_deployment(record: RunRecord, deployment: dict[str, Any]) -> bool:
    """`same_model`, and the same placement."""
    spread, placement = record.parallelism, deployment["placement"]
    return (
        same_model(record, deployment)
        and ((spread.ep or 1) > 1) == placement["ep"]
        and all(
            (getattr(spread, name) or 1) == placement[name] for name in ("tp", "pp", "replicas")
        )
    )


def arrivals_of(record: RunRecord) -> str | None:
    """How the record's client sent requests: a word of `Workload.arrivals`, None if unsaid."""
    try:
        return workload_of(record, Rules()).arrivals
    except NotCovered:
        return None


def same_arrivals(record: RunRecord, workload: dict[str, Any]) -> bool:
    """Whether a record's client sent requests as a workload does; a lone one does so any way."""
    return record.workload.concurrency == 1 or arrivals_of(record) == workload["arrivals"]


def same_lengths(record: RunRecord, workload: dict[str, Any]) -> bool:
    """Whether a record's prompts and answers are nominally as long as those of a workload.

    `workload` is that of a point of `moeplan simulate --json`.
    """
    lengths = (record.workload.input_tokens, record.workload.output_tokens)
    return lengths == (workload.get("input_tokens"), workload.get("output_tokens"))
