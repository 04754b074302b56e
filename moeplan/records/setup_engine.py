"""Engine settings of a record, from its settings, its flags and what is known beside it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from moeplan.cost.formats import component_formats, kernel_format
from moeplan.deployment import EngineSettings
from moeplan.hardware_specs import Device, Hardware
from moeplan.models.architecture import Architecture
from moeplan.models.checkpoint import Checkpoint
from moeplan.records.annotations import known_settings
from moeplan.records.record import ENGINE_OPTIONS, RunRecord
from moeplan.records.rules import Rules
from moeplan.records.setup_model import kv_format_of
from moeplan.records.setup_speculation import speculation_of
from moeplan.records.versions import engine_version

_MXFP4_LAYERS = {
    "moe": "routed_experts",
    "qkv": "attn_proj",
    "o": "attn_proj",
    "lm_head": "lm_head",
}
"""Component that each word of `--mxfp4-layers` (a patch of vLLM for GB10) re-quantises."""
_KERNEL_WORDS = {"marlin": "marlin", "cutlass": "cutlass", "b12x": "b12x", "deep_gemm": "deepgemm"}
"""Kernel family by hint, strongest first; other hints name attention backends as well."""
_TRITON_EXPERTS = "triton moe"
_CAPTURE_SIZES = re.compile(r"cudagraph[-_]capture[-_]sizes[^\w-]*(\d+(?:[\s,]+\d+)*)")
"""vLLM's option, or its key in the JSON of `--compilation-config`."""
GIB = 2**30


def engine_of(
    record: RunRecord,
    architecture: Architecture,
    checkpoint: Checkpoint,
    device: Device,
    hardware: Hardware,
    rules: Rules,
) -> EngineSettings:
    """The record's engine under vLLM's option names, defaults left to the engine."""
    version, rule = engine_version(record)
    rules.use(rule)
    settings = EngineSettings(
        engine=record.engine.name,
        version=version,
        kv_cache_dtype=kv_format_of(record, checkpoint, rules),
        kernel=_kernel(record, architecture, checkpoint, device, hardware, rules),
        online_quantization=_online_quantization(record, architecture, checkpoint),
    )
    settings = replace(settings, speculation=speculation_of(record, rules))
    return replace(settings, **_options(record, rules))


def _options(record: RunRecord, rules: Rules) -> dict[str, Any]:
    """Options that the row, its flags or the annotations set; the row's own word wins."""
    said = {name: getattr(record.settings, name) for name in ENGINE_OPTIONS}
    found = {**_known(record, rules), **_flags(record, rules)}
    return {**found, **{name: value for name, value in said.items() if value is not None}}


def _known(record: RunRecord, rules: Rules) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for settings, source in known_settings(record):
        rules.use(f"{', '.join(f'{k} {v}' for k, v in settings.items())}: {source}")
        found |= settings
    return found


def _flags(record: RunRecord, rules: Rules) -> dict[str, Any]:
    """Options that only the flags hold."""
    text = " ".join(record.engine.flags)
    found: dict[str, Any] = {}
    if "--max-num-seqs = concurrency" in text and record.workload.concurrency:
        found["max_num_seqs"] = record.workload.concurrency
        rules.use("max_num_seqs: the concurrency, from the flags")
    if "--async-scheduling" in text:
        found["async_scheduling"] = True
    sizes = _CAPTURE_SIZES.search(text)
    if sizes and record.settings.cudagraph_capture_sizes is None:
        counts = {int(count) for count in re.findall(r"\d+", sizes.group(1))}
        found["cudagraph_capture_sizes"] = tuple(sorted(counts - {0}))
        rules.use("CUDA graphs: the sizes from the flags")
    pool = re.search(r"(\d+) GiB KV", text)
    if pool:
        found["kv_cache_memory_bytes"] = int(pool.group(1)) * GIB
        rules.use(f"KV pool: {pool.group(1)} GiB, from the flags")
    return found


def _online_quantization(
    record: RunRecord, architecture: Architecture, checkpoint: Checkpoint
) -> dict[str, str]:
    """Components that the engine re-quantises at load and does not store so already."""
    words = (record.settings.mxfp4_layers or "").split(",")
    wanted = {_MXFP4_LAYERS[word.strip()] for word in words if word.strip() in _MXFP4_LAYERS}
    return {
        component: "mxfp4"
        for component in sorted(wanted & set(architecture.components))
        if component_formats(checkpoint, component, {}) != {"mxfp4": 1.0}
    }


def _kernel(
    record: RunRecord,
    architecture: Architecture,
    checkpoint: Checkpoint,
    device: Device,
    hardware: Hardware,
    rules: Rules,
) -> str | None:
    """The kernel family that the hints force, where this device has a table of it."""
    hints = record.settings.kernel_hints
    words = [word for hint, word in _KERNEL_WORDS.items() if hint in hints]
    if "triton" in hints and _TRITON_EXPERTS in " ".join(record.engine.flags).casefold():
        words.append("triton")
    known = _families(architecture, checkpoint, device, hardware)
    for word in words:
        if any(word in family.split("-") for family in known):
            rules.use(f"kernels: {word}, from the flags")
            return word
    if words:
        rules.use(f"kernels: {words[0]} has no table on {device.id}, the engine's choice instead")
    return None


def _families(
    architecture: Architecture, checkpoint: Checkpoint, device: Device, hardware: Hardware
) -> list[str]:
    """Kernel families of the device that serve a format of the checkpoint."""
    experts, dense = _kernel_formats(architecture, checkpoint)
    tables = hardware.kernel_set(device.id)
    return [t.family for t in tables.moe if experts & set(t.formats)] + [
        t.family for t in tables.linear if dense & set(t.formats)
    ]


def _kernel_formats(
    architecture: Architecture, checkpoint: Checkpoint
) -> tuple[set[str], set[str]]:
    """Formats of the routed experts, and of everything else."""
    experts: set[str] = set()
    dense: set[str] = set()
    for component in architecture.components:
        found = {kernel_format(fmt) for fmt in component_formats(checkpoint, component, {})}
        (experts if component == "routed_experts" else dense).update(found)
    return experts, dense
