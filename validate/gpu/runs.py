"""One served point of a measurement as a line of the published-measurement format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .steps import Step

STALL_SECONDS = 0.35
"""Longest step that computing explains here: 8192 prompt tokens took at most 0.23 s. Longer ones
were a kernel being compiled."""
REPOSITORY_OF = {
    ("gpt-oss-20b", "mxfp4"): "openai/gpt-oss-20b",
    ("gpt-oss-120b", "mxfp4"): "openai/gpt-oss-120b",
    ("qwen3-30b-a3b", "bf16"): "Qwen/Qwen3-30B-A3B",
    ("qwen3-30b-a3b", "fp8_block"): "Qwen/Qwen3-30B-A3B-FP8",
    ("llama-3.1-8b", "bf16"): "meta-llama/Llama-3.1-8B-Instruct",
    ("glm-4.7-flash", "bf16"): "zai-org/GLM-4.7-Flash",
}
"""Published checkpoint whose configuration and storage formats the weightless model copies."""
FLAGS = [
    "--load-format dummy",
    "--max-num-seqs 256",
    "--max-model-len 40960",
    "--no-enable-prefix-caching",
    '--compilation-config {"cudagraph_capture_sizes": [1, 2, 4, 8, 16, 32, 64, 128, 256]}',
]


def stall(steps: Sequence[Step]) -> dict[str, float]:
    """Steps longer than computing explains, and the seconds that they hold."""
    long = [step.period for step in steps if step.chunks or step.decodes]
    long = [seconds for seconds in long if STALL_SECONDS < seconds < 30]
    return {"steps": len(long), "seconds": round(sum(long), 3)}


def is_evidence(record: dict[str, Any]) -> bool:
    """Whether the point may be scored.

    The prompts of this measurement's benchmark were largely alike (its tokenizer broke most words),
    so a MoE point touches fewer experts than its routers would under different tokens. Dense models
    do not care, and a lone sequence's decode touches its top-k experts whatever the tokens.
    """
    if "DISTURBED" in record["notes"]:
        return False
    return "moe" not in record["notes"].lower() or record["workload"]["concurrency"] == 1


def measured(result: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """The benchmark's figures under the format's names."""
    figures = {
        "output_tok_s": result["output_throughput"],
        "total_tok_s": result["total_token_throughput"],
        "request_throughput": result["request_throughput"],
        "duration_s": result["duration"],
        "kv_cache_tokens": float(facts["kv_tokens"].replace(",", "")),
        "weights_gib": float(facts["weights_gib"]),
    }
    for metric in ("ttft", "tpot", "itl"):
        for ours, theirs in (("mean", "mean"), ("p50", "p50"), ("p90", "p90"), ("p99", "p99")):
            figures[f"{metric}_ms_{ours}"] = result[f"{theirs}_{metric}_ms"]
    return {name: round(value, 4) for name, value in figures.items()}


def workload(point: dict[str, Any]) -> dict[str, Any]:
    """The client's protocol: fixed lengths, all requests at once, a cap on those under way."""
    return {
        "mode": "closed_loop" if point["concurrency"] > 1 else "single_stream",
        "input_tokens": point["input_tokens"],
        "output_tokens": point["output_tokens"],
        "length_distribution": "fixed",
        "length_range": [1.0, 1.0],
        "concurrency": point["concurrency"],
        "request_rate": "inf",
        "num_prompts": point["prompts"],
        "prefix_hit_tokens": 0,
    }


def run_record(
    model: dict[str, Any],
    facts: dict[str, Any],
    point: dict[str, Any],
    repeat: int,
    stalled: dict[str, float],
) -> dict[str, Any]:
    """One line; `notes` carries the routing and whether a compilation disturbed the point."""
    storage, moe = model["format"], bool(facts.get("moe_backend"))
    figures = measured(point["result"], facts)
    if moe and point["concurrency"] == 1:
        kept = ("tpot", "itl", "kv", "weights")
        figures = {name: value for name, value in figures.items() if name.startswith(kept)}
    shape = f"{point['input_tokens']}-{point['output_tokens']}-c{point['concurrency']}"
    note = "Weightless dense model. "
    if moe:
        note = f"Weightless MoE, routers drawn {point['routing']}, but prompts largely alike. "
    if stalled["steps"]:
        note += (
            f"DISTURBED: {stalled['steps']} steps over {STALL_SECONDS} s hold {stalled['seconds']} "
            "s of this point (kernels compiled on first use)."
        )
    return {
        "id": f"own-h100-{model['model']}-{storage}-{point['routing']}-{shape}-{repeat}",
        "source": {
            "title": "moeplan's own measurement",
            "path": f"validate/evidence/2026-11-27-h100/raw/{model['machine']}",
            "date": "2026-11-27",
        },
        "engine": {"name": "vllm", "version": "0.24.0", "flags": FLAGS},
        "settings": {
            "max_num_seqs": 256,
            "max_num_batched_tokens": 8192,
            "max_model_len": 40960,
            "gpu_memory_utilization": 0.92,
            "enable_prefix_caching": False,
            "async_scheduling": True,
            "kernel_hints": ["triton"] if moe else [],
        },
        "tool": "vllm bench serve",
        "model": REPOSITORY_OF[model["model"], storage],
        "architecture": model["model"],
        "weight_format": "fp8" if storage == "fp8_block" else storage,
        "kv_cache_format": "bf16",
        "hardware": model["device"],
        "gpus": 1,
        "nodes": 1,
        "interconnect": None,
        "parallelism": {"tp": 1, "pp": 1, "dp": 1, "ep": 1, "replicas": 1},
        "workload": workload(point),
        "speculative": None,
        "measured": figures,
        "assumed": [],
        "notes": note.strip(),
    }
