"""Options of `vllm serve` that make the engine what a prediction assumed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moeplan.planner.launch import serve_arguments
from moeplan.validate.probe import ASYNC_CLASS, SYNC_CLASS
from moeplan.validate.routing import EXTENSION

if TYPE_CHECKING:
    from moeplan.cost.predictor import Prepared

_GIVEN = {
    "kv_cache_memory_bytes": "--kv-cache-memory-bytes",
    "num_gpu_blocks_override": "--num-gpu-blocks-override",
    "block_size": "--block-size",
}
"""Settings passed on only where the user set them: each replaces a rule of the engine."""


def engine_options(prepared: Prepared, *, dummy: bool, probe: bool, routers: bool) -> list[str]:
    """Options after the model: the resolved settings, `dummy` weights, probe and drawn routers."""
    settings = prepared.deployment.engine
    options = serve_arguments(prepared)[1:]
    for name, option in _GIVEN.items():
        value = getattr(settings, name)
        if value is not None:
            options += [option, str(value)]
    if settings.long_prefill_token_threshold:
        options += ["--long-prefill-token-threshold", str(settings.long_prefill_token_threshold)]
    if settings.watermark:
        options += ["--watermark", str(settings.watermark)]
    if settings.disable_hybrid_kv_cache_manager:
        options += ["--disable-hybrid-kv-cache-manager"]
    if settings.async_scheduling is not None:
        options += [f"--{'' if settings.async_scheduling else 'no-'}async-scheduling"]
    if dummy:
        options += ["--load-format", "dummy"]
    if probe:
        chosen = ASYNC_CLASS if prepared.engine.async_scheduling else SYNC_CLASS
        options += ["--scheduler-cls", chosen]
    if routers:
        options += ["--worker-extension-cls", EXTENSION]
    return options
