"""AIPerf's profile_export_aiperf.json (0.10 with phases, and the older load-generator section).

Its inter_token_latency is (latency − TTFT) / (tokens − 1) of each request, which is TPOT here; its
inter_chunk_latency holds the gaps between stream chunks, which is ITL here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moeplan.records.importers.fields import (
    Json,
    build,
    collect,
    count,
    dig,
    first,
    mode_of,
    number,
    required,
)
from moeplan.records.record import RunRecord

TOOL = "aiperf"
_RATES = {
    "output_tok_s": "output_token_throughput.avg",
    "total_tok_s": "total_token_throughput.avg",
    "request_throughput": "request_throughput.avg",
    "duration_s": "benchmark_duration.avg",
}
_LATENCIES = {
    "ttft_ms": ("time_to_first_token", 1.0),
    "tpot_ms": ("inter_token_latency", 1.0),
    "itl_ms": ("inter_chunk_latency", 1.0),
    "e2e_s": ("request_latency", 1e-3),
}
_STATISTICS = {"mean": "avg", "p50": "p50", "p90": "p90", "p99": "p99"}


def recognises(content: Any) -> bool:
    """Whether the content is a profile export."""
    return isinstance(content, dict) and {"input_config", "time_to_first_token"} <= set(content)


def read(content: Any, path: Path, known: Mapping[str, Any]) -> list[RunRecord]:
    """The one run of an export."""
    where = str(path)
    start = str(content.get("start_time") or "")[:10]
    fields = {
        "id": f"aiperf-{content.get('benchmark_id') or path.parent.name or path.stem}",
        "source": {
            "title": f"AIPerf {content.get('aiperf_version', '')} export".replace("  ", " "),
            "path": where,
            "date": start or None,
        },
        "engine": {"name": "vllm"},
        "tool": TOOL,
        "model": _model(content),
        "workload": _protocol(content, where),
        "measured": _metrics(content, where),
        "assumed": ["engine.name", "workload.input_tokens", "workload.output_tokens"],
        "notes": "cancelled before its end" if content.get("was_cancelled") else None,
    }
    return [build(fields, known, where)]


def _model(content: Json) -> str:
    items = dig(content, "input_config.models.items")
    names = dig(content, "input_config.endpoint.model_names")
    if isinstance(items, list) and items and isinstance(items[0], dict):
        return str(items[0].get("name") or "not said")
    return str(names[0]) if isinstance(names, list) and names else "not said"


def _load(content: Json) -> Json:
    """The profiling phase, or the load-generator section of older exports."""
    phases = dig(content, "input_config.phases")
    for phase in phases if isinstance(phases, list) else []:
        if isinstance(phase, dict) and not phase.get("exclude_from_results"):
            return {
                "concurrency": phase.get("concurrency"),
                "rate": phase.get("rate"),
                "requests": phase.get("requests"),
            }
    old = dig(content, "input_config.loadgen") or {}
    return {
        "concurrency": old.get("concurrency"),
        "rate": old.get("request_rate"),
        "requests": old.get("request_count"),
    }


def _protocol(content: Json, where: str) -> Json:
    load = _load(content)
    concurrency = count(load, "concurrency", where)
    rate = number(load, "rate", where)
    requests = first(content, ["request_count.avg"]) or load.get("requests")
    mean_input = required(content, "input_sequence_length.avg", where)
    mean_output = required(content, "output_sequence_length.avg", where)
    low = number(content, "input_sequence_length.min", where) or mean_input
    high = number(content, "input_sequence_length.max", where) or mean_input
    return {
        "mode": mode_of(concurrency, rate),
        "input_tokens": mean_input,
        "output_tokens": mean_output,
        "mean_input_tokens": mean_input,
        "mean_output_tokens": mean_output,
        "length_range": [low / mean_input, high / mean_input],
        "concurrency": concurrency,
        "request_rate": rate,
        "num_prompts": int(requests) if requests else None,
    }


def _metrics(content: Json, where: str) -> dict[str, float]:
    rates = [(name, number(content, key, where)) for name, key in _RATES.items()]
    latencies = []
    for name, (key, scale) in _LATENCIES.items():
        for statistic, theirs in _STATISTICS.items():
            value = number(content, f"{key}.{theirs}", where)
            latencies.append((f"{name}_{statistic}", None if value is None else value * scale))
    return collect([*rates, *latencies])
