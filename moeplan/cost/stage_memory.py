"""What lies on one GPU of a pipeline stage beside the KV pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moeplan.cost.activations import profile_peak
from moeplan.cost.drafter import drafter_weight_bytes
from moeplan.cost.engine import ResolvedEngine
from moeplan.cost.engine_profile import capability
from moeplan.cost.graph_memory import graph_bytes
from moeplan.cost.loaded_extras import loaded_extras
from moeplan.cost.stages import split_layers
from moeplan.cost.weights import stage_weight_bytes
from moeplan.deployment import Deployment
from moeplan.hardware_specs.schema import Hardware
from moeplan.models.architecture import Layer

MIB = 2**20
CONTEXT_BYTES = 523 * MIB
"""CUDA context: what the driver shows before the first communicator (nvidia-smi, one H100, driver
580, validate/evidence/2026-11-27-served)."""
NCCL_BYTES = 512 * MIB
"""Communicators and all-reduce buffers where ranks talk, made before the engine looks at free
memory (estimate)."""
KERNEL_BYTES = 240 * MIB
"""Memory outside PyTorch that profiling adds: kernels loaded, and what the driver keeps for them.

Fitted to vLLM 0.24 on H100: seven engines on one GPU, 221 to 265 MiB after every counted term.
"""
RANK_BYTES = 340 * MIB
"""The same where tensor-parallel ranks talk, on top: communicators made in the first pass (two
engines on two H100, 337 and 340)."""
OTHER_WORKSPACE_BYTES = 512 * MIB
"""Persistent workspaces of engines other than vLLM (estimate)."""


@dataclass(frozen=True, slots=True)
class StageMemory:
    """Bytes on one GPU of one pipeline stage, the KV pool left out."""

    weights: dict[str, float]
    """By component."""
    activations: float
    workspaces: float
    cuda_graphs: float
    context: float
    """CUDA context, kernels and communicators."""

    @property
    def parts(self) -> dict[str, float]:
        """Every part in bytes, weights summed."""
        return {
            "weights": sum(self.weights.values()),
            "activations": self.activations,
            "workspaces": self.workspaces,
            "cuda_graphs": self.cuda_graphs,
            "context": self.context,
        }


def stage_memories(
    deployment: Deployment, hardware: Hardware, engine: ResolvedEngine
) -> list[StageMemory]:
    """Memory of every pipeline stage, first to last."""
    cuts = split_layers(deployment.architecture, deployment.placement.pp)
    end = len(cuts) - 1
    return [
        _stage(deployment, hardware, engine, layers, first=index == 0, last=index == end)
        for index, layers in enumerate(cuts)
    ]


def _stage(
    deployment: Deployment,
    hardware: Hardware,
    engine: ResolvedEngine,
    layers: Sequence[Layer],
    *,
    first: bool,
    last: bool,
) -> StageMemory:
    hopper = capability(hardware.devices[deployment.device])[0] == 9
    peak = profile_peak(deployment, hardware, engine, layers, first=first, last=last)
    talking = deployment.placement.gpus_per_replica > 1
    workspaces = peak.workspace + KERNEL_BYTES + (RANK_BYTES if talking else 0)
    activations = peak.transient
    if engine.engine != "vllm":
        workspaces, activations = OTHER_WORKSPACE_BYTES, activations + peak.workspace
    return StageMemory(
        weights=_weights(deployment, hardware, layers, first=first, last=last),
        activations=activations,
        workspaces=workspaces,
        cuda_graphs=graph_bytes(deployment, engine, layers, hopper=hopper),
        context=CONTEXT_BYTES + (NCCL_BYTES if talking else 0),
    )


def _weights(
    deployment: Deployment, hardware: Hardware, layers: Sequence[Layer], *, first: bool, last: bool
) -> dict[str, float]:
    found = stage_weight_bytes(deployment, hardware, layers, first=first, last=last)
    found |= loaded_extras(deployment, hardware, layers, first=first, last=last)
    drafter = drafter_weight_bytes(deployment, hardware) if last else 0.0
    return found | ({"drafter": drafter} if drafter else {})
