"""Options of `vllm serve` that make the engine what a prediction assumed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moeplan.cost.engine_profile import version_key
from moeplan.planner.launch import serve_arguments
from moeplan.validate.probe import ASYNC_CLASS, SYNC_CLASS
from moeplan.validate.routing import EXTENSION

if TYPE_CHECKING:
    from moeplan.cost.predictor import Prepared

NAMES_EVERY_COMPILATION = (0, 24)
"""vLLM releases that log each kernel compiled while serving only if told; else each name once."""


def engine_options(prepared: Prepared, *, dummy: bool, probe: bool, routers: bool) -> list[str]:
    """Options after the model: the resolved settings, `dummy` weights, probe and drawn routers."""
    options = serve_arguments(prepared)[1:]
    if version_key(prepared.engine.version) >= NAMES_EVERY_COMPILATION:
        options.append("--jit-monitor-verbose")
    if dummy:
        options += ["--load-format", "dummy"]
    if probe:
        chosen = ASYNC_CLASS if prepared.engine.async_scheduling else SYNC_CLASS
        options += ["--scheduler-cls", chosen]
    if routers:
        options += ["--worker-extension-cls", EXTENSION]
    return options
