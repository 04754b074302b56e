"""Scores and their statistics: figures worked out by hand, and the JSON that others read."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from moeplan.errors import DeploymentError, UnknownNameError
from moeplan.estimate import Estimate
from moeplan.hardware_specs import load_hardware
from moeplan.records.annotations import doubts_about, is_doubted
from moeplan.records.compare import Comparison
from moeplan.records.prediction import Outcome
from moeplan.records.published import published_records
from moeplan.records.record import RunRecord
from moeplan.records.report import make_report, statistics
from moeplan.records.score import RecordScore, score
from moeplan.simulation.result import SimulationResult
from moeplan.simulation.workload import Workload

HARDWARE = load_hardware()


def record(name: str, **changes: Any) -> RunRecord:
    fields: dict[str, Any] = {
        "id": name,
        "source": {"title": "test"},
        "engine": {"name": "vllm", "version": "0.26.0"},
        "tool": "vllm bench serve",
        "model": "openai/gpt-oss-20b",
        "architecture": "gpt-oss-20b",
        "weight_format": "mxfp4",
        "hardware": "h100_sxm",
        "gpus": 1,
        "workload": {
            "mode": "closed_loop",
            "input_tokens": 100,
            "output_tokens": 11,
            "concurrency": 1,
            "num_prompts": 2,
        },
        "measured": {"ttft_ms_mean": 400.0},
    }
    return RunRecord.model_validate({**fields, **changes})


def half_a_second(_: object, workload: Workload) -> Outcome:
    """Two requests, TTFT 0.5 s, 10 ms a token."""
    sent = np.array([0.0, 0.6])
    zeros = np.zeros(2, int)
    result = SimulationResult(
        arrival_s=sent,
        sent_s=sent,
        first_token_s=sent + 0.5,
        finish_s=sent + 0.6,
        input_tokens=np.array([100, 100]),
        output_tokens=np.array([11, 11]),
        preemptions=zeros,
        prefix_hit_tokens=zeros,
        replica=zeros,
        gaps_s=np.array([0.01]),
        gap_counts=np.array([20]),
        token_times_s=np.array([0.5, 1.1]),
        token_counts=np.array([11, 11]),
        workload=workload,
    )
    return Outcome(result, 1000.0, 10.0, 5.0, "interpolated")


def against(predicted: float, measured: float, low: Any = None, high: Any = None) -> Comparison:
    return Comparison(measured, Estimate(predicted, "interpolated", low, high))


def test_statistics_by_hand() -> None:
    found = statistics([against(110, 100), against(80, 100), against(100, 100), against(150, 100)])
    assert found.n == 4
    assert found.median_error == pytest.approx(0.15)  # of 0, 0.1, 0.2, 0.5
    assert found.p90_error == pytest.approx(0.2 + 0.7 * 0.3)  # 0.9 × 3 = 2.7 steps
    assert found.bias == pytest.approx((math.log(1.0) + math.log(1.1)) / 2)
    assert found.inside is None
    assert found.median_width is None


def test_interval_coverage_and_width() -> None:
    found = statistics([against(100, 95, 90, 110), against(100, 130, 80, 120), against(100, 100)])
    assert found.inside == pytest.approx(0.5)
    assert found.median_width == pytest.approx(0.3)


def test_score_compares_and_counts_reasons() -> None:
    records = [
        record("good"),
        record("fast", speculative={"method": "medusa"}),
        record("power", measured={"power_w": 300.0}),
    ]
    shares: list[float] = []
    scores = score(records, HARDWARE, predict=half_a_second, progress=shares.append)
    assert [item.record.id for item in scores] == ["good", "fast", "power"]
    assert scores[0].metrics["ttft_ms_mean"].log_ratio == pytest.approx(math.log(500 / 400))
    assert not scores[1].covered
    assert scores[1].reason == "speculative decoding by 'medusa'"
    assert scores[2].reason == "no metric that a simulation predicts"
    assert shares == pytest.approx([1 / 3, 2 / 3, 1.0])


def test_a_refused_deployment_is_counted_with_its_reason() -> None:
    def refuse(*_: object) -> Outcome:
        raise DeploymentError("the rule and the remedy")

    (found,) = score([record("a")], HARDWARE, predict=refuse)
    assert (found.covered, found.reason) == (False, "the rule and the remedy")


def test_a_fault_of_our_own_is_not_hidden() -> None:
    def broken(*_: object) -> Outcome:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        score([record("a")], HARDWARE, predict=broken)


def test_json_is_the_contract() -> None:
    scores = score(
        [record("a"), record("b", speculative={"method": "medusa"})],
        HARDWARE,
        predict=half_a_second,
    )
    report = make_report(scores, problems=["x.jsonl:3: gpus: wrong"], calibration="cal.json")
    out = json.loads(json.dumps(report.to_json("0.1.0"), allow_nan=False))
    assert set(out) == {"records", "summary", "version", "calibration"}
    first, second = out["records"]
    assert {"id", "covered", "reason", "metrics"} <= set(first)
    assert first["metrics"]["ttft_ms_mean"] == {
        "measured": 400.0,
        "predicted": pytest.approx(500.0),
        "low": None,
        "high": None,
    }
    assert (second["covered"], second["metrics"]) == (False, {})
    assert (out["version"], out["calibration"]) == ("0.1.0", "cal.json")
    summary = out["summary"]
    assert (summary["records"], summary["covered"]) == (2, 1)
    assert summary["not_covered"] == {"speculative decoding by 'medusa'": 1}
    assert summary["malformed"] == ["x.jsonl:3: gpus: wrong"]
    group = summary["groups"]["everything"]["hardware"]["h100_sxm"]["ttft"]
    assert group["n"] == 1
    assert group["median_error"] == pytest.approx(0.25)


def scored(name: str, metrics: dict[str, Comparison], **changes: Any) -> RecordScore:
    return RecordScore(record(name, **changes), True, None, metrics)


def test_groups_hold_one_metric_a_family_and_record() -> None:
    rates = {"output_tok_s": against(110, 100), "total_tok_s": against(300, 100)}
    report = make_report(
        [
            scored("a", rates),
            scored("b", {"total_tok_s": against(120, 100)}, hardware="h200"),
            RecordScore(record("c"), False, "why not"),
        ],
        by=["hardware", "concurrency"],
    )
    groups = report.groups()
    assert groups["all"]["all"]["throughput"].n == 2
    assert groups["hardware"]["h100_sxm"]["throughput"].median_error == pytest.approx(0.1)
    assert groups["hardware"]["h200"]["throughput"].median_error == pytest.approx(0.2)
    assert list(groups["concurrency"]) == ["1"]


def test_clean_view_leaves_doubted_figures_out_and_everything_keeps_them() -> None:
    names = {"tpot_ms_mean": against(2, 1), "ttft_ms_mean": against(3, 1)}
    report = make_report(
        [scored("inferencex-exp-h200-qwen3.5-x", names), scored("lambda-x", names)], by=[]
    )
    everything, clean = (report.groups(view)["all"]["all"] for view in ("everything", "clean"))
    assert everything["tpot"].n == everything["ttft"].n == 2
    assert clean == {}


def test_doubts_name_rows_metrics_and_versions() -> None:
    assert doubts_about(record("gpustack-x-vllm", engine={"name": "vllm", "version": "0.11.0"}))
    assert not doubts_about(record("gpustack-x-vllm", engine={"name": "vllm", "version": "0.17.1"}))
    prompt_only = record("rtxpro6000x2-vs-q35-122b-vllm-prefill8192")
    assert is_doubted(prompt_only, "ttft_ms_mean")
    assert not is_doubted(prompt_only, "decode_tok_s")


def test_an_unknown_group_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="hardware"):
        make_report([], by=["hardwear"])


def test_processes_find_what_one_process_finds() -> None:
    records = [item for item in published_records() if "vllm-ctx0" in item.id or "c1" in item.id]
    assert len(records) > 12
    alone = score(records, HARDWARE, jobs=1)
    shared = score(records, HARDWARE, jobs=2)
    assert [item.record.id for item in shared] == [item.id for item in records]
    assert [item.metrics for item in shared] == [item.metrics for item in alone]
    assert all(item.covered for item in shared)
