"""llama-benchy's JSON report (its benchmark_report_schema.json, versions 0.3 to 0.4).

One entry of `benchmarks` is one cell of its pp × tg × depth × concurrency grid: some runs, each of
`concurrency` simultaneous requests. `tg_throughput` counts all output tokens but the first ones,
over last token − first first-token; `pp_throughput` counts prompt tokens over the time to the last
first-token, or, at concurrency 1, over TTFT less the time of a one-token request.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moeplan.errors import RecordError
from moeplan.records.importers.fields import Json, build, collect, count, dig, number, required
from moeplan.records.record import RunRecord

TOOL = "llama-benchy"
_METRICS = {
    "decode_tok_s": "tg_throughput",
    "decode_tok_s_per_user": "tg_req_throughput",
    "prefill_tok_s": "pp_throughput",
    "peak_output_tok_s": "peak_throughput",
    "ttft_ms_mean": "e2e_ttft",
}


def recognises(content: Any) -> bool:
    """Whether the content is a report of the tool."""
    return isinstance(content, dict) and {"benchmarks", "latency_mode", "latency_ms"} <= set(
        content
    )


def read(content: Any, path: Path, known: Mapping[str, Any]) -> list[RunRecord]:
    """Every cell of the grid."""
    cells = content["benchmarks"]
    if not isinstance(cells, list):
        raise RecordError(f"{path}: benchmarks is no list; give the report that the tool saved")
    return [
        build(_fields(content, cell, f"{path}: benchmarks[{i}]", path, i), known, str(path))
        for i, cell in enumerate(cells)
    ]


def _fields(report: Json, cell: Json, where: str, path: Path, index: int) -> Json:
    return {
        "id": f"llama-benchy-{path.stem}-{index}",
        "source": {
            "title": f"llama-benchy {report.get('version', '')} report".replace("  ", " "),
            "path": str(path),
            "date": _date(report.get("timestamp")),
        },
        "engine": {"name": "vllm"},
        "tool": TOOL,
        "model": str(report.get("model") or "not said"),
        "workload": _protocol(report, cell, where),
        "measured": collect(
            (name, number(cell, f"{key}.mean", where)) for name, key in _METRICS.items()
        ),
        "assumed": ["engine.name"],
    }


def _protocol(report: Json, cell: Json, where: str) -> Json:
    concurrency = count(cell, "concurrency", where) or 1
    depth = int(number(cell, "context_size", where) or 0)
    context_phase = bool(cell.get("is_context_prefill_phase"))
    prompt = float(depth) if context_phase else required(cell, "prompt_size", where)
    hit = depth if report.get("prefix_caching_enabled") and not context_phase else 0
    runs = len(dig(cell, "tg_throughput.values") or dig(cell, "pp_throughput.values") or [0])
    return {
        "mode": "single_stream" if concurrency == 1 else "closed_loop",
        "input_tokens": prompt,
        "output_tokens": required(cell, "response_size", where),
        "length_distribution": "fixed",
        "length_range": [1.0, 1.0],
        "concurrency": concurrency,
        "num_prompts": runs * concurrency,
        "context_depth_tokens": 0 if context_phase else depth,
        "prefix_hit_tokens": hit,
    }


def _date(stamp: object) -> str | None:
    text = str(stamp or "")[:10]
    return text if len(text) == 10 and text[4] == text[7] == "-" else None
