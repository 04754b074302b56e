"""The smallest deployment that holds a model whose weights or cache did not fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from moeplan.cost.predictor import Prepared, prepare
from moeplan.deployment import Cluster, Deployment, Node, Placement
from moeplan.errors import DeploymentError, DoesNotFitError
from moeplan.hardware_specs import Hardware
from moeplan.models.checkpoint import Checkpoint

MOST_GPUS = 256
"""Beyond it the answer is another device."""


def smallest_fit(
    deployment: Deployment,
    checkpoints: Iterable[Checkpoint],
    hardware: Hardware,
    max_sequence_tokens: int,
) -> Prepared | None:
    """The deployment on the fewest GPUs of the same device that fits, None up to `MOST_GPUS`.

    On equal GPUs the checkpoint comes first that stands first in `checkpoints`, and tensor
    parallelism inside a node before pipeline stages.
    """
    forms = list(checkpoints)
    for gpus in _doublings():
        for checkpoint in forms:
            for candidate in _spread(deployment, checkpoint, hardware, gpus):
                try:
                    return prepare(candidate, hardware, max_sequence_tokens)
                except (DoesNotFitError, DeploymentError):
                    continue
    return None


def _doublings() -> Iterator[int]:
    gpus = 1
    while gpus <= MOST_GPUS:
        yield gpus
        gpus *= 2


def _spread(
    deployment: Deployment, checkpoint: Checkpoint, hardware: Hardware, gpus: int
) -> Iterator[Deployment]:
    """One replica over that many GPUs, the widest tensor parallelism of a node first."""
    device = hardware.devices[deployment.device]
    room = device.max_devices_per_node
    cluster = _cluster(deployment.cluster, device.id, gpus, room)
    tp = min(gpus, room)
    while tp:
        placement = Placement(tp=tp, pp=gpus // tp, ep=deployment.placement.ep)
        if gpus % tp == 0:
            try:
                yield replace(
                    deployment, checkpoint=checkpoint, cluster=cluster, placement=placement
                )
            except DeploymentError:
                pass
        tp //= 2


def _cluster(cluster: Cluster, device: str, gpus: int, room: int) -> Cluster:
    full, rest = divmod(gpus, room)
    sizes = [room] * full + ([rest] if rest else [])
    return replace(cluster, nodes=tuple(Node(device, size) for size in sizes))
