"""GuideLLM's JSON report: `benchmarks[]`, each with its strategy and distributions by status.

Its time_per_output_token is latency over all tokens and is kept under a name of its own; its
inter_token_latency is (end − first token) / (tokens − 1) of each request, which is TPOT here.
Throughputs are means of its own rate distribution, so tokens over duration is added beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moeplan.errors import RecordError
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

TOOL = "guidellm"
_RATES = {
    "output_tok_s": "output_tokens_per_second",
    "total_tok_s": "tokens_per_second",
    "request_throughput": "requests_per_second",
}
_LATENCIES = {
    "ttft_ms": "time_to_first_token_ms",
    "tpot_ms": "inter_token_latency_ms",
    "e2e_s": "request_latency",
    "e2e_per_output_token_ms": "time_per_output_token_ms",
}
_STATISTICS = {"mean": "mean", "p50": "percentiles.p50", "p90": "percentiles.p90"}
_STATISTICS["p99"] = "percentiles.p99"


def recognises(content: Any) -> bool:
    """Whether the content is a report."""
    benchmarks = content.get("benchmarks") if isinstance(content, dict) else None
    return (
        isinstance(benchmarks, list)
        and bool(benchmarks)
        and dig(benchmarks[0], "metrics.time_to_first_token_ms") is not None
    )


def read(content: Any, path: Path, known: Mapping[str, Any]) -> list[RunRecord]:
    """Every benchmark of a report."""
    return [
        build(_fields(content, run, f"{path}: benchmarks[{i}]", path, i), known, str(path))
        for i, run in enumerate(content["benchmarks"])
    ]


def _fields(report: Json, run: Json, where: str, path: Path, index: int) -> Json:
    version = dig(report, "metadata.guidellm_version")
    return {
        "id": f"guidellm-{path.stem}-{index}",
        "source": {
            "title": f"GuideLLM {version} report" if version else "GuideLLM report",
            "path": str(path),
        },
        "engine": {"name": "vllm"},
        "tool": TOOL,
        "model": _model(report, run),
        "workload": _protocol(run, where),
        "measured": _metrics(run, where),
        "assumed": ["engine.name", "workload.input_tokens", "workload.output_tokens"],
    }


def _model(report: Json, run: Json) -> str:
    places = ("config.backend.model", "config.backend.default_model", "config.backend.target_model")
    return str(first(run, places) or dig(report, "args.model") or "not said")


def _protocol(run: Json, where: str) -> Json:
    strategy = dig(run, "config.strategy") or {}
    concurrency = count(strategy, "streams", where) or count(strategy, "max_concurrency", where)
    kind = strategy.get("type_")
    if kind == "synchronous":
        concurrency = 1
    rate = "inf" if kind == "throughput" else number(strategy, "rate", where)
    mean_input = required(run, "metrics.prompt_token_count.successful.mean", where)
    mean_output = required(run, "metrics.output_token_count.successful.mean", where)
    return {
        "mode": mode_of(concurrency, rate),
        "input_tokens": mean_input,
        "output_tokens": mean_output,
        "mean_input_tokens": mean_input,
        "mean_output_tokens": mean_output,
        "concurrency": concurrency,
        "request_rate": rate,
        "burstiness": None,
        "num_prompts": _requests(run, where),
    }


def _requests(run: Json, where: str) -> int:
    done = number(run, "metrics.request_totals.successful", where)
    if not done:
        raise RecordError(
            f"{where}: metrics.request_totals.successful is {done!r}; no run to import"
        )
    return int(done)


def _metrics(run: Json, where: str) -> dict[str, float]:
    pairs = [
        (name, number(run, f"metrics.{key}.successful.mean", where)) for name, key in _RATES.items()
    ]
    for name, key in _LATENCIES.items():
        for statistic, theirs in _STATISTICS.items():
            value = number(run, f"metrics.{key}.successful.{theirs}", where)
            pairs.append((f"{name}_{statistic}", value))
    duration = number(run, "duration", where)
    tokens = number(run, "metrics.output_token_count.successful.total_sum", where)
    if duration and tokens:
        pairs += [
            ("duration_s", duration),
            ("output_tok_s_tokens_over_duration", tokens / duration),
        ]
    return collect(pairs)
