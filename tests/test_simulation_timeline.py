"""Runs over time: steps, requests and the trace that Perfetto opens."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from moeplan.cli import app
from moeplan.cli.session import read_hardware
from moeplan.cli.simulate import timeline_answer
from moeplan.cli.traffic import TrafficOptions
from moeplan.options import parse_options
from moeplan.scenario import Scenario
from moeplan.simulation.timeline import chrome_trace, lanes

spans = st.lists(
    st.tuples(st.floats(0, 100), st.floats(0.01, 50), st.integers(0, 2)), min_size=1, max_size=40
)


@given(spans)
def test_spans_of_a_lane_do_not_overlap(found):
    starts = [start for start, _, _ in found]
    ends = [start + length for start, length, _ in found]
    replicas = [replica for _, _, replica in found]
    by_lane = defaultdict(list)
    for lane, replica, span in zip(
        lanes(starts, ends, replicas), replicas, zip(starts, ends, strict=True), strict=True
    ):
        by_lane[replica, lane].append(span)
    for members in by_lane.values():
        members.sort()
        assert all(a[1] <= b[0] + 1e-6 for a, b in pairwise(members))


def test_lanes_are_as_few_as_spans_at_once():
    assert lanes([0, 1, 2, 3], [2, 3, 4, 5], [0, 0, 0, 0]) == [0, 1, 0, 1]
    assert lanes([0, 0], [1, 1], [0, 1]) == [0, 0]


def answer(**traffic):
    scenario = parse_options(Scenario, {"model": "qwen3-30b-a3b", "device": "h100_sxm",
                                        "tp": "1", "replicas": "2"})  # fmt: skip
    options = parse_options(TrafficOptions, {"input": "256", "output": "16"} | traffic)
    return timeline_answer(scenario, options, read_hardware(None), lambda _share: None)


def test_steps_compute_every_token_of_the_run():
    data = answer(concurrency="6", num_prompts="12")
    steps, requests = data["timeline"]["steps"], data["timeline"]["requests"]
    assert sum(steps["prefill_tokens"]) == sum(requests["input_tokens"])
    decoded = sum(tokens - 1 for tokens in requests["output_tokens"])
    assert sum(steps["decodes"]) == decoded
    assert steps["start_s"] == sorted(steps["start_s"])
    assert data["points"][0]["output_tok_s"].value > 0


def test_the_trace_holds_every_step_and_request():
    data = answer(concurrency="4", num_prompts="8")["timeline"]
    events = chrome_trace(data)["traceEvents"]
    kinds = Counter(event["name"] for event in events if event["ph"] == "X")
    steps = sum(kinds[name] for name in ("prefill", "decode", "mixed"))
    assert steps == len(data["steps"]["start_s"])
    assert kinds["to first token"] == 8
    assert {e["pid"] for e in events} == {0, 1}
    assert all(e["dur"] >= 0 for e in events if e["ph"] == "X")
    json.dumps(events, allow_nan=False)


def test_the_command_writes_the_trace_and_the_same_figures(tmp_path):
    arguments = ["simulate", "qwen3-30b-a3b", "--device", "h100_sxm", "--concurrency", "2",
                 "--num-prompts", "4", "--json"]  # fmt: skip
    plain = CliRunner().invoke(app, arguments)
    file = tmp_path / "t.json"
    traced = CliRunner().invoke(app, [*arguments, "--timeline", str(file)])
    assert json.loads(traced.stdout) == json.loads(plain.stdout)
    assert json.loads(file.read_text())["traceEvents"]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--concurrency", "1,2", "--timeline", "t.json"], "one load"),
        (["--timeline", "no/such/folder/t.json"], "no folder"),
    ],
)
def test_refusals_of_a_timeline(more, says):
    found = CliRunner().invoke(app, ["simulate", "qwen3-30b-a3b", "--device", "h100_sxm", *more])
    assert found.exit_code == 2
    assert says in found.stderr
