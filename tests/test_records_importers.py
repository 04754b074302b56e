"""Result files of load generators as run records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moeplan.errors import RecordError, UnknownNameError
from moeplan.records.importers import import_results

VLLM_BENCH = {
    "date": "20260911-101530",
    "backend": "vllm",
    "label": None,
    "model_id": "openai/gpt-oss-20b",
    "tokenizer_id": "openai/gpt-oss-20b",
    "num_prompts": 40,
    "request_rate": "inf",
    "burstiness": 1.0,
    "max_concurrency": 4,
    "duration": 20.0,
    "completed": 40,
    "failed": 0,
    "total_input_tokens": 40 * 1000,
    "total_output_tokens": 40 * 200,
    "request_throughput": 2.0,
    "request_goodput": None,
    "output_throughput": 400.0,
    "total_token_throughput": 2400.0,
    "max_output_tokens_per_s": 440.0,
    "mean_ttft_ms": 50.0,
    "median_ttft_ms": 45.0,
    "std_ttft_ms": 5.0,
    "p99_ttft_ms": 80.0,
    "mean_tpot_ms": 9.0,
    "median_tpot_ms": 9.1,
    "mean_itl_ms": 9.0,
    "mean_e2el_ms": 1850.0,
}

LLAMA_BENCHY = {
    "version": "0.4.0",
    "timestamp": "2026-08-06T10:00:00Z",
    "latency_mode": "generation",
    "latency_ms": 20.0,
    "model": "nvidia/Gemma-4-26B-A4B-NVFP4",
    "prefix_caching_enabled": False,
    "max_concurrency": 4,
    "benchmarks": [
        {
            "concurrency": 4,
            "context_size": 0,
            "prompt_size": 1024,
            "response_size": 128,
            "is_context_prefill_phase": False,
            "pp_throughput": {"mean": 5000.0, "std": 1.0, "values": [5000.0, 4999.0, 5001.0]},
            "tg_throughput": {"mean": 90.0, "std": 1.0, "values": [89.0, 90.0, 91.0]},
            "tg_req_throughput": {"mean": 25.0, "std": 1.0, "values": [25.0] * 12},
            "peak_throughput": None,
            "e2e_ttft": {"mean": 640.0, "std": 9.0, "values": [640.0] * 12},
        }
    ],
}


def statistics(mean: float) -> dict[str, float]:
    return {"avg": mean, "min": mean, "max": mean, "p50": mean, "p90": mean, "p99": mean}


AIPERF = {
    "schema_version": "1.3",
    "aiperf_version": "0.13.0",
    "benchmark_id": "7566a649ad7b",
    "request_throughput": {"unit": "requests/sec", "avg": 2.5},
    "request_latency": {"unit": "ms", **statistics(1484.0)},
    "request_count": {"unit": "requests", "avg": 96.0},
    "time_to_first_token": {"unit": "ms", **statistics(106.0)},
    "inter_token_latency": {"unit": "ms", **statistics(6.7)},
    "inter_chunk_latency": {"unit": "ms", **statistics(6.8)},
    "output_token_throughput": {"unit": "tokens/sec", "avg": 538.5},
    "benchmark_duration": {"unit": "sec", "avg": 36.5},
    "input_sequence_length": {"unit": "tokens", "avg": 500.0, "min": 250.0, "max": 1000.0},
    "output_sequence_length": {"unit": "tokens", **statistics(204.0)},
    "input_config": {
        "models": {"items": [{"name": "Qwen/Qwen3.6-35B-A3B"}]},
        "phases": [
            {"name": "warmup", "type": "concurrency", "exclude_from_results": True, "requests": 16},
            {"name": "profiling", "type": "concurrency", "requests": 96, "concurrency": 4},
        ],
    },
    "was_cancelled": False,
    "start_time": "2026-07-03T04:15:59.067738",
}


def distribution(mean: float) -> dict[str, Any]:
    percentiles = {"p50": mean, "p90": mean, "p99": mean}
    return {"successful": {"mean": mean, "median": mean, "percentiles": percentiles}}


GUIDELLM = {
    "metadata": {"version": 1, "guidellm_version": "0.8.1"},
    "args": {"model": "Qwen/Qwen3.5-35B-A3B"},
    "benchmarks": [
        {
            "config": {"strategy": {"type_": "concurrent", "streams": 8}, "backend": {}},
            "duration": 10.0,
            "metrics": {
                "request_totals": {"successful": 32, "errored": 0, "incomplete": 0, "total": 32},
                "requests_per_second": distribution(3.3),
                "request_latency": distribution(1.5),
                "prompt_token_count": {"successful": {"mean": 256.0, "total_sum": 8192.0}},
                "output_token_count": {"successful": {"mean": 64.0, "total_sum": 2048.0}},
                "output_tokens_per_second": distribution(210.0),
                "tokens_per_second": distribution(1050.0),
                "time_to_first_token_ms": distribution(45.0),
                "inter_token_latency_ms": distribution(6.8),
                "time_per_output_token_ms": distribution(23.4),
            },
        }
    ],
}


def saved(folder: Path, content: object, name: str = "result.json") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_vllm_bench(tmp_path: Path) -> None:
    known = {"hardware": "h100_sxm", "gpus": 1, "weight_format": "mxfp4"}
    (record,) = import_results(saved(tmp_path, VLLM_BENCH), known=known)
    assert record.tool == "vllm bench serve"
    assert record.hardware == "h100_sxm"
    assert record.source.date == "2026-09-11"
    assert record.workload.mode == "closed_loop"
    assert record.workload.request_rate == "inf"
    assert record.workload.mean_input_tokens == 1000
    assert record.measured["e2e_s_mean"] == pytest.approx(1.85)
    assert record.measured["ttft_ms_p50"] == 45.0
    assert record.measured["peak_output_tok_s"] == 440.0
    assert "tpot_ms_p99" not in record.measured
    assert "workload.input_tokens" in record.assumed


def test_vllm_bench_keeps_spread_of_detailed_lengths_and_speculation(tmp_path: Path) -> None:
    detailed = {
        **VLLM_BENCH,
        "input_lens": [800] * 20 + [1200] * 20,
        "spec_decode_acceptance_length": 2.5,
        "failed": 2,
        "max_concurrency": None,
        "request_rate": 3.0,
    }
    (record,) = import_results(saved(tmp_path, detailed))
    assert record.workload.length_range == (0.8, 1.2)
    assert record.workload.mode == "open_loop"
    assert record.speculative is not None
    assert record.speculative.mean_accepted_length == 2.5
    assert record.notes == "2 requests failed"


def test_sweep_folder_gives_settings_and_nominal_lengths(tmp_path: Path) -> None:
    run = {
        **VLLM_BENCH,
        "run_number": 0,
        "max-num-seqs": 64,
        "tensor_parallel_size": 2,
        "random_input_len": 1024,
        "random_output_len": 256,
        "random_range_ratio": 0.1,
    }
    saved(tmp_path, run, "SERVE-a-BENCH-b/run=0.json")
    saved(tmp_path, {**run, "run_number": 1}, "SERVE-a-BENCH-b/run=1.json")
    saved(tmp_path, [run], "SERVE-a-BENCH-b/summary.json")
    first, second = import_results(tmp_path)
    assert first.id != second.id
    assert first.settings.max_num_seqs == 64
    assert first.parallelism.tp == 2
    assert first.workload.input_tokens == 1024
    assert first.workload.mean_input_tokens == 1000
    assert first.workload.length_range == (0.9, 1.1)
    (summary,) = import_results(tmp_path / "SERVE-a-BENCH-b" / "summary.json")
    assert summary.workload == first.workload


def test_llama_benchy(tmp_path: Path) -> None:
    (record,) = import_results(saved(tmp_path, LLAMA_BENCHY))
    assert record.tool == "llama-benchy"
    assert record.workload.concurrency == 4
    assert record.workload.num_prompts == 12
    assert record.measured == {
        "decode_tok_s": 90.0,
        "decode_tok_s_per_user": 25.0,
        "prefill_tok_s": 5000.0,
        "ttft_ms_mean": 640.0,
    }


def test_aiperf_leaves_the_warm_up_out_and_tells_tpot_from_chunk_gaps(tmp_path: Path) -> None:
    (record,) = import_results(saved(tmp_path, AIPERF))
    assert record.workload.concurrency == 4
    assert record.workload.num_prompts == 96
    assert record.workload.length_range == (0.5, 2.0)
    assert record.measured["tpot_ms_mean"] == 6.7
    assert record.measured["itl_ms_mean"] == 6.8
    assert record.measured["e2e_s_p99"] == pytest.approx(1.484)


def test_guidellm_names_latency_over_tokens_apart(tmp_path: Path) -> None:
    (record,) = import_results(saved(tmp_path, GUIDELLM))
    assert record.model == "Qwen/Qwen3.5-35B-A3B"
    assert record.workload.concurrency == 8
    assert record.measured["tpot_ms_mean"] == 6.8
    assert record.measured["e2e_per_output_token_ms_mean"] == 23.4
    assert record.measured["output_tok_s_tokens_over_duration"] == pytest.approx(204.8)


@pytest.mark.parametrize("content", [{}, [], {"benchmarks": []}, {"output_throughput": 1.0}, 3])
def test_unknown_content_lists_the_known_formats(tmp_path: Path, content: object) -> None:
    with pytest.raises(RecordError, match="vllm-bench, vllm-sweep, llama-benchy, aiperf, guidellm"):
        import_results(saved(tmp_path, content))


def test_content_of_another_tool_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no result of aiperf"):
        import_results(saved(tmp_path, VLLM_BENCH), tool="aiperf")


def test_an_unknown_tool_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="guidellm"):
        import_results(saved(tmp_path, VLLM_BENCH), tool="guidelm")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"mean_ttft_ms": "fast"}, "mean_ttft_ms"),
        ({"completed": 0}, "completed"),
        ({"max_concurrency": 1.5}, "max_concurrency"),
        ({"request_rate": "quick"}, "request_rate"),
        ({"duration": float("nan")}, "duration"),
    ],
)
def test_a_wrong_field_of_a_result_is_named(tmp_path: Path, changes: dict, field: str) -> None:
    path = saved(tmp_path, {**VLLM_BENCH, **changes})
    with pytest.raises(RecordError, match=field) as caught:
        import_results(path)
    assert str(path) in str(caught.value)


def test_no_json_and_no_file(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text('{"a": ')
    with pytest.raises(RecordError, match=r"broken\.json"):
        import_results(broken)
    with pytest.raises(RecordError, match=r"absent\.json"):
        import_results(tmp_path / "absent.json")
    with pytest.raises(RecordError, match=r"run=N\.json"):
        import_results(tmp_path)
