"""Run records: what is accepted, and how a malformed line is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moeplan.errors import RecordError
from moeplan.records.reader import read_many, read_records, write_records
from moeplan.records.record import parse_record


def minimal(**changes: object) -> dict:
    record: dict = {
        "id": "a",
        "source": {"title": "test"},
        "engine": {"name": "vllm", "version": "0.26.0"},
        "model": "openai/gpt-oss-120b",
        "architecture": "gpt-oss-120b",
        "weight_format": "mxfp4",
        "hardware": "h100_sxm",
        "gpus": 1,
        "workload": {
            "mode": "closed_loop",
            "input_tokens": 1024,
            "output_tokens": 128,
            "concurrency": 4,
        },
        "measured": {"output_tok_s": 300.0},
    }
    record.update(changes)
    return record


def lines(path: Path, *items: object) -> Path:
    text = [item if isinstance(item, str) else json.dumps(item) for item in items]
    path.write_text("\n".join(text) + "\n", encoding="utf-8")
    return path


def test_what_a_source_does_not_say_is_none() -> None:
    record = parse_record(json.dumps(minimal()), "x:1")
    assert record.kv_cache_format is None
    assert record.parallelism.tp == 1
    assert record.workload.num_prompts is None
    assert record.origin == "measured"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"gpus": "8"}, "gpus"),
        ({"gpus": 0}, "gpus"),
        ({"gpus": True}, "gpus"),
        ({"hardwear": "h200"}, "hardwear"),
        ({"engine": {"name": "llama.cpp"}}, "engine.name"),
        ({"measured": {"tpot_ms_mean": -1}}, "measured.tpot_ms_mean"),
        ({"measured": {"tpot_ms_mean": float("nan")}}, "measured.tpot_ms_mean"),
        ({"measured": {"TPOT mean": 1.0}}, "measured"),
        ({"source": {"title": "t", "date": "March 2026"}}, "source.date"),
        ({"workload": {"mode": "closed_loop", "input_tokens": 8}}, "workload.output_tokens"),
        (
            {"workload": {**minimal()["workload"], "length_range": [1.2, 0.8]}},
            "workload.length_range",
        ),
        ({"workload": {**minimal()["workload"], "request_rate": "fast"}}, "request_rate"),
    ],
)
def test_a_wrong_field_is_named(changes: dict, field: str) -> None:
    with pytest.raises(RecordError) as caught:
        parse_record(json.dumps(minimal(**changes)), "runs.jsonl:7")
    assert str(caught.value).startswith("runs.jsonl:7: ")
    assert field in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_metrics_are_kept() -> None:
    record = parse_record(json.dumps(minimal(measured={"input_tok_s": 5})), "x:1")
    assert record.measured == {"input_tok_s": 5.0}


def test_malformed_lines_are_named_and_the_rest_is_used(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "runs.jsonl",
        minimal(id="one"),
        "{not json",
        "",
        minimal(id="two", gpus=-1),
        '["a list"]',
        minimal(id="one"),
        minimal(id="three"),
    )
    found = read_records(path)
    assert [record.id for record in found.records] == ["one", "three"]
    assert [p.split(": ")[0] for p in found.problems] == [f"{path}:{n}" for n in (2, 4, 5, 6)]
    assert "gpus" in found.problems[1]
    assert f"already at {path}:1" in found.problems[3]


def test_bytes_that_are_no_text_are_a_problem_of_their_line(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_bytes(b"\xff\xfe{}\n" + json.dumps(minimal()).encode() + b"\n")
    found = read_records(path)
    assert len(found.records) == 1
    assert found.problems[0].startswith(f"{path}:1: ")


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"nowhere\.jsonl"):
        read_records(tmp_path / "nowhere.jsonl")


def test_ids_are_unique_across_files(tmp_path: Path) -> None:
    one = lines(tmp_path / "one.jsonl", minimal(id="same"))
    two = lines(tmp_path / "two.jsonl", minimal(id="same"), minimal(id="other"))
    found = read_many([one, two])
    assert [record.id for record in found.records] == ["same", "other"]
    assert len(found.problems) == 1


def test_written_records_read_back_alike(tmp_path: Path) -> None:
    record = parse_record(
        json.dumps(
            minimal(
                speculative={"method": "mtp", "draft_tokens": 3},
                parallelism={"tp": 2, "router": None},
                engine_facts={"kv_cache_tokens": 1000, "other": {"log": "x"}},
            )
        ),
        "x:1",
    )
    write_records(tmp_path / "out.jsonl", [record])
    assert read_records(tmp_path / "out.jsonl").records == [record]
