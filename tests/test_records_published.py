"""The published tables: what they judge, and that every limit holds or has its reason on file."""

from __future__ import annotations

from typing import Any

import pytest

from moeplan.estimate import Estimate
from moeplan.hardware_specs import load_hardware
from moeplan.records.compare import Comparison
from moeplan.records.published import known_misses, published_records, published_report
from moeplan.records.published_tables import (
    kaletoai_table,
    kubis_table,
    lambda_table,
    rtx6kpro_table,
)
from moeplan.records.record import RunRecord
from moeplan.records.score import RecordScore

RECORDS = {record.id: record for record in published_records()}


def perfect() -> dict[str, RecordScore]:
    """Every shipped row predicted as measured."""
    return {name: _scored(record, {}) for name, record in RECORDS.items()}


def _scored(record: RunRecord, factors: dict[str, float]) -> RecordScore:
    metrics = {
        name: Comparison(value, Estimate(value * factors.get(name, 1.0), "interpolated"))
        for name, value in record.measured.items()
    }
    return RecordScore(record, True, None, metrics)


def off_by(pattern: str, **factors: float) -> dict[str, RecordScore]:
    """Perfect but for the rows whose id contains the pattern."""
    return {name: _scored(RECORDS[name], factors if pattern in name else {}) for name in RECORDS}


def failed(table: Any) -> list[str]:
    return [verdict.what for verdict in table.verdicts if not verdict.passed]


def test_shipped_rows() -> None:
    assert len(RECORDS) == 101
    assert sum(name.startswith("lambda-") for name in RECORDS) == 5
    assert RECORDS["gb10-behemoth123b-cutlass-short"].measured["kv_pool_gib"] == 42.9
    assert all(record.speculative is None for record in RECORDS.values())


@pytest.mark.parametrize(
    "build", [lambda_table, kubis_table, kaletoai_table, rtx6kpro_table], ids=lambda f: f.__name__
)
def test_a_perfect_prediction_passes_and_none_at_all_fails(build: Any) -> None:
    assert failed(build(perfect())) == []
    assert failed(build({})) == [verdict.what for verdict in build({}).verdicts]


def test_lambda_judges_the_sum_and_not_the_split() -> None:
    shifted = off_by("lambda", ttft_ms_mean=0.6)
    assert "TTFT + 1023 × ITL" not in failed(lambda_table(shifted))
    slow = off_by("lambda", itl_ms_mean=1.2)
    assert failed(lambda_table(slow)) == ["TTFT + 1023 × ITL"]


def test_lambda_wants_nvfp4_above_fp8() -> None:
    swapped = off_by("2-x-nvfp4", output_tok_s=0.88)
    assert failed(lambda_table(swapped)) == ["NVFP4 / FP8 on 2×B200, predicted"]


def test_kubis_judges_gain_and_order() -> None:
    slow_links = off_by("-tp2-c1", decode_tok_s=0.8)
    wrong = failed(kubis_table(slow_links))
    assert [what for what in wrong if what.startswith("TP=2 gain")]
    reversed_order = off_by("-tp2-", decode_tok_s=0.7)
    assert "cells with the topologies in order" in failed(kubis_table(reversed_order))


def test_kubis_does_not_judge_the_router_that_used_one_box() -> None:
    assert failed(kubis_table(off_by("-least-", decode_tok_s=3.0))) == []


def test_each_kaletoai_figure_counts_alone() -> None:
    off = off_by("behemoth123b-marlin-short", decode_tok_s=0.85)
    assert failed(kaletoai_table(off)) == ["gb10-behemoth123b-marlin-short: decode_tok_s"]
    assert failed(kaletoai_table(off_by("2.6k", decode_tok_s=2.0))) == []


def test_rtx6kpro_takes_the_median() -> None:
    assert failed(rtx6kpro_table(off_by("ctx0-c1", decode_tok_s=2.0))) == []
    assert failed(rtx6kpro_table(off_by("ctx0", decode_tok_s=1.3))) == ["decode tok/s"]


@pytest.mark.slow
def test_every_limit_holds_or_has_its_reason_on_file() -> None:
    report = published_report(load_hardware(), jobs=2)
    assert all(item.covered for item in report.scores)
    missed = {
        verdict.what: verdict.figure
        for table in report.tables
        for verdict in table.verdicts
        if not verdict.passed
    }
    assert {what: figure for what, figure in missed.items() if what not in known_misses()} == {}
    assert report.stale_reasons == ()
