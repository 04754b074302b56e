"""A record as what the simulator takes: `deployment_of`.

The rules for what a source does not say stand in the modules that apply them (`setup_model`,
`setup_engine`, `setup_workload`); each use is noted, so that a prediction lists them.
"""

from __future__ import annotations

from typing import NamedTuple

from moeplan.deployment import Cluster, Deployment, Node, Placement, Router
from moeplan.errors import UnknownNameError
from moeplan.hardware_specs import Device, Hardware, find_device, find_fabric
from moeplan.records.record import Parallelism, RunRecord
from moeplan.records.rules import NotCovered, Rules
from moeplan.records.setup_engine import engine_of
from moeplan.records.setup_model import model_of
from moeplan.records.setup_workload import workload_of
from moeplan.simulation.workload import Workload

_ROUTERS: dict[str | None, Router] = {
    None: "round_robin",
    "nginx": "round_robin",
    "round_robin": "round_robin",
    "round-robin": "round_robin",
    "litellm simple-shuffle": "simple-shuffle",
    "simple-shuffle": "simple-shuffle",
    "litellm least-busy": "least-busy",
    "least-busy": "least-busy",
}
_FABRICS = {
    "cx7-100gbe": "ethernet-100g",
    "infiniband between nodes, nvlink4 inside": "ib-ndr",
}
"""Links as sources write them, where the id differs."""
_PCIE_WITHOUT_P2P = {"pcie4": "pcie4-no-p2p", "pcie5": "pcie5-no-p2p"}


class Setup(NamedTuple):
    """What a record ran, and the rules that filled its gaps."""

    deployment: Deployment
    workload: Workload
    rules: tuple[str, ...]


def deployment_of(record: RunRecord, hardware: Hardware) -> Setup:
    """The recorded deployment and client protocol.

    Raises `NotCovered` with the reason where they cannot be predicted, and `DeploymentError` where
    no engine could have run them.
    """
    _check_covered(record)
    rules = Rules()
    entry, checkpoint = model_of(record, rules)
    device = _device(record, hardware)
    placement = _placement(record.parallelism)
    deployment = Deployment(
        architecture=entry.architecture,
        checkpoint=checkpoint,
        cluster=_cluster(record, device, placement, hardware, rules),
        placement=placement,
        router=_router(record),
        engine=engine_of(record, entry.architecture, checkpoint, device, hardware, rules),
    )
    return Setup(deployment, workload_of(record, rules), tuple(rules))


def _check_covered(record: RunRecord) -> None:
    spread = record.parallelism
    if spread.disagg is not None:
        raise NotCovered("prefill and decode on separate servers")
    if spread.dp_attention or (spread.dp or 1) > 1:
        raise NotCovered("attention data parallelism")
    if spread.tp is None or spread.pp is None:
        raise NotCovered("parallelism not said")
    if (spread.ep or 1) > 1 and (record.nodes or 1) > 1:
        raise NotCovered("expert parallelism across nodes")
    if (spread.ep or 1) not in (1, spread.tp):
        raise NotCovered("expert parallelism over a part of the tensor-parallel group")


def _device(record: RunRecord, hardware: Hardware) -> Device:
    if record.hardware is None:
        raise NotCovered("hardware not said")
    try:
        return find_device(hardware, record.hardware)
    except UnknownNameError:
        raise NotCovered(f"hardware {record.hardware} is not described") from None


def _placement(spread: Parallelism) -> Placement:
    return Placement(
        tp=spread.tp or 1,
        pp=spread.pp or 1,
        ep=(spread.ep or 1) > 1,
        replicas=spread.replicas,
    )


def _router(record: RunRecord) -> Router:
    said = record.parallelism.router
    name = said.casefold() if said else None
    if name not in _ROUTERS:
        raise NotCovered(f"router {said!r}")
    return _ROUTERS[name]


def _cluster(
    record: RunRecord, device: Device, placement: Placement, hardware: Hardware, rules: Rules
) -> Cluster:
    """The nodes that the placement takes; a host's idle GPUs are left out."""
    gpus = placement.gpus
    nodes = record.nodes or -(-gpus // device.max_devices_per_node)
    nodes = min(nodes, gpus)
    base, larger = divmod(gpus, nodes)
    sizes = [base + 1] * larger + [base] * (nodes - larger)
    intra, inter = _fabrics(record, device, hardware, rules)
    return Cluster(tuple(Node(device.id, size) for size in sizes), intra, inter)


def _fabrics(
    record: RunRecord, device: Device, hardware: Hardware, rules: Rules
) -> tuple[str, str]:
    """Links inside and between the nodes: the record's where it names one of that kind."""
    intra, inter = device.intra_node_fabric, device.inter_node_fabric
    if record.interconnect is None:
        return intra, inter
    try:
        fabric = find_fabric(hardware, _FABRICS.get(record.interconnect, record.interconnect))
    except UnknownNameError:
        raise NotCovered(f"link {record.interconnect!r} is not described") from None
    if fabric.id != record.interconnect:
        rules.use(f"link: {record.interconnect!r} taken as {fabric.id}")
    if fabric.scope == "inter-node":
        return intra, fabric.id
    return _peer_to_peer(record, device, fabric.id, rules), inter


def _peer_to_peer(record: RunRecord, device: Device, fabric: str, rules: Rules) -> str:
    """PCIe without peer-to-peer copies where the flags say so or the card's driver lacks them."""
    slow = _PCIE_WITHOUT_P2P.get(fabric)
    flags = " ".join(record.engine.flags).casefold()
    denied = "p2p off" in flags or "no p2p" in flags
    lacking = device.intra_node_fabric == slow and "p2p on" not in flags
    if slow is None or not (denied or lacking):
        return fabric
    rules.use(f"link: {slow}, " + ("from the flags" if denied else "this card's usual"))
    return slow
