"""Reading of foreign JSON: nested fields with errors that name file and field."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from moeplan.errors import RecordError
from moeplan.records.record import RunRecord, describe

Json = dict[str, Any]


def load_json(path: Path) -> Any:
    """The JSON value in a file; raises `RecordError` naming file, line and column."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise RecordError(
            f"{path}: {error.strerror}; give a result file of a load generator"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: no JSON ({error}); give the tool's JSON output") from None


def dig(value: Any, path: str) -> Any:
    """`value["a"]["b"]` for the path "a.b", None where a part is missing."""
    for key in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def first(value: Any, paths: Iterable[str]) -> Any:
    """The first of several paths that leads to something."""
    return next((found for path in paths if (found := dig(value, path)) is not None), None)


def number(value: Any, path: str, where: str) -> float | None:
    """A finite number at a path, None where missing; `RecordError` for anything else."""
    found = dig(value, path)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise RecordError(f"{where}: {path} is {found!r}; it must be a finite number")
    return float(found)


def count(value: Any, path: str, where: str) -> int | None:
    """A whole number of at least 1 at a path, None where missing."""
    found = number(value, path, where)
    if found is None:
        return None
    if found < 1 or found != int(found):
        raise RecordError(f"{where}: {path} is {found!r}; it must be a whole number above 0")
    return int(found)


def required(value: Any, path: str, where: str) -> float:
    """A finite number above 0 that the format promises."""
    found = number(value, path, where)
    if found is None or found <= 0:
        given = "missing" if found is None else repr(found)
        raise RecordError(f"{where}: {path} is {given}; the format has a number above 0 there")
    return found


def collect(pairs: Iterable[tuple[str, float | None]]) -> dict[str, float]:
    """Metrics that the tool gives."""
    return {name: value for name, value in pairs if value is not None}


def build(fields: Json, known: Mapping[str, Any], where: str) -> RunRecord:
    """A record from what the result says and what the caller knows; the caller's word wins."""
    merged = {**fields, **{key: value for key, value in known.items() if value is not None}}
    try:
        return RunRecord.model_validate(merged)
    except ValidationError as error:
        raise RecordError(f"{where}: {describe(error)}") from None


def mode_of(concurrency: int | None, rate: float | str | None) -> str:
    """Kind of arrivals: a client cap without a rate is a closed loop."""
    if concurrency and rate in (None, "inf"):
        return "single_stream" if concurrency == 1 else "closed_loop"
    return "open_loop"
