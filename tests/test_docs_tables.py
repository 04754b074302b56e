"""The tables of docs/accuracy.md: each place has its table, and only their places change."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from moeplan.estimate import Estimate
from moeplan.records.compare import Comparison
from moeplan.records.published import published_records
from moeplan.records.report import make_report
from moeplan.records.score import RecordScore

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_tables", DOCS / "make_tables.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def measured(tables: ModuleType) -> dict[str, str]:
    """Tables of a score of three records, one of them not predicted."""
    first, second, third = published_records()[:3]
    found = {"decode_tok_s": Comparison(100.0, Estimate(110.0, "interpolated"))}
    report = make_report(
        [
            RecordScore(first, True, None, found),
            RecordScore(second, True, None, found),
            RecordScore(third, False, "a reason"),
        ],
        by=["hardware", "architecture", "concurrency", "drafts"],
    )
    return tables.measured_tables(json.loads(json.dumps(report.to_json("0"))))


def test_only_marked_places_change(tables: ModuleType) -> None:
    text = "a\n<!-- table x -->\nold\n<!-- end -->\nb\n<!-- table y -->\nkept\n<!-- end -->\n"
    new = tables.with_tables(text, {"x": "| new |", "z": "| nowhere |"})
    assert new == text.replace("old", "| new |")
    assert tables.block_names(text) == ["x", "y"]


def test_measured_tables_say_what_the_report_says(measured: dict[str, str]) -> None:
    assert "| predicted | 2 (67%) |" in measured["measured-coverage"]
    assert "| not: a reason | 1 |" in measured["measured-coverage"]
    assert "| decode rate | 2 | 10.0% | 10.0% | +0.095 | 2 |" in measured["measured-all"]
    assert "10% / 10% (2)" in measured["measured-device-everything"]


def test_every_place_of_the_document_is_filled(
    tables: ModuleType, measured: dict[str, str]
) -> None:
    text = (DOCS / "accuracy.md").read_text(encoding="utf-8")
    names = tables.block_names(text)
    assert len(names) == len(set(names))
    assert set(measured) <= set(names)
    for part in text.split("<!-- table ")[1:]:
        assert part.partition("<!-- end -->")[0].count("\n| ") > 1, part[:40]


@pytest.mark.slow
def test_shipped_tables_are_up_to_date(tables: ModuleType) -> None:
    assert tables.main(["--check"]) == 0
