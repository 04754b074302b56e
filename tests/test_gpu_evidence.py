"""The measured evidence and its reader: step periods, routing checks, what may be scored."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from moeplan.validate.gpu import summarise
from moeplan.validate.gpu.steps import read_steps, spread, steady_decodes

EVIDENCE = Path(__file__).parents[1] / "validate" / "evidence" / "2026-11-27-h100"


def _line(scheduled: float, returned: float, decodes: int, chunks: list[list[int]]) -> str:
    step = {"d": decodes, "c": 10 * decodes, "p": chunks, "s": scheduled, "u": returned, "pre": 0}
    return json.dumps(step) + "\n"


def _evidence(name: str) -> list[dict]:
    return [json.loads(line) for line in (EVIDENCE / f"{name}.jsonl").read_text().splitlines()]


def test_period_counts_from_the_step_before_unless_the_engine_was_idle(tmp_path):
    path = tmp_path / "steps.jsonl"
    path.write_text(_line(1.0, 2.0, 0, [[64, 0]]) + _line(1.5, 3.0, 1, []) + _line(9.0, 9.5, 1, []))
    assert [step.period for step in read_steps(path)] == [1.0, 1.0, 0.5]


def test_an_unfinished_last_line_is_dropped(tmp_path):
    path = tmp_path / "steps.jsonl"
    path.write_text(_line(1.0, 2.0, 1, []) + '{"d": 1, "c"')
    assert len(read_steps(path)) == 1


def test_steady_decodes_drop_the_first_and_those_with_prefill(tmp_path):
    path = tmp_path / "steps.jsonl"
    mixed = _line(0.0, 0.5, 2, [[8, 0]])
    path.write_text(mixed + "".join(_line(i, i + 0.9, 2, []) for i in range(1, 7)))
    assert [step.scheduled for step in steady_decodes(read_steps(path), 2)] == [4, 5, 6]


def test_spread_of_nothing_is_refused():
    with pytest.raises(ValueError, match="empty"):
        spread([])


def test_expected_distinct_experts_in_closed_cases():
    assert summarise.expected_distinct(8, [1.0] * 2 + [0.0] * 6, 50) == 2
    assert summarise.expected_distinct(128, [8 / 128] * 128, 1) == pytest.approx(8)


def test_uniform_checks_touch_what_independent_uniform_picks_touch():
    checks = [c for c in _evidence("routing") if c["routing"] == "uniform" and c["calls"] >= 46]
    assert {c["model"] for c in checks} >= {"gpt-oss-120b", "gpt-oss-20b", "qwen3-30b-a3b"}
    for check in checks:
        assert check["distinct_mean"] == pytest.approx(check["uniform_expected"], rel=0.035)
        assert check["non_finite_logits"] == 0


def test_scored_moe_points_are_lone_sequences_and_claim_decode_only():
    for run in _evidence("runs"):
        if run["architecture"] != "llama-3.1-8b":
            assert run["workload"]["concurrency"] == 1
            assert not any(name.startswith(("ttft", "output")) for name in run["measured"])


def test_steps_grow_with_the_batch():
    steps = [s for s in _evidence("steps") if s["kind"] == "decode" and s["mean_context"] < 300]
    for engine in {(s["model"], s["format"], s["routing"]) for s in steps}:
        mine = [s for s in steps if (s["model"], s["format"], s["routing"]) == engine]
        times = [s["seconds"] for s in sorted(mine, key=lambda s: s["decodes"])]
        assert all(later > 0.99 * earlier for earlier, later in pairwise(times))
