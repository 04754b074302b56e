"""Results of load generators as run records."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moeplan.errors import RecordError, UnknownNameError
from moeplan.records.importers import aiperf, guidellm, llama_benchy, vllm_bench, vllm_sweep
from moeplan.records.importers.fields import load_json
from moeplan.records.record import RunRecord

IMPORTERS: dict[str, Any] = {
    "vllm-bench": vllm_bench,
    "vllm-sweep": vllm_sweep,
    "llama-benchy": llama_benchy,
    "aiperf": aiperf,
    "guidellm": guidellm,
}
"""Importer by the name that a user types; each has `recognises(content)` and `read`."""


def import_results(
    path: str | Path, tool: str | None = None, known: Mapping[str, Any] | None = None
) -> list[RunRecord]:
    """Runs in a result file of a load generator, or in the folder of a vLLM sweep.

    `tool` is a key of `IMPORTERS`, found from the content when None. `known` holds record fields
    that no result says (hardware, gpus, weight_format, parallelism, ...) and overrides what it
    says. Raises `RecordError` for a file of no known format or with a wrong field, and
    `UnknownNameError` for an unknown tool.
    """
    path = Path(path)
    if tool is not None and tool not in IMPORTERS:
        raise UnknownNameError("load generator", tool, IMPORTERS)
    if path.is_dir():
        return vllm_sweep.read_folder(path, known or {})
    content = load_json(path)
    name = tool or _detect(content)
    if name is None or not IMPORTERS[name].recognises(content):
        kind = f"no result of {tool}" if tool else "no known result format"
        raise RecordError(f"{path}: {kind}; known: {', '.join(IMPORTERS)} (JSON output)")
    return IMPORTERS[name].read(content, path, known or {})


def _detect(content: Any) -> str | None:
    return next((name for name, module in IMPORTERS.items() if module.recognises(content)), None)
