"""Which engine version a record means."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from importlib import resources

from moeplan.records.record import RunRecord

_NUMBER = re.compile(r"(?:^v?|\()(\d+)\.(\d+)(?:\.(\d+|x))?")


@lru_cache(maxsize=1)
def _releases() -> dict[str, list[tuple[str, str]]]:
    text = resources.files("moeplan.records").joinpath("releases.json").read_text("utf-8")
    return {
        engine: [(date, ".".join(version.split(".")[:3])) for date, version in rows]
        for engine, rows in json.loads(text)["releases"].items()
    }


def engine_version(record: RunRecord) -> tuple[str, str | None]:
    """Version as "major.minor.patch", and the rule used where the source does not say it plainly.

    A number counts where the text or a bracket in it begins; vLLM's 0.1.dev builds carry none.
    Otherwise the newest release at the source's date, or of all where the source has no date.
    """
    said = record.engine.version or ""
    found = None if said.startswith("0.1.dev") else _NUMBER.search(said)
    if found:
        plain = _plain(found)
        return plain, None if said == plain else f"engine version: {said!r} read as {plain}"
    return _newest(record)


def _plain(found: re.Match[str]) -> str:
    major, minor, patch = found.groups()
    return f"{major}.{minor}.{patch if patch and patch != 'x' else 0}"


def _newest(record: RunRecord) -> tuple[str, str]:
    """Newest release before the source's date; dates are listed to the half month."""
    rows = _releases()[record.engine.name]
    date = record.source.date
    if date is None:
        version = rows[-1][1]
        return version, f"engine version: newest release {version}, the source has no date"
    # A month or year alone means its end, so that the release of that month counts.
    end = date if len(date) == 10 else date + "-99"
    before = [version for listed, version in rows if listed <= end]
    version = before[-1] if before else rows[0][1]
    return version, f"engine version: newest release at {date}, {version}"
