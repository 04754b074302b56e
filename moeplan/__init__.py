"""moeplan predicts and plans LLM serving for Mixture-of-Experts models.

    from moeplan import Cluster, Deployment, Workload, load_model, recommend, simulate

Names are imported where they are first used, so that `import moeplan` stays fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from moeplan.version import __version__ as __version__

if TYPE_CHECKING:
    from moeplan.deployment import Cluster, Deployment
    from moeplan.models import load_model
    from moeplan.planner.search import recommend
    from moeplan.simulation.api import simulate
    from moeplan.simulation.workload import Workload

__all__ = [
    "Cluster",
    "Deployment",
    "Workload",
    "load_model",
    "recommend",
    "simulate",
]

_HOMES = {
    "Cluster": "moeplan.deployment",
    "Deployment": "moeplan.deployment",
    "Workload": "moeplan.simulation.workload",
    "load_model": "moeplan.models",
    "recommend": "moeplan.planner.search",
    "simulate": "moeplan.simulation.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'moeplan' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
