"""Reads recorded workloads: one JSON object a line, as vLLM's `timed_trace` data set takes them."""

from __future__ import annotations

import json
from pathlib import Path

from moeplan.errors import InputError, RecordError
from moeplan.simulation.workload import TraceRow

_FIELDS = ("timestamp", "input_length", "output_length", "hash_ids")


def read_trace(path: Path | str) -> tuple[TraceRow, ...]:
    """Rows of a JSONL trace: `timestamp` (s), `input_length`, `output_length`, `hash_ids`.

    Other fields are ignored, empty lines too. Raises RecordError with file, line and field.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: cannot read the trace ({error})") from None
    lines = enumerate(text.splitlines(), start=1)
    rows = tuple(_row(path, number, line) for number, line in lines if line.strip())
    if not rows:
        raise RecordError(f"{path}: the trace holds no request")
    return rows


def _row(path: Path, number: int, line: str) -> TraceRow:
    where = f"{path}, line {number}"
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise RecordError(f"{where}: not JSON ({error.msg})") from None
    if not isinstance(row, dict):
        raise RecordError(f"{where}: expected an object with {', '.join(_FIELDS)}")
    for field in _FIELDS[:3]:
        if field not in row:
            raise RecordError(f"{where}: {field} is missing")
    try:
        return TraceRow(**{name: row[name] for name in _FIELDS if name in row})
    except InputError as error:
        raise RecordError(f"{where}: {error}") from None
