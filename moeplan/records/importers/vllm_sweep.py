"""`vllm bench sweep serve`: a folder of run=N.json results, or the summary.json of one setting.

Each result is that of `vllm bench serve` with the sweep's own parameters merged in
(vllm/benchmarks/sweep/serve.py): server options and the data set's nominal lengths among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moeplan.errors import RecordError
from moeplan.records.importers import vllm_bench
from moeplan.records.importers.fields import Json, load_json, number
from moeplan.records.record import RunRecord

TOOL = vllm_bench.TOOL
_SETTINGS = (
    "max_num_seqs",
    "max_num_batched_tokens",
    "max_model_len",
    "gpu_memory_utilization",
    "enable_prefix_caching",
    "enforce_eager",
    "block_size",
    "async_scheduling",
)
_DEGREES = {
    "tp": "tensor_parallel_size",
    "pp": "pipeline_parallel_size",
    "dp": "data_parallel_size",
}


def recognises(content: Any) -> bool:
    """Whether the content is the summary of a sweep."""
    return (
        isinstance(content, list)
        and bool(content)
        and all(vllm_bench.recognises(run) and "run_number" in run for run in content)
    )


def read(content: Any, path: Path, known: Mapping[str, Any]) -> list[RunRecord]:
    """Every run of a summary."""
    return [
        record_of(run, f"{path}[{index}]", f"{path.parent.name}-{index}", known)
        for index, run in enumerate(content)
    ]


def read_folder(folder: Path, known: Mapping[str, Any]) -> list[RunRecord]:
    """Every run=N.json under the folder of a sweep, warm-ups left out."""
    files = sorted(folder.rglob("run=*.json"))
    if not files:
        raise RecordError(f"{folder}: no run=N.json below it; give the folder that a sweep wrote")
    return [
        record_of(load_json(file), str(file), f"{file.parent.name}-{file.stem}", known)
        for file in files
    ]


def record_of(run: Json, where: str, stem: str, known: Mapping[str, Any]) -> RunRecord:
    """One run, with the sweep's parameters as settings and nominal lengths."""
    options = {key.replace("-", "_"): value for key, value in run.items()}
    settings = {name: options[name] for name in _SETTINGS if options.get(name) is not None}
    degrees = {short: options[name] for short, name in _DEGREES.items() if options.get(name)}
    workload = {**vllm_bench.protocol(run, where), **_lengths(options, where)}
    found: dict[str, Any] = {
        "settings": settings,
        "parallelism": degrees,
        "workload": workload,
        "assumed": [] if "random_input_len" in options else ["workload.input_tokens"],
    }
    return vllm_bench.record_of(run, where, stem, {**found, **known})


def _lengths(options: Json, where: str) -> Json:
    """Nominal lengths and spread of the random data set, where the sweep set them."""
    found: Json = {}
    for field, option in (("input_tokens", "input_len"), ("output_tokens", "output_len")):
        value = number(options, f"random_{option}", where)
        if value is not None:
            found[field] = value
    ratio = number(options, "random_range_ratio", where)
    if ratio is not None:
        found["length_range"] = [1 - ratio, 1 + ratio]
    return found
