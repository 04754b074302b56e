"""Runs that moeplan's validator served: made from their archives, shown, and kept apart."""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import gettempdir

import pytest
from typer.testing import CliRunner

from moeplan.cli import app
from moeplan.estimate import Estimate
from moeplan.records.compare import Comparison
from moeplan.records.matching import same_deployment
from moeplan.records.near import in_flight, known_records, near, traffic_of
from moeplan.records.published import published_records
from moeplan.records.report import statistics_of
from moeplan.records.residuals import residuals
from moeplan.records.score import RecordScore
from moeplan.records.served import is_served, served_records
from moeplan.validate.records import archived_records

ROOT = Path(__file__).parents[1]
DEPLOYMENT = {
    "model": "gpt-oss-120b",
    "checkpoint": {"name": "mxfp4"},
    "device": "h100_sxm",
    "placement": {"tp": 1, "pp": 1, "replicas": 1, "ep": False},
    "engine": {"name": "vllm"},
}
TRAFFIC = {"input_tokens": 1024, "output_tokens": 128, "arrivals": "closed", "concurrency": 32}


def answered(*arguments: str) -> dict:
    found = CliRunner().invoke(app, [*arguments, "--json"])
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout)


@pytest.mark.slow
def test_the_files_are_what_the_archives_hold():
    made = [sys.executable, ROOT / "docs" / "make_served.py", "--check"]
    done = subprocess.run(made, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_record_says_how_it_was_made():
    assert len(served_records()) >= 50
    for record in served_records():
        assert is_served(record)
        assert record.source.path.startswith("validate/evidence/")
        assert "dummy weights, routing counted" in record.notes or not record.engine_facts.routing
        assert record.engine_facts.version == record.engine.version
        assert record.engine_facts.kv_cache_tokens == record.measured["kv_cache_tokens"]
        assert not record.engine_facts.other  # paths and ports of a host
        sizes = record.settings.cudagraph_capture_sizes
        assert list(sizes) == record.engine_facts.cuda_graph_sizes
        assert record.notes.startswith("1 repeat;") or " repeats, throughput ±" in record.notes


def test_archives_are_named_without_the_folders_that_they_were_unpacked_in():
    archive = ROOT / "validate" / "evidence" / "2026-11-27-h200" / "runs.tar.xz"
    records, problems = archived_records(archive, "place")
    assert problems
    assert not any(gettempdir() in problem for problem in problems)
    counted = {r.engine_facts.routing.sigma for r in records if r.engine_facts.routing}
    assert counted
    assert all(0.7 < sigma < 0.9 for sigma in counted)  # drawn with 0.8


def test_they_are_no_published_rows():
    published = {record.id for record in published_records()}
    assert not any(is_served(record) for record in published_records())
    assert not published & {record.id for record in served_records()}
    assert len(known_records()) == len(published) + len(served_records())
    assert not any("moeplan" in row.source.lower() for row in residuals())


def test_near_runs_are_told_apart_by_deployment_and_traffic():
    found = near(known_records(), DEPLOYMENT, TRAFFIC)
    assert {traffic_of(record) for record in found.same} == {(1024, 128, "closed")}
    assert 32 in map(in_flight, found.same)
    assert all(r.parallelism.tp == 1 for r in (*found.same, *found.other))
    assert found.other
    assert found.spread["TP2"] >= 4
    assert near(known_records(), DEPLOYMENT | {"device": "l40s"}, TRAFFIC).spread == {}


def test_simulate_shows_them_with_the_load_that_was_asked_first():
    options = ("--device", "h100_sxm", "--gpus", "1", "--input", "1024", "--output", "128")
    data = answered("simulate", "gpt-oss-120b", *options, "--concurrency", "32")["measured_runs"]
    first = data["same_traffic"][0]
    assert (first["load"], first["load_unit"]) == (32, "in flight")
    assert first["source"] == "moeplan validate"
    assert data["other_traffic"]["runs"] >= 1


def test_explain_shows_runs_of_as_many_sequences():
    options = ("--device", "h100_sxm", "--batch", "32", "--context", "1100")
    data = answered("explain", "gpt-oss-120b", *options)["measured_runs"]
    assert {row["load"] for row in data["same_batch"]} == {32}


def test_explain_of_prefill_alone_calls_no_run_alike():
    options = ("--device", "h100_sxm", "--batch", "0", "--prefill", "1024")
    data = answered("explain", "gpt-oss-120b", *options)["measured_runs"]
    assert data["same_batch"] == []
    assert data["other_traffic"]["runs"] >= 1


def test_runs_of_another_engine_are_not_near():
    found = near(known_records(), DEPLOYMENT | {"engine": {"name": "sglang"}}, TRAFFIC)
    assert not any(record.engine.name == "vllm" for record in (*found.same, *found.other))
    ours = next(record for record in served_records() if same_deployment(record, DEPLOYMENT))
    theirs = ours.model_copy(
        update={"engine": ours.engine.model_copy(update={"name": "sglang"})},
    )
    assert near([ours, theirs], DEPLOYMENT, TRAFFIC).same == [ours]


def test_a_deployment_that_nobody_measured_is_said_to_be_so():
    arguments = ["simulate", "mixtral-8x7b", "--device", "h200", "--gpus", "2", "--tp", "2"]
    printed = CliRunner().invoke(app, [*arguments, "--output", "4"]).stdout
    assert f"None of {len(known_records())} known measured runs" in printed


@pytest.mark.parametrize("more", [["--published"], ["runs.jsonl"]])
def test_their_score_stands_alone(more):
    found = CliRunner().invoke(app, ["score", "--served", *more])
    assert found.exit_code == 2
    assert "stands alone" in found.stderr


def test_memory_counts_once_an_engine():
    engines = {}
    for record in served_records():
        figures = record.measured["kv_cache_tokens"], record.measured["weights_gib"]
        placed = record.model, record.weight_format, record.hardware, record.gpus
        engines.setdefault((placed, figures), record)
    guess = Estimate(1.0, "interpolated")
    scores = [
        RecordScore(record, True, metrics={
            "kv_cache_tokens": Comparison(record.measured["kv_cache_tokens"], guess),
            "output_tok_s": Comparison(record.measured["output_tok_s"], guess),
        })
        for record in served_records()
    ]  # fmt: skip
    found = statistics_of(scores, "everything")
    assert found["kv_cache"].n == len(engines)
    assert found["throughput"].n == len(scores)


@pytest.mark.slow
def test_their_score_covers_them():
    from moeplan.hardware_specs import load_hardware
    from moeplan.records.score import score

    few = [record for record in served_records() if "c8-" in record.id and "120b" in record.id]
    assert few
    for item in score(few, load_hardware(), jobs=1):
        assert item.covered, item.reason
        assert item.metrics["output_tok_s"].error < 0.25
