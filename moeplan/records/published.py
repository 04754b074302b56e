"""The seed rows that ship with moeplan, and the report on how well they are predicted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from moeplan.hardware_specs import Hardware
from moeplan.records.annotations import with_facts
from moeplan.records.constants import UsedConstant, constants_used
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
    constants: tuple[UsedConstant, ...] = ()
    """Every number that the predictions use."""
    stale_reasons: tuple[str, ...] = ()
    """Limits with a reason on file that hold all the same."""

    @property
    def passed(self) -> bool:
        """Whether every limit of every table holds."""
        return all(table.passed for table in self.tables)

    @property
    def faults(self) -> list[str]:
        """What must not be: misses and constants that nothing excuses, excuses for nothing."""
        missed = [v for table in self.tables for v in table.verdicts if not (v.passed or v.reason)]
        circular = [constant for constant in self.constants if constant.rests_on]
        return [
            *(f"{v.what}: {v.figure:.3f} misses {v.limit!r} without a reason" for v in missed),
            *(f"{what}: holds, yet has a reason for a miss" for what in self.stale_reasons),
            *(f"constant {c.address} rests on {c.rests_on} alone" for c in circular),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "tables": [asdict(table) for table in self.tables],
            "passed": self.passed,
            "faults": self.faults,
            "constants": [asdict(constant) for constant in self.constants],
        }


def _files(folder: Traversable) -> list[Traversable]:
    files = (file for file in folder.iterdir() if file.name.endswith(".jsonl"))
    return sorted(files, key=lambda file: file.name)


def published_records() -> list[RunRecord]:
    """The rows of other people's runs that ship with moeplan."""
    folder = resources.files("moeplan.records").joinpath("published")
    return [with_facts(record) for record in shipped_rows(folder)]


def shipped_rows(folder: Traversable) -> list[RunRecord]:
    """Records of a folder in the package; a malformed one would be a packaging fault."""
    records: list[RunRecord] = []
    for file in _files(folder):
        found = read_lines(file.read_bytes().splitlines(), f"{folder.name}/{file.name}")
        if found.problems:
            raise ValueError(f"damaged installation: {found.problems[0]}")
        records += found.records
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
    constants = tuple(constants_used(records, hardware))
    return PublishedReport(tables, shipped, constants, tuple(stale))


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
