"""Discrete-event simulation of serving: scheduler, KV cache, replicas, clients, metrics."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moeplan.simulation.engine import run
    from moeplan.simulation.replica import ReplicaSpec
    from moeplan.simulation.result import SimulationResult
    from moeplan.simulation.scheduler import Scheduler
    from moeplan.simulation.step_plan import SchedulerSettings
    from moeplan.simulation.trace import read_trace
    from moeplan.simulation.workload import Workload

__all__ = [
    "ReplicaSpec",
    "Scheduler",
    "SchedulerSettings",
    "SimulationResult",
    "Workload",
    "read_trace",
    "run",
]

_HOMES = {
    "ReplicaSpec": "replica",
    "Scheduler": "scheduler",
    "SchedulerSettings": "step_plan",
    "SimulationResult": "result",
    "Workload": "workload",
    "read_trace": "trace",
    "run": "engine",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import moeplan` loads neither SimPy nor pydantic."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
