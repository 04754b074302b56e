"""`moeplan recommend` in a user's hands: what it says, what it refuses, what it leaves with."""

from __future__ import annotations

import json

import pytest
from support.cli import refuse, run, squeezed

import moeplan
from moeplan.planner.search import recommend

SMALL = (
    *("recommend", "gpt-oss-20b", "--device", "h100_sxm", "--gpus", "4"),
    *("--input", "600", "--output", "32", "--concurrency", "8"),
)
SPARKS = (
    *("recommend", "gpt-oss-20b", "--device", "gb10", "--gpus", "2", "--fabric", "cx7-200gbe"),
    *("--input", "256", "--output", "16", "--concurrency", "2"),
)


def answer(*arguments: str) -> dict:
    return json.loads(run(*arguments, "--json").stdout)


def test_python_has_it_too():
    assert moeplan.recommend is recommend


def test_everything_that_was_promised_is_printed():
    text = squeezed(run(*SMALL).stdout)
    for words in (
        "deployments built",
        "like another",
        "screened out by a bound",
        "simulated",
        "Wins by the highest throughput",
        "Bottleneck:",
        "of a decode step",
        "TTFT after the first wave",
        "TPOT",
        "ITL",
        "p99",
        "$ a million output tokens",
        "GPU watts",
        "weights",
        "KV pool",
        "Runners-up",
        "loses by",
        "Pareto front",
        "vllm serve openai/gpt-oss-20b",
        "uncalibrated",
    ):
        assert words in text, words


def test_runners_up_are_other_placements():
    data = answer(*SMALL, "--top", "4")
    rows = [data["winner"], *data["runners_up"]]
    names = [(row["checkpoint"], row["placement"]) for row in rows]
    assert len(names) == 5
    assert len(set(names)) == 5
    assert all(row["why_not"] for row in data["runners_up"])


def test_counts_add_up():
    counts = answer(*SMALL)["counts"]
    parts = ("duplicates", "screened", "simulated")
    assert counts["built"] == sum(counts["refused"].values()) + sum(counts[x] for x in parts)


def test_figures_are_estimates_with_a_basis():
    winner = answer(*SMALL)["winner"]
    for figure in (winner["output_tok_s"], winner["latencies_s"]["ttft"]["p99"], winner["watts"]):
        assert figure["value"] > 0
        assert figure["basis"]
    speed = winner["output_tok_s"]
    assert speed["low"] < speed["value"] < speed["high"]
    assert winner["watts"]["low"] is winner["watts"]["high"] is None  # nobody published any


def test_dollars_by_hand():
    winner = answer(*SMALL, "--usd-per-gpu-hour", "1.8")["winner"]
    tokens_an_hour = winner["output_tok_s"]["value"] * 3600
    expected = 1.8 * winner["gpus"] / tokens_an_hour * 1e6
    assert winner["usd_per_million_output_tokens"]["value"] == pytest.approx(expected)


def test_cost_and_latency_rank_otherwise():
    cheap = answer(*SMALL, "--objective", "cost")
    quick = answer(*SMALL, "--objective", "latency")
    prices = [row["usd_per_million_output_tokens"]["value"] for row in cheap["simulated"]]
    times = [row["latencies_s"]["e2e"]["mean"]["value"] for row in quick["simulated"]]
    assert cheap["winner"]["usd_per_million_output_tokens"]["value"] <= min(prices) / 0.98
    assert quick["winner"]["latencies_s"]["e2e"]["mean"]["value"] <= min(times) / 0.98
    assert cheap["winner"]["gpus"] < quick["winner"]["gpus"]


def test_what_misses_a_limit_says_so():
    plain = answer(*SMALL)
    times = sorted(row["latencies_s"]["ttft"]["mean"]["value"] for row in plain["simulated"])
    limit = times[len(times) // 2]
    data = answer(*SMALL, "--ttft", f"{limit * 1e3:.3f}ms", "--exhaustive", "--top", "50")
    assert data["winner"]["latencies_s"]["ttft"]["mean"]["value"] <= limit * 1.0001
    missed = [row for row in data["runners_up"] if row["why_not"].startswith("misses TTFT")]
    assert missed
    assert data["counts"]["screened"] == 0


def test_two_gb10_are_two_nodes():
    data = answer(*SPARKS, "--tp", "2")
    first, second = data["winner"]["commands"]
    assert "--nnodes 2 --node-rank 0 --master-addr $HEAD_NODE_ADDRESS" in first
    assert "--node-rank 1" in second
    assert "--headless" in second
    assert data["winner"]["deployment"]["inter_fabric"] == "cx7-200gbe"


def test_a_rate_instead_of_a_concurrency():
    data = answer(
        *("recommend", "gpt-oss-20b", "--device", "h100_sxm", "--gpus", "2", "--rate", "4"),
        *("--num-prompts", "40", "--input", "300", "--output", "16", "--ttft", "p99:2s"),
    )
    assert data["winner"]["gpus"] == 1
    assert data["winner"]["steady_ttft_s"] is not None


def test_odd_pins_are_followed():
    rows = answer(*SMALL, "--pp", "3", "--tp", "1")["simulated"]
    assert {row["placement"] for row in rows} == {"TP1 PP3"}


def test_the_rules_of_refusal_are_named():
    text = squeezed(run(*SMALL, "--tp", "3", code=3).stderr)
    assert "tp 3 does not divide the 64 attention heads" in text


def test_no_deployment_meets_the_limits():
    line = refuse(*SMALL, "--itl", "0.5ms", "--ttft", "1s", code=3)
    assert "the nearest is" in line
    assert "relax --itl" in line


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        (["--ttft", "nan"], "--ttft 'nan'"),
        (["--itl", "-3ms"], "--itl '-3ms'"),
        (["--tpot", "0ms"], "--tpot '0ms' must be above 0"),
        (["--e2e", "1e9s"], "--e2e '1e9s' must be above 0 and at most a day"),
        (["--purchase-usd", "nan"], "purchase_usd"),
        (["--years", "0"], "years is 0"),
        (["--gpus", "0"], "gpus is 0"),
        (["--checkpoint", "fp7"], "fp7"),
        (["--replicas", "9"], "replicas 9: no placement on 4 GPUs"),
        (["--plot", "front.pdf"], ".html"),
    ],
)
def test_wrong_wishes_are_refused_by_name(extra, named):
    assert named in refuse(*SMALL, *extra)
