"""What is known about published rows beyond the rows themselves: doubts, and settings left out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib import resources
from typing import Any

from moeplan.records.record import RunRecord


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why a row, or some of its metrics, is not to be trusted."""

    ids: tuple[str, ...]
    reason: str
    metrics: tuple[str, ...] = ()
    """Metric names without statistic; empty for all."""
    version_prefixes: tuple[str, ...] = ()

    def concerns(self, record: RunRecord) -> bool:
        """Whether the record is one of these rows."""
        version = record.engine.version or ""
        return any(fnmatchcase(record.id, pattern) for pattern in self.ids) and (
            not self.version_prefixes or version.startswith(self.version_prefixes)
        )


def _load(name: str) -> list[dict[str, Any]]:
    text = resources.files("moeplan.records").joinpath(name).read_text("utf-8")
    return json.loads(text)["rows"]


@lru_cache(maxsize=1)
def doubts() -> tuple[Doubt, ...]:
    """Every listed doubt."""
    return tuple(
        Doubt(
            tuple(row["ids"]),
            row["reason"],
            tuple(row.get("metrics", ())),
            tuple(row.get("version_prefixes", ())),
        )
        for row in _load("untrusted.json")
    )


def doubts_about(record: RunRecord) -> list[Doubt]:
    """Doubts that concern a record."""
    return [doubt for doubt in doubts() if doubt.concerns(record)]


def is_doubted(record: RunRecord, metric: str) -> bool:
    """Whether a metric ("ttft_ms_mean") of a record is listed as not to be trusted."""
    return any(
        not doubt.metrics or metric.startswith(doubt.metrics) for doubt in doubts_about(record)
    )


@lru_cache(maxsize=1)
def _known() -> list[dict[str, Any]]:
    return _load("known_settings.json")


def known_settings(record: RunRecord) -> list[tuple[dict[str, Any], str]]:
    """Settings that the source used and the row lacks, each with where they come from."""
    return [
        (row["settings"], row["source"])
        for row in _known()
        if any(fnmatchcase(record.id, pattern) for pattern in row["ids"])
    ]


@lru_cache(maxsize=1)
def _facts() -> list[dict[str, Any]]:
    return _load("published_facts.json")


def with_facts(record: RunRecord) -> RunRecord:
    """The record with the figures that its source states elsewhere added to what it measured."""
    found = [row["measured"] for row in _facts() if record.id in row["ids"]]
    extra = {name: value for measured in found for name, value in measured.items()}
    if not extra:
        return record
    return record.model_copy(update={"measured": {**record.measured, **extra}})
