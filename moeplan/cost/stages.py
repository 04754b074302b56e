"""A deployment's operators, gathered by pipeline stage."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise

from moeplan.cost.collectives import (
    ACTIVATION_BYTES,
    AllReduceOperator,
    SendOperator,
    all_reduce_hops,
    stage_fabric,
)
from moeplan.cost.launches import StepLaunches, step_launches
from moeplan.cost.layers import Cut, head_operators, layer_operators
from moeplan.cost.operators import DecodeAttentionOperator, PrefillAttentionOperator
from moeplan.deployment import Deployment
from moeplan.hardware_specs.schema import Hardware
from moeplan.models.architecture import Architecture, Layer


@dataclass(frozen=True)
class Stage:
    """What one GPU of one pipeline stage executes in a step; operator counts are per step."""

    token: tuple
    """Priced by a `Load`: GEMMs, experts, recurrent updates, all-reduces, the send."""
    decode_attention: tuple[DecodeAttentionOperator, ...]
    prefill_attention: tuple[PrefillAttentionOperator, ...]
    layer_equivalents: float
    """Layers of a mixer and an FFN each; a block with only one of them counts half."""
    launches: StepLaunches


def split_layers(architecture: Architecture, stages: int) -> list[tuple[Layer, ...]]:
    """Layers of each stage, as vLLM's `get_pp_indices` cuts them.

    The remainder goes one layer each to the stages before the last, which has the LM head.
    """
    layers = architecture.layers
    sizes = [len(layers) // stages] * stages
    for i in range(len(layers) % stages):
        sizes[-2 - i] += 1
    bounds = [sum(sizes[:i]) for i in range(stages + 1)]
    return [tuple(layers[a:b]) for a, b in pairwise(bounds)]


def build_stages(deployment: Deployment, hardware: Hardware, cut: Cut) -> tuple[Stage, ...]:
    """All pipeline stages of one replica."""
    parts = split_layers(deployment.architecture, deployment.placement.pp)
    return tuple(
        _stage(deployment, hardware, cut, layers, last=i == len(parts) - 1)
        for i, layers in enumerate(parts)
    )


def _stage(
    deployment: Deployment,
    hardware: Hardware,
    cut: Cut,
    layers: tuple[Layer, ...],
    *,
    last: bool,
) -> Stage:
    token, decode, prefill = [], [], []
    for layer, times in Counter(layers).items():
        operators = layer_operators(layer, cut)
        token += [replace(op, count=op.count * times) for op in operators.token]
        decode += [replace(op, count=op.count * times) for op in operators.decode_attention]
        prefill += [replace(op, count=op.count * times) for op in operators.prefill_attention]
    parts = sum(layer.collectives for layer in layers)
    token += _communication(deployment, hardware, parts, last=last)
    if last:
        token += head_operators(cut)
    launches = step_launches(token, decode, parts, hardware.launches)
    return Stage(tuple(token), tuple(decode), tuple(prefill), parts / 2, launches)


def _communication(
    deployment: Deployment, hardware: Hardware, all_reduces: int, *, last: bool
) -> list:
    cluster, tp = deployment.cluster, deployment.placement.tp
    width = deployment.architecture.hidden_size * ACTIVATION_BYTES
    operators: list = []
    hops = all_reduce_hops(hardware, cluster, tp)
    if hops:
        operators.append(AllReduceOperator("all-reduce", all_reduces, hops, width))
    if not last:
        fabric = stage_fabric(hardware, cluster, tp)
        # Hidden states and residual travel; each TP rank sends its slice and gathers it there.
        operators.append(SendOperator("send to next stage", 1.0, fabric, 2 * width / tp))
    return operators
