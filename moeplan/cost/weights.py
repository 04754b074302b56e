"""Bytes of weights on one GPU of one pipeline stage, component by component.

Cuts follow vLLM: linears, experts, recurrent heads and the vocabulary are divided by the
tensor-parallel ranks; routers, norms, latent projections, indexers and MLA's down-projections are
replicated; KV projections are replicated where there are fewer KV heads than ranks; expert
parallelism keeps experts whole.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from moeplan.cost.formats import component_bytes_per_weight
from moeplan.cost.mxfp4_layout import mxfp4_layout
from moeplan.deployment import Deployment, Placement
from moeplan.hardware_specs.schema import Hardware
from moeplan.models.architecture import (
    Architecture,
    GroupedQueryAttention,
    LatentAttention,
    Layer,
    MoEFFN,
)
from moeplan.models.counting import layer_components

REPLICATED = frozenset({"router", "latent_proj", "norms", "attn_small", "indexer"})
_EXPERT_COMPONENTS = ("routed_experts", "expert_bias")


def stage_weight_bytes(
    deployment: Deployment,
    hardware: Hardware,
    layers: Sequence[Layer],
    *,
    first: bool,
    last: bool,
) -> dict[str, float]:
    """Weight bytes on one GPU of a stage with these layers, by component.

    `first` holds the embedding and the vision tower, `last` the head (the embedding again where
    they are tied).
    """
    architecture, tp = deployment.architecture, deployment.placement.tp
    online = deployment.engine.online_quantization
    distinct = Counter(layers)
    sizes = {}
    for component, count in _counts(architecture, distinct, first=first, last=last).items():
        extra = sum(
            times * _replicated(component, layer.mixer, architecture.hidden_size, tp)
            for layer, times in distinct.items()
        )
        held = count * _share(component, distinct, deployment.placement) + extra
        sizes[component] = held * component_bytes_per_weight(
            deployment.checkpoint, component, online
        )
    sizes |= _mxfp4_experts(deployment, hardware, distinct)
    if first and architecture.vision_params:
        vision = component_bytes_per_weight(deployment.checkpoint, "vision", online)
        sizes["vision"] = architecture.vision_params * vision / tp
    return sizes


def _counts(
    architecture: Architecture, layers: Counter[Layer], *, first: bool, last: bool
) -> Counter[str]:
    """Weights of a stage by component, before the cut."""
    total: Counter[str] = Counter()
    for layer, times in layers.items():
        for component, count in layer_components(architecture, layer).items():
            total[component] += count * times
    table = architecture.vocab_size * architecture.hidden_size
    tied = architecture.tie_word_embeddings
    if first or (last and tied):
        total["embed"] = table
    if last:
        total["norms"] += architecture.hidden_size
    if last and not tied:
        total["lm_head"] = table
    return total


def _share(component: str, layers: Iterable[Layer], placement: Placement) -> float:
    """Share of a component's weights on one GPU."""
    if component in _EXPERT_COMPONENTS:
        return expert_share(layers, placement)
    return 1.0 if component in REPLICATED else 1.0 / placement.tp


def expert_share(layers: Iterable[Layer], placement: Placement) -> float:
    """Share of a layer's routed experts on one GPU."""
    ranks = placement.tp * placement.dp
    experts = next(x.ffn.num_experts for x in layers if isinstance(x.ffn, MoEFFN))
    return math.ceil(experts / ranks) / experts if placement.ep else 1.0 / ranks


def _replicated(component: str, mixer: object, hidden: int, tp: int) -> float:
    if isinstance(mixer, GroupedQueryAttention) and component == "attn_proj":
        width = mixer.num_kv_heads * mixer.head_dim * (1 if mixer.k_eq_v else 2)
        copies = max(1.0, tp / mixer.num_kv_heads)
        return hidden * width * (copies - 1) / tp
    if isinstance(mixer, LatentAttention) and component in ("mla_q", "mla_kv"):
        latent = mixer.kv_lora_rank + mixer.qk_rope_head_dim
        # Without a query latent the full query projection is cut by heads: nothing is replicated.
        down = mixer.q_lora_rank if component == "mla_q" else latent
        return hidden * down * (1 - 1 / tp)
    return 0.0


def _mxfp4_experts(
    deployment: Deployment, hardware: Hardware, layers: Counter[Layer]
) -> dict[str, float]:
    """Bytes of MXFP4 experts in the layout of their kernel; nothing for other formats."""
    sizes: Counter[str] = Counter()
    for layer, times in layers.items():
        if not isinstance(layer.ffn, MoEFFN):
            continue
        share = expert_share(layers, deployment.placement)
        layout = mxfp4_layout(deployment, hardware, layer.ffn, share)
        if layout is None:
            return {}
        sizes["routed_experts"] += layout.total * times
        sizes["expert_bias"] += layout.biases * times
    return {name: size for name, size in sizes.items() if size}
