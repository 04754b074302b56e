"""`vllm bench serve --save-result`: one JSON object a run.

Keys as written by vLLM 0.24 to 0.33 (vllm/benchmarks/serve.py). The object does not hold the
nominal lengths of the random data set, so the means stand in for them unless a sweep recorded its
own parameters beside the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moeplan.errors import RecordError
from moeplan.records.importers.fields import Json, build, collect, count, mode_of, number, required
from moeplan.records.record import RunRecord

TOOL = "vllm bench serve"
_ENGINES = {"sglang": "sglang", "tensorrt-llm": "trtllm", "trt": "trtllm"}
_RATES = {
    "output_tok_s": "output_throughput",
    "total_tok_s": "total_token_throughput",
    "request_throughput": "request_throughput",
    "duration_s": "duration",
    "peak_output_tok_s": "max_output_tokens_per_s",
}
_LATENCIES = {"ttft_ms": "ttft_ms", "tpot_ms": "tpot_ms", "itl_ms": "itl_ms", "e2e_s": "e2el_ms"}
_STATISTICS = {"mean": "mean", "p50": "median", "p90": "p90", "p99": "p99"}


def recognises(content: Any) -> bool:
    """Whether the content is one result of the benchmark."""
    return isinstance(content, dict) and {"total_output_tokens", "output_throughput"} <= set(
        content
    )


def read(content: Any, path: Path, known: Mapping[str, Any]) -> list[RunRecord]:
    """The one run of a result file."""
    return [record_of(content, str(path), path.stem, known)]


def record_of(result: Json, where: str, stem: str, known: Mapping[str, Any]) -> RunRecord:
    """One result object as a record; `RecordError` names a field that is missing or wrong."""
    date = str(result.get("date") or "")
    fields = {
        "id": f"vllm-bench-{date + '-' if date else ''}{stem}",
        "source": {
            "title": str(result.get("label") or "vllm bench serve result"),
            "path": where,
            "date": f"{date[:4]}-{date[4:6]}-{date[6:8]}" if date[:8].isdigit() else None,
        },
        "engine": {"name": _engine(result)},
        "tool": TOOL,
        "model": str(result.get("model_id") or "not said"),
        "workload": protocol(result, where),
        "speculative": _speculative(result, where),
        "measured": metrics(result, where),
        "assumed": ["workload.input_tokens", "workload.output_tokens"],
        "notes": _notes(result),
    }
    return build(fields, known, where)


def protocol(result: Json, where: str) -> Json:
    """The client protocol of a result."""
    completed = required(result, "completed", where)
    mean_input = required(result, "total_input_tokens", where) / completed
    mean_output = required(result, "total_output_tokens", where) / completed
    concurrency = count(result, "max_concurrency", where)
    rate = _rate(result, where)
    return {
        "mode": mode_of(concurrency, rate),
        "input_tokens": mean_input,
        "output_tokens": mean_output,
        "mean_input_tokens": mean_input,
        "mean_output_tokens": mean_output,
        "length_range": _length_range(result, mean_input),
        "concurrency": concurrency,
        "request_rate": rate,
        "burstiness": number(result, "burstiness", where),
        "num_prompts": count(result, "num_prompts", where),
    }


def metrics(result: Json, where: str) -> dict[str, float]:
    """Every metric that the result gives under the record's names."""
    rates = [(name, number(result, key, where)) for name, key in _RATES.items()]
    latencies = []
    for name, key in _LATENCIES.items():
        for statistic, prefix in _STATISTICS.items():
            value = number(result, f"{prefix}_{key}", where)
            scale = 1e-3 if name == "e2e_s" else 1.0
            latencies.append((f"{name}_{statistic}", None if value is None else value * scale))
    return collect([*rates, *latencies])


def _engine(result: Json) -> str:
    backend = str(result.get("backend") or "vllm")
    return next((name for word, name in _ENGINES.items() if backend.startswith(word)), "vllm")


def _rate(result: Json, where: str) -> float | str | None:
    rate = result.get("request_rate")
    if rate is None:
        return None
    if str(rate).lower() in ("inf", "infinity"):
        return "inf"
    try:
        return float(rate)
    except (TypeError, ValueError):
        raise RecordError(
            f'{where}: request_rate is {rate!r}; it must be a number or "inf"'
        ) from None


def _length_range(result: Json, mean_input: float) -> list[float] | None:
    """Spread of the prompts where `--save-detailed` kept their lengths."""
    lengths = result.get("input_lens")
    if not lengths or not all(isinstance(n, int) for n in lengths):
        return None
    return [min(lengths) / mean_input, max(lengths) / mean_input]


def _speculative(result: Json, where: str) -> Json | None:
    accepted = number(result, "spec_decode_acceptance_length", where)
    return None if accepted is None else {"method": "not said", "mean_accepted_length": accepted}


def _notes(result: Json) -> str | None:
    failed = result.get("failed")
    return f"{failed} requests failed" if failed else None
