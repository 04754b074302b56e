"""Runs that moeplan's own validator served on real GPUs; they ship beside the published ones.

They are no independent evidence: kernel tables and a shipped calibration rest on some of them, and
their weights are dummies, with routers whose choice of experts was counted. So they stand apart
from the published rows: no score, interval or constant of those looks at them.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources

from moeplan.records.published import shipped_rows
from moeplan.records.record import RunRecord

SERVED_BY = "moeplan validate"
"""Title of their source."""


@lru_cache(maxsize=1)
def served_records() -> tuple[RunRecord, ...]:
    """All of them, archive by archive; `docs/make_served.py` writes their files."""
    folder = resources.files("moeplan.records").joinpath("served")
    return tuple(shipped_rows(folder))


def is_served(record: RunRecord) -> bool:
    """Whether a record tells of a run of the validator, of this package or of the user."""
    return record.source.title == SERVED_BY
