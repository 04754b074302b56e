"""What a step would take after single changes of its deployment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from moeplan.cost.batch import StepBatch
from moeplan.cost.predictor import Prepared, prepare
from moeplan.errors import DeploymentError, DoesNotFitError
from moeplan.estimate import Estimate
from moeplan.models.checkpoint import Checkpoint
from moeplan.planner.smallest import cluster_of


@dataclass(frozen=True, slots=True)
class Change:
    """One change, and the same step after it."""

    change: str
    gpus: int
    step_seconds: Estimate | None
    refused: str | None = None
    """Why no engine could run it."""


def priced_changes(
    prepared: Prepared,
    checkpoints: Iterable[Checkpoint],
    batch: StepBatch,
    longest: int,
) -> list[Change]:
    """The step on the deployment changed in one respect at a time, the fastest first.

    `checkpoints` are other forms of the weights to try, `longest` the tokens of the longest
    sequence that must fit. Changes that cannot run come last.
    """
    found = [
        _priced(name, change, prepared, batch, longest)
        for name, change in _changes(prepared, checkpoints)
    ]
    return sorted(found, key=lambda c: c.step_seconds.value if c.step_seconds else float("inf"))


Changed = Iterator[tuple[str, dict[str, Any]]]
"""What the change is called, and the fields of the deployment that it replaces."""


def _changes(prepared: Prepared, checkpoints: Iterable[Checkpoint]) -> Changed:
    deployment = prepared.deployment
    for checkpoint in checkpoints:
        if checkpoint.name != deployment.checkpoint.name:
            yield f"{checkpoint.name} weights", {"checkpoint": checkpoint}
    yield from _engine_changes(prepared)
    yield from _placement_changes(prepared)


def _engine_changes(prepared: Prepared) -> Changed:
    engine = prepared.deployment.engine
    if prepared.engine.kv_format == "bf16":
        yield "FP8 KV cache", {"engine": replace(engine, kv_cache_dtype="fp8")}
    if engine.enforce_eager:
        yield "CUDA graphs", {"engine": replace(engine, enforce_eager=False)}


def _placement_changes(prepared: Prepared) -> Changed:
    deployment = prepared.deployment
    placement, room = deployment.placement, prepared.hardware.devices[deployment.device]
    twice = replace(placement, tp=2 * placement.tp)
    cluster = cluster_of(deployment.cluster, twice.gpus, room.max_devices_per_node)
    yield f"TP{twice.tp}", {"placement": twice, "cluster": cluster}
    if placement.tp > 1:
        half = replace(placement, tp=placement.tp // 2)
        yield f"TP{half.tp}", {"placement": half}
        other = replace(placement, ep=not placement.ep)
        yield "experts cut" if placement.ep else "whole experts (EP)", {"placement": other}


def _priced(
    name: str,
    changed: dict[str, Any],
    prepared: Prepared,
    batch: StepBatch,
    longest: int,
) -> Change:
    gpus = changed.get("placement", prepared.deployment.placement).gpus
    try:
        deployment = replace(prepared.deployment, **changed)
        found = prepare(deployment, prepared.hardware, longest)
    except (DeploymentError, DoesNotFitError) as error:
        return Change(name, gpus, None, str(error))
    return Change(name, gpus, Estimate(found.timer.step_seconds(batch), found.basis))
