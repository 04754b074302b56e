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
    room = hardware.devices[deployment.device].max_devices_per_node
    forms = list(checkpoints)
    for gpus in _doublings(MOST_GPUS):
        cluster = cluster_of(deployment.cluster, gpus, room)
        for checkpoint in forms:
            for tp in reversed([*_doublings(min(gpus, room))]):
                placement = Placement(tp=tp, pp=gpus // tp, ep=deployment.placement.ep)
                try:
                    candidate = replace(
                        deployment, checkpoint=checkpoint, cluster=cluster, placement=placement
                    )
                    return prepare(candidate, hardware, max_sequence_tokens)
                except (DoesNotFitError, DeploymentError):
                    continue
    return None


def _doublings(most: int) -> Iterator[int]:
    number = 1
    while number <= most:
        yield number
        number *= 2


def cluster_of(cluster: Cluster, gpus: int, room: int) -> Cluster:
    """As many nodes of the first one's device, `room` GPUs in each, as those GPUs need."""
    full, rest = divmod(gpus, room)
    sizes = [room] * full + ([rest] if rest else [])
    return replace(cluster, nodes=tuple(Node(cluster.nodes[0].device, size) for size in sizes))
