"""The seed rows that ship with moeplan, and the report on how well they are predicted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib import resources
from typing import Any

from moeplan.hardware_specs import Hardware
from moeplan.records.annotations import with_facts
from moeplan.records.prediction import Predict
from moeplan.records.reader import read_lines
from moeplan.records.record import RunRecord
from moeplan.records.score import Progress, RecordScore, score

PREFILL_ONLY = "#prefill-only"
"""Suffix of the id of a row that is simulated again with steps that do not mix."""


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One figure of a table."""

    label: str
    metric: str
    measured: float
    predicted: float
    counted: bool = True
    """Whether the limits look at it."""

    @property
    def error(self) -> float:
        """|predicted / measured - 1|."""
        return abs(self.predicted / self.measured - 1)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One limit, the figure that it is held against, and whether it holds."""

    what: str
    limit: str
    figure: float
    passed: bool
    reason: str | None = None
    """Why a limit that does not hold is out of reach, where that is known."""


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """One system: its rows, verdicts, and what a reader must know."""

    name: str
    source: str
    rows: tuple[PublishedRow, ...]
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every limit holds."""
        return all(verdict.passed for verdict in self.verdicts)


@dataclass(frozen=True, slots=True)
class PublishedReport:
    """All tables, and the scored rows behind them."""

    tables: tuple[PublishedTable, ...]
    scores: tuple[RecordScore, ...]
    stale_reasons: tuple[str, ...] = ()
    """Limits with a reason on file that hold all the same."""

    @property
    def passed(self) -> bool:
        """Whether every limit of every table holds."""
        return all(table.passed for table in self.tables)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"tables": [asdict(table) for table in self.tables], "passed": self.passed}


def published_records() -> list[RunRecord]:
    """The rows that ship with moeplan; a malformed one would be a packaging fault."""
    folder = resources.files("moeplan.records").joinpath("published")
    records: list[RunRecord] = []
    for file in sorted(folder.iterdir(), key=lambda item: item.name):
        if file.name.endswith(".jsonl"):
            found = read_lines(file.read_bytes().splitlines(), f"published/{file.name}")
            if found.problems:
                raise ValueError(f"damaged installation: {found.problems[0]}")
            records += [with_facts(record) for record in found.records]
    return records


def published_report(
    hardware: Hardware,
    *,
    jobs: int = 1,
    progress: Progress | None = None,
    predict: Predict | None = None,
) -> PublishedReport:
    """Predict every shipped row and hold the four systems against their limits."""
    from moeplan.records.published_tables import TABLES

    records = published_records()
    again = [prefill_only(record) for record in records if record.id.startswith("lambda-")]
    scores = score([*records, *again], hardware, jobs=jobs, progress=progress, predict=predict)
    by_id = {item.record.id: item for item in scores}
    tables = tuple(_explained(build(by_id)) for build in TABLES)
    stale = [v.what for t in tables for v in t.verdicts if v.passed and v.what in known_misses()]
    shipped = tuple(item for item in scores if "#" not in item.record.id)
    return PublishedReport(tables, shipped, tuple(stale))


@lru_cache(maxsize=1)
def known_misses() -> dict[str, str]:
    """Limits that honest constants do not reach, and why."""
    text = resources.files("moeplan.records").joinpath("published_misses.json").read_text("utf-8")
    return {row["what"]: row["reason"] for row in json.loads(text)["rows"]}


def _explained(table: PublishedTable) -> PublishedTable:
    """The table with the reasons on file beside the limits that do not hold."""
    verdicts = tuple(
        v if v.passed else replace(v, reason=known_misses().get(v.what)) for v in table.verdicts
    )
    return replace(table, verdicts=verdicts)


def prefill_only(record: RunRecord) -> RunRecord:
    """The same run on a scheduler whose steps carry either prefill or decode."""
    settings = record.settings.model_copy(update={"mixed_prefill": False})
    return record.model_copy(update={"id": record.id + PREFILL_ONLY, "settings": settings})


TableBuilder = Callable[[dict[str, RecordScore]], PublishedTable]


def rows_of(
    scores: Iterable[RecordScore],
    metrics: Sequence[str],
    counted: Callable[[RecordScore], bool] = lambda _: True,
) -> list[PublishedRow]:
    """Rows of these metrics, where a record has them."""
    return [
        PublishedRow(
            item.record.id,
            name,
            item.metrics[name].measured,
            item.metrics[name].predicted.value,
            counted(item),
        )
        for item in scores
        for name in metrics
        if name in item.metrics
    ]
