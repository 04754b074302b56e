"""All-reduces of tensor parallelism and the sends of pipeline parallelism."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moeplan.cost.operators import MICRO, Array, Cost, Load, interpolate_curve
from moeplan.deployment import Cluster
from moeplan.errors import DeploymentError
from moeplan.hardware_specs.schema import AllReduce, Fabric, Hardware, Provenance

ACTIVATION_BYTES = 2
"""Hidden states travel as BF16."""
GIGA = 1e9


@dataclass(frozen=True, slots=True)
class Hop:
    """One level of an all-reduce: `gpus` ranks over one fabric."""

    fabric: Fabric
    gpus: int
    custom: AllReduce | None
    nccl: AllReduce | None
    message_share: float = 1.0
    """Share of the message that each rank moves on this level."""

    def seconds(self, nbytes: Array) -> Array:
        """Time of one all-reduce of `nbytes`, by the path that vLLM dispatches that size to."""
        nbytes = np.asarray(nbytes, dtype=float) * self.message_share
        paths = [table for table in (self.custom, self.nccl) if table]
        times = [interpolate_all_reduce(table, nbytes) for table in paths]
        if len(times) == 2 and self.custom.max_bytes is not None:
            total = np.where(nbytes <= self.custom.max_bytes, *times)
        else:
            total = times[0]
        extra = self.fabric.serving_extra_us
        return total + (extra.value * MICRO if extra else 0.0)


def interpolate_all_reduce(table: AllReduce, nbytes: Array) -> Array:
    """Seconds of one all-reduce; beyond the largest measured size at that size's bandwidth."""
    last_bytes, last_us = table.us_by_bytes[-1]
    inside = interpolate_curve(table.us_by_bytes, nbytes)
    beyond = last_us * np.asarray(nbytes) / last_bytes
    return np.where(np.asarray(nbytes) > last_bytes, beyond, inside) * MICRO


def all_reduce_hop(fabric: Fabric, gpus: int, device: str, message_share: float = 1.0) -> Hop:
    """The tables that serve `gpus` ranks of `device` on this fabric.

    Tables of the device come before general ones; where the number of ranks was not measured the
    next larger one serves (pessimistic), else the largest.
    """
    custom, nccl = (_table(fabric, gpus, device, path) for path in ("custom", "nccl"))
    return Hop(fabric, gpus, custom, nccl, message_share)


def _table(fabric: Fabric, gpus: int, device: str, path: str) -> AllReduce | None:
    tables = [t for t in fabric.all_reduce if t.path == path]
    own = [t for t in tables if device in t.devices]
    tables = own or [t for t in tables if not t.devices] or tables
    if path == "custom":  # the kernel exists for these ranks or it does not
        return next((t for t in tables if t.gpus == gpus), None)
    enough = sorted((t for t in tables if t.gpus >= gpus), key=lambda t: t.gpus)
    return enough[0] if enough else max(tables, key=lambda t: t.gpus, default=None)


@dataclass(frozen=True, slots=True)
class AllReduceOperator:
    """All-reduce of the hidden states over a tensor-parallel group, once a mixer or FFN.

    A group that spans nodes reduces inside each node, then between the nodes.
    """

    name: str
    count: float
    hops: tuple[Hop, ...]
    bytes_per_token: float

    @property
    def family(self) -> str:
        return " + ".join(f"{hop.fabric.id}×{hop.gpus}" for hop in self.hops)

    @property
    def provenance(self) -> Provenance:
        return self.hops[-1].custom or self.hops[-1].nccl

    def cost(self, load: Load) -> Cost:
        nbytes = self.bytes_per_token * np.asarray(load.padded_tokens, dtype=float)
        seconds = sum(hop.seconds(np.maximum(nbytes, 1.0)) for hop in self.hops)
        seconds = np.where(nbytes > 0, seconds, 0.0)
        smallest = sum(hop.seconds(1.0) for hop in self.hops)
        return Cost(seconds, nbytes, 0.0, smallest, seconds - smallest, 0.0)


def all_reduce_hops(hardware: Hardware, cluster: Cluster, tp: int) -> tuple[Hop, ...]:
    """The levels of an all-reduce over `tp` ranks laid out node by node; empty for one rank.

    Raises `DeploymentError` where a fabric has no all-reduce table at all.
    """
    if tp == 1:
        return ()
    local = min(tp, cluster.nodes[0].devices)
    nodes = -(-tp // local)
    hops = []
    # Ranks of a node scatter the sum among themselves; each sends its part to the other nodes.
    levels = ((cluster.intra_fabric, local, 1.0), (cluster.inter_fabric, nodes, 1 / local))
    for fabric_id, gpus, share in levels:
        if gpus > 1:
            device = cluster.nodes[0].device
            hop = all_reduce_hop(hardware.fabrics[fabric_id], gpus, device, share)
            if hop.custom is None and hop.nccl is None:
                raise DeploymentError(
                    f"fabric {fabric_id} has no all-reduce figures; name another with --fabric"
                )
            hops.append(hop)
    return tuple(hops)


@dataclass(frozen=True, slots=True)
class SendOperator:
    """Hidden states handed to the next pipeline stage."""

    name: str
    count: float
    fabric: Fabric
    bytes_per_token: float

    @property
    def family(self) -> str:
        return self.fabric.id

    @property
    def provenance(self) -> Provenance:
        return self.fabric.latency_us

    def cost(self, load: Load) -> Cost:
        nbytes = self.bytes_per_token * np.asarray(load.tokens, dtype=float)
        floor = self.fabric.latency_us.value * MICRO
        moving = nbytes / (self.fabric.bandwidth_gb_per_s.value * GIGA)
        return Cost(floor + moving, nbytes, 0.0, floor, moving, 0.0)


def stage_fabric(hardware: Hardware, cluster: Cluster, tp: int) -> Fabric:
    """Fabric between neighbouring pipeline stages: within a node if both stages fit in one."""
    inside = cluster.nodes[0].devices >= 2 * tp
    return hardware.fabrics[cluster.intra_fabric if inside else cluster.inter_fabric]
