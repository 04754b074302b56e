"""Deployments in one line."""

from __future__ import annotations

from moeplan.deployment import Cluster, Deployment, EngineSettings, Node, Placement
from moeplan.models import load_model
from moeplan.models.checkpoint import Checkpoint


def deployment(model, device="h100_sxm", tp=1, pp=1, dp=1, ep=False, checkpoint=None, **options):
    """A catalogued model's checkpoint, or an architecture in BF16, on nodes with NVLink."""
    if isinstance(model, str):
        entry = load_model(model)
        name = checkpoint or entry.default_checkpoint.name
        model, stored = entry.architecture, entry.checkpoint(name, hypothetical=True)
    else:
        stored = Checkpoint("bf16", None, "bf16")
    cluster = Cluster((Node(device, tp * pp * dp),), "nvlink4", "ib-ndr")
    placement = Placement(tp=tp, pp=pp, dp=dp, ep=ep)
    return Deployment(model, stored, cluster, placement, engine=EngineSettings(**options))
