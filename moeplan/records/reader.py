"""Records in JSON Lines files: reading what is well-formed, naming what is not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from moeplan.errors import RecordError
from moeplan.records.record import RunRecord, parse_record


@dataclass(frozen=True, slots=True)
class RecordFile:
    """What a file held: the records, and one line of text for each malformed line."""

    records: list[RunRecord]
    problems: list[str]


def read_records(path: str | Path) -> RecordFile:
    """Records of a JSON Lines file. A malformed or repeated line is named and skipped.

    Raises `RecordError` where the file cannot be read at all.
    """
    return read_lines(_lines(Path(path)), str(path))


def read_many(paths: Iterable[str | Path]) -> RecordFile:
    """`read_records` of several files, as if they were one."""
    records: list[RunRecord] = []
    problems: list[str] = []
    seen: dict[str, str] = {}
    for path in paths:
        _collect(_lines(Path(path)), str(path), records, problems, seen)
    return RecordFile(records, problems)


def read_lines(lines: Iterable[bytes], name: str) -> RecordFile:
    """Records of the lines of an open file called `name`."""
    records: list[RunRecord] = []
    problems: list[str] = []
    _collect(lines, name, records, problems, {})
    return RecordFile(records, problems)


def write_records(path: str | Path, records: Iterable[RunRecord]) -> None:
    """Append records to a JSON Lines file, leaving out what is not said."""
    with open(path, "a", encoding="utf-8") as stream:
        stream.writelines(map(record_line, records))


def record_line(record: RunRecord) -> str:
    """A record as a line of such a file, without what is not said."""
    return record.model_dump_json(exclude_none=True, exclude_defaults=True) + "\n"


def _lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().splitlines()
    except OSError as error:
        raise RecordError(
            f"{path}: {error.strerror}; give a JSON Lines file of run records"
        ) from None


def _collect(
    lines: Iterable[bytes],
    name: str,
    records: list[RunRecord],
    problems: list[str],
    seen: dict[str, str],
) -> None:
    """Append the records and problems of `lines`; `seen` maps an id to where it first stood."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            record = parse_record(line, where)
        except RecordError as error:
            problems.append(str(error))
            continue
        if record.id in seen:
            problems.append(f"{where}: id: {record.id!r} stands already at {seen[record.id]}")
            continue
        seen[record.id] = where
        records.append(record)
