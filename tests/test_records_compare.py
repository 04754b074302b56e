"""Metrics by the definition of the tool that measured them, on runs with known times."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from moeplan.deployment import Deployment
from moeplan.hardware_specs import load_hardware
from moeplan.records.compare import compare, split_statistic
from moeplan.records.prediction import CachingPredictor, Outcome, run_record
from moeplan.records.record import RunRecord
from moeplan.records.setup import deployment_of
from moeplan.simulation.requests import RequestSpec
from moeplan.simulation.result import SimulationResult
from moeplan.simulation.workload import Workload, requests

HARDWARE = load_hardware()
TTFT, TPOT = 0.5, 0.02


def known_run(_: Deployment, workload: Workload) -> Outcome:
    """Every request on its own: TTFT 0.5 s, 20 ms a token, a client's requests in sequence."""
    specs = requests(workload)
    width = workload.concurrency or len(specs)
    outputs = np.array([spec.output_tokens for spec in specs])
    spans = TTFT + TPOT * (outputs - 1)
    sent = np.array([spans[i % width : i : width].sum() for i in range(len(specs))])
    return Outcome(_result(specs, sent, workload), 50_000.0, 40.0, 20.0, "interpolated", 0.1)


def _result(specs: list[RequestSpec], sent: np.ndarray, workload: Workload) -> SimulationResult:
    outputs = np.array([spec.output_tokens for spec in specs])
    first = sent + TTFT
    tokens = np.concatenate(
        [start + TPOT * np.arange(n) for start, n in zip(first, outputs, strict=True)]
    )
    zeros = np.zeros(len(specs), int)
    return SimulationResult(
        arrival_s=sent,
        sent_s=sent,
        first_token_s=first,
        finish_s=first + TPOT * (outputs - 1),
        input_tokens=np.array([spec.input_tokens for spec in specs]),
        output_tokens=outputs,
        preemptions=zeros,
        prefix_hit_tokens=zeros,
        replica=zeros,
        gaps_s=np.array([TPOT]),
        gap_counts=np.array([int((outputs - 1).sum())]),
        token_times_s=tokens,
        token_counts=np.ones(len(tokens), int),
        workload=workload,
    )


def compared(measured: dict[str, float], tool: str | None, **protocol: Any) -> dict[str, float]:
    workload = {
        "mode": "closed_loop",
        "input_tokens": 1000,
        "output_tokens": 101,
        "concurrency": 4,
        "num_prompts": 8,
        **protocol,
    }
    record = RunRecord.model_validate(
        {
            "id": "a",
            "source": {"title": "t"},
            "engine": {"name": "vllm", "version": "0.26.0"},
            "tool": tool,
            "model": "openai/gpt-oss-20b",
            "architecture": "gpt-oss-20b",
            "weight_format": "mxfp4",
            "hardware": "h100_sxm",
            "gpus": 2,
            "workload": workload,
            "measured": measured,
        }
    )
    setup = deployment_of(record, HARDWARE)
    outcome = run_record(record, setup, known_run)
    found = compare(record, setup, outcome, known_run)
    values = {name: item.predicted.value for name, item in found.metrics.items()}
    return values | dict.fromkeys(found.not_compared, float("nan"))


LATENCY = TTFT + 100 * TPOT


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("output_tok_s", 8 * 101 / (2 * LATENCY)),
        ("total_tok_s", 8 * 1101 / (2 * LATENCY)),
        ("output_tok_s_per_gpu", 8 * 101 / (2 * LATENCY) / 2),
        ("request_throughput", 8 / (2 * LATENCY)),
        ("duration_s", 2 * LATENCY),
        ("ttft_ms_mean", 500.0),
        ("ttft_ms", 500.0),
        ("tpot_ms_p99", 20.0),
        ("itl_ms_p50", 20.0),
        ("e2e_s_p90", LATENCY),
        ("decode_tok_s_per_user", 50.0),
        ("decode_tok_s", 200.0),
        ("peak_output_tok_s", 200.0),
        ("kv_cache_tokens", 50_000.0),
        ("kv_pool_gib", 40.0),
        ("weights_gib", 20.0),
    ],
)
def test_definitions(name: str, value: float) -> None:
    assert compared({name: 1.0}, None)[name] == pytest.approx(value, rel=1e-9)


