"""The smallest deployment that holds a model: fewest GPUs, own checkpoint first, else None."""

from __future__ import annotations

from moeplan.cost.predictor import prepare
from moeplan.deployment import Cluster, Deployment, Node
from moeplan.errors import DoesNotFitError
from moeplan.hardware_specs import load_hardware
from moeplan.models import load_model
from moeplan.planner.smallest import smallest_fit

HARDWARE = load_hardware()
TOKENS = 4096


def deployment(model: str, device: str) -> Deployment:
    known = HARDWARE.devices[device]
    cluster = Cluster((Node(device, 1),), known.intra_node_fabric, known.inter_node_fabric)
    entry = load_model(model)
    return Deployment(entry.architecture, entry.default_checkpoint, cluster)


def fits(candidate: Deployment) -> bool:
    try:
        prepare(candidate, HARDWARE, TOKENS)
    except DoesNotFitError:
        return False
    return True


def test_half_the_gpus_would_not_do():
    start = deployment("llama-3.3-70b", "h100_sxm")
    found = smallest_fit(start, [start.checkpoint], HARDWARE, TOKENS)
    assert not fits(start)
    assert found is not None
    assert found.deployment.placement.gpus == 2
    assert found.deployment.placement.tp == 2


def test_a_smaller_checkpoint_on_fewer_gpus_comes_first():
    start = deployment("llama-3.3-70b", "h100_sxm")
    forms = load_model("llama-3.3-70b").checkpoints
    found = smallest_fit(start, forms, HARDWARE, TOKENS)
    assert found is not None
    assert found.deployment.placement.gpus == 1
    assert found.deployment.checkpoint.name != "bf16"


def test_more_than_a_node_becomes_pipeline_stages():
    start = deployment("deepseek-v3", "h100_sxm")
    found = smallest_fit(start, [start.checkpoint], HARDWARE, TOKENS)
    assert found is not None
    placement = found.deployment.placement
    assert placement.gpus == 16
    assert (placement.tp, placement.pp) == (8, 2)
    assert len(found.deployment.cluster.nodes) == 2
