"""What single changes of a deployment bring, where curves cross, and what a task costs."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from moeplan.cli import app
from moeplan.cli.compare import Contender, parse_contender
from moeplan.errors import InputError
from moeplan.planner.crossover import crossovers
from moeplan.records.matching import same_deployment, same_lengths
from moeplan.records.published import published_records

positive = st.floats(0.1, 1000)


def printed(*arguments: str, code: int = 0):
    found = CliRunner().invoke(app, [*arguments, "--json"])
    assert found.exit_code == code, found.output
    return json.loads(found.stdout)


class TestChanges:
    STEP = ("explain", "qwen3-30b-a3b", "--device", "h100_sxm", "--gpus", "2", "--batch", "8",
            "--what-helps")  # fmt: skip

    def test_a_change_is_priced_as_the_changed_deployment_is(self):
        changes = {row["change"]: row for row in printed(*self.STEP)["changes"]}
        kv = printed(*self.STEP, "--kv", "fp8")
        assert changes["FP8 KV cache"]["step_seconds"] == kv["step_seconds"]
        single = printed(*self.STEP[:4], "--gpus", "1", *self.STEP[6:])
        assert changes["TP1"]["step_seconds"] == single["step_seconds"]
        assert (changes["TP1"]["gpus"], changes["TP4"]["gpus"]) == (1, 4)

    def test_the_fastest_change_comes_first_and_refused_ones_last(self):
        found = printed("explain", "llama-3.3-70b", "--device", "h100_sxm", "--gpus", "4",
                        "--batch", "4", "--what-helps")["changes"]  # fmt: skip
        seconds = [row["step_seconds"]["value"] for row in found if row["step_seconds"]]
        assert seconds == sorted(seconds)
        known = [row["step_seconds"] is not None for row in found]
        assert known == sorted(known, reverse=True)
        assert all(row["refused"] for row in found if row["step_seconds"] is None)

    def test_they_are_printed_only_when_asked_for(self):
        assert "changes" not in printed(*self.STEP[:-1])


class TestCoverage:
    def test_experts_grow_with_the_batch_up_to_all(self):
        found = printed(*TestChanges.STEP[:-1])["expert_coverage"]
        touched = [point["experts"] for point in found["points"]]
        assert touched == sorted(touched)
        assert touched[0] == pytest.approx(found["experts_per_token"])
        assert touched[-1] <= found["num_experts"]
        assert 8 in [point["tokens"] for point in found["points"]]

    def test_a_dense_model_has_none(self):
        found = printed("explain", "llama-3.1-8b", "--device", "h100_sxm")
        assert found["expert_coverage"] is None


class TestCrossovers:
    def test_straight_lines_on_logarithmic_axes_cross_where_algebra_says(self):
        for loads in ([1.0, 2.0, 16.0], [1.0, 4.0, 16.0]):
            (found,) = crossovers(loads, [10 * x for x in loads], [20 * x**0.5 for x in loads])
            assert (found.load, found.level) == (pytest.approx(4.0), pytest.approx(40.0))
            assert found.above == 0

    @given(st.lists(st.tuples(positive, positive), min_size=2, max_size=8))
    def test_a_crossing_lies_between_its_neighbours(self, pairs):
        loads = [float(2**i) for i in range(len(pairs))]
        first, second = zip(*pairs, strict=True)
        for found in crossovers(loads, first, second):
            assert loads[0] <= found.load <= loads[-1]
            low, high = min(map(min, pairs)), max(map(max, pairs))
            assert low * (1 - 1e-9) <= found.level <= high * (1 + 1e-9)

    def test_gaps_and_parallels_do_not_cross(self):
        assert crossovers([1, 2, 4], [1, None, 3], [2, 2, 2]) == []
        assert crossovers([1, 2], [1, 2], [2, 4]) == []


class TestCompare:
    ARGUMENTS = ("compare", "qwen3-30b-a3b=100", "qwen3-30b-a3b@fp8=50", "deepseek-r1", "--device",
                 "h100_sxm", "--gpus", "1", "--concurrency", "2", "--input", "128")  # fmt: skip

    def test_each_contender_is_simulated_with_its_own_tokens(self):
        rows = printed(*self.ARGUMENTS)["contenders"]
        alone = printed("simulate", "qwen3-30b-a3b", "--checkpoint", "fp8", "--device", "h100_sxm",
                        "--gpus", "1", "--concurrency", "2", "--input", "128", "--output",
                        "50")["points"][0]  # fmt: skip
        assert rows[1]["output_tok_s"] == alone["output_tok_s"]
        assert rows[1]["seconds_per_task"] == alone["e2e_s"]["mean"]
        million, task = (rows[1][name]["value"] for name in
                         ("usd_per_million_output_tokens", "usd_per_task"))  # fmt: skip
        assert task == pytest.approx(million * 50e-6)

    def test_one_that_does_not_fit_leaves_the_others(self):
        rows = printed(*self.ARGUMENTS)["contenders"]
        assert [bool(row["refused"]) for row in rows] == [False, False, True]
        assert "smallest that fits" in rows[2]["refused"]
        table = CliRunner().invoke(app, list(self.ARGUMENTS)).stdout
        assert "qwen3-30b-a3b" in table
        assert "smallest that fits" in " ".join(table.split())

    @pytest.mark.parametrize(
        ("text", "contender"),
        [
            ("m", Contender("m")),
            ("m@fp8", Contender("m", "fp8")),
            ("org/m@org/repo=12", Contender("org/m", "org/repo", 12)),
        ],
    )
    def test_contenders_are_read(self, text, contender):
        assert parse_contender(text) == contender

    @pytest.mark.parametrize("text", ["", "=5", "m=", "m=0", "m=x"])
    def test_what_is_no_contender_is_refused(self, text):
        with pytest.raises(InputError):
            parse_contender(text)

    def test_a_sweep_is_refused(self):
        found = CliRunner().invoke(app, [*self.ARGUMENTS[:-4], "--concurrency", "1,2"])
        assert found.exit_code == 2
        assert "one value" in found.stderr


DEPLOYMENT = {
    "model": "nemotron-3-super-120b-a12b",
    "checkpoint": {"name": "nvfp4"},
    "device": "b200",
    "placement": {"tp": 2, "pp": 1, "replicas": 1, "ep": False},
    "engine": {"name": "vllm"},
}
LENGTHS = {"input_tokens": 8192, "output_tokens": 1024}


def matching(deployment, lengths):
    return [
        record
        for record in published_records()
        if same_deployment(record, deployment) and same_lengths(record, lengths)
    ]


class TestMatching:
    def test_records_of_the_same_deployment_and_lengths_match(self):
        found = matching(DEPLOYMENT, LENGTHS)
        assert found
        assert {(r.architecture, r.hardware, r.parallelism.tp) for r in found} == {
            ("nemotron-3-super-120b-a12b", "b200", 2)
        }

    @pytest.mark.parametrize(
        ("deployment", "lengths"),
        [
            ({"device": "h200"}, {}),
            ({"checkpoint": {"name": "fp4"}}, {}),
            ({"engine": {"name": "sglang"}}, {}),
            ({"placement": {"tp": 1, "pp": 1, "replicas": 2, "ep": False}}, {}),
            ({"placement": {"tp": 2, "pp": 1, "replicas": 1, "ep": True}}, {}),
            ({}, {"output_tokens": 1}),
        ],
    )
    def test_others_do_not(self, deployment, lengths):
        assert matching(DEPLOYMENT | deployment, LENGTHS | lengths) == []