def test_llama_benchy_counts_a_round() -> None:
    found = compared({"decode_tok_s": 1.0, "prefill_tok_s": 1.0}, "llama-benchy")
    assert found["decode_tok_s"] == pytest.approx(4 * 101 / (100 * TPOT))
    assert found["prefill_tok_s"] == pytest.approx(4 * 1000 / TTFT)


def test_llama_benchy_alone_takes_a_short_request_off_the_prompt_rate() -> None:
    found = compared(
        {"decode_tok_s": 1.0, "prefill_tok_s": 1.0}, "llama-benchy", mode="single_stream"
    )
    assert found["decode_tok_s"] == pytest.approx(50.0)
    assert found["prefill_tok_s"] == pytest.approx(1000 / (TTFT - (TTFT - 0.1)))


def test_llm_decode_bench_cuts_streams_and_counts_wall_time() -> None:
    found = compared({"decode_tok_s": 1.0}, "llm_decode_bench", output_tokens=8192)
    tokens = int((30 - TTFT) / TPOT) + 1
    assert found["decode_tok_s"] == pytest.approx(4 * tokens / (TTFT + TPOT * (tokens - 1)))


def test_llm_decode_bench_prompt_rate_is_of_nominal_tokens() -> None:
    found = compared(
        {"prefill_tok_s": 1.0}, "llm_decode_bench", output_tokens=1, mode="single_stream"
    )
    assert found["prefill_tok_s"] == pytest.approx(1000 / 0.1)


def test_prompt_rate_of_a_custom_client_is_over_the_whole_run() -> None:
    found = compared({"prefill_tok_s": 1.0}, "vllm bench serve")
    assert found["prefill_tok_s"] == pytest.approx(8 * 1000 / (2 * LATENCY))


@pytest.mark.parametrize("name", ["power_w", "input_tok_s", "e2e_per_output_token_ms_mean"])
def test_what_nothing_predicts_is_listed(name: str) -> None:
    assert np.isnan(compared({name: 1.0, "ttft_ms_mean": 1.0}, None)[name])


def test_duration_needs_the_number_of_prompts_and_tpot_two_tokens() -> None:
    assert np.isnan(compared({"duration_s": 1.0}, None, num_prompts=None)["duration_s"])
    assert np.isnan(compared({"tpot_ms_mean": 1.0}, None, output_tokens=1)["tpot_ms_mean"])


def test_a_zero_measurement_is_not_compared() -> None:
    assert np.isnan(compared({"ttft_ms_mean": 0.0}, None)["ttft_ms_mean"])


def test_statistic_is_split_from_the_name() -> None:
    assert split_statistic("ttft_ms_p99") == ("ttft_ms", "p99")
    assert split_statistic("e2e_s") == ("e2e_s", None)
    assert split_statistic("output_tok_s_per_gpu") == ("output_tok_s_per_gpu", None)


def test_one_of_equal_rounds_stands_for_all() -> None:
    """What the shortcut leaves out changes no mean: the real simulator agrees with itself."""
    protocol = {"mode": "closed_loop", "input_tokens": 512, "output_tokens": 32, "concurrency": 4}
    base = {
        "id": "a",
        "source": {"title": "t"},
        "engine": {"name": "vllm", "version": "0.26.0"},
        "tool": "llama-benchy",
        "model": "openai/gpt-oss-20b",
        "architecture": "gpt-oss-20b",
        "weight_format": "mxfp4",
        "hardware": "gb10",
        "workload": {**protocol, "num_prompts": 12},
        "measured": {"decode_tok_s": 1.0, "prefill_tok_s": 1.0, "ttft_ms_mean": 1.0},
    }
    record = RunRecord.model_validate(base)
    setup = deployment_of(record, HARDWARE)
    predict = CachingPredictor(HARDWARE)
    short = compare(record, setup, run_record(record, setup, predict), predict)
    outcome = predict(setup.deployment, setup.workload)
    assert len(outcome.result) == 12
    whole = compare(record, setup, outcome, predict)
    for name, item in whole.metrics.items():
        assert short.metrics[name].predicted.value == pytest.approx(
            item.predicted.value, rel=1e-6
        ), name
