"""What vLLM's "Model loading took" counts beside weights: rotary tables and the allocator's blocks.

Both are of the main model; a drafter shares the tables and is small.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from moeplan.cost.allocator import surplus_bytes
from moeplan.cost.formats import component_bytes_per_weight, component_formats
from moeplan.cost.mxfp4_layout import mxfp4_layout
from moeplan.cost.weights import expert_share, stage_weight_bytes
from moeplan.deployment import Deployment
from moeplan.hardware_specs.schema import Hardware
from moeplan.models.architecture import (
    Architecture,
    GatedDeltaNet,
    GroupedQueryAttention,
    LatentAttention,
    Layer,
    Mamba2,
    MoEFFN,
)
from moeplan.models.checkpoint import BYTES_PER_WEIGHT

VALUE_BYTES: Mapping[str, float] = MappingProxyType(
    {"fp8_block": 1.0}
    | dict.fromkeys(("nvfp4", "nvfp4_a16", "mxfp4", "int4_g32", "int4_g128"), 0.5)
)
"""Bytes a weight without its scales."""
ROTARY_SHARE: Mapping[str, float] = MappingProxyType(
    {
        "nemotron_h": 0.0,
        "qwen3_next": 0.25,
        "qwen3_5": 0.25,
        "qwen3_5_moe": 0.25,
        "glm4_moe": 0.5,
        "minimax_m2": 0.5,
    }
)
"""Share of a head's width that is rotated, by model type (`partial_rotary_factor`, `rotary_dim` in
config.json); Nemotron-H's attention has no positions (vLLM `models/nemotron_h.py`)."""
ROTARY_BYTES: Mapping[str, int] = MappingProxyType(
    {"gpt_oss": 4, "deepseek_v3": 4, "deepseek_v32": 4, "kimi_k2": 4}
)
"""Bytes of an entry where it is FP32 (`models/gpt_oss.py`, `rotary_embedding/
deepseek_scaling_rope.py` with FlashInfer); 2 elsewhere."""


def loaded_extras(
    deployment: Deployment,
    hardware: Hardware,
    layers: Sequence[Layer],
    *,
    first: bool,
    last: bool,
) -> dict[str, float]:
    """Bytes on one GPU of a stage beside its weights, by kind; nothing for other engines."""
    if deployment.engine.engine != "vllm":
        return {}
    counts = Counter(layers)
    blocks = sum(
        times * sum(surplus_bytes(size) for size in _layer_tensors(deployment, hardware, layer))
        for layer, times in counts.items()
    )
    tables = stage_weight_bytes(deployment, hardware, (), first=first, last=last)
    blocks += sum(surplus_bytes(tables.get(name, 0.0)) for name in ("embed", "lm_head"))
    found = {
        "rotary_tables": rotary_bytes(deployment.architecture, layers),
        "allocator_blocks": blocks,
    }
    return {name: size for name, size in found.items() if size}


def rotary_bytes(architecture: Architecture, layers: Sequence[Layer]) -> float:
    """Bytes of sines and cosines: one table for each width that is rotated.

    Every rank holds all positions of the model (`rotary_embedding/base.py`).
    """
    share = ROTARY_SHARE.get(architecture.model_type, 1.0)
    widths = {_rotated(layer.mixer, share) for layer in layers} - {0.0}
    entry = ROTARY_BYTES.get(architecture.model_type, 2)
    return architecture.max_position_embeddings * sum(widths) * entry


def _rotated(mixer: object, share: float) -> float:
    if isinstance(mixer, LatentAttention):
        return mixer.qk_rope_head_dim
    return mixer.head_dim * share if isinstance(mixer, GroupedQueryAttention) else 0.0


def _layer_tensors(deployment: Deployment, hardware: Hardware, layer: Layer) -> Iterator[float]:
    """Bytes of the large tensors of one layer on one rank, fused as vLLM fuses them."""
    held = stage_weight_bytes(deployment, hardware, (layer,), first=False, last=False)
    if isinstance(layer.ffn, MoEFFN):
        share = expert_share((layer,), deployment.placement)
        layout = mxfp4_layout(deployment, hardware, layer.ffn, share)
        if layout is not None:
            held.pop("routed_experts")
            yield from layout.tensors
    for component, shares in _fused(layer).items():
        values = held.get(component, 0.0) * _value_share(deployment, component)
        yield from (values * part for part in shares)


def _value_share(deployment: Deployment, component: str) -> float:
    """Part of a component's bytes that are values; scales are tensors of their own, and small."""
    online = deployment.engine.online_quantization
    shares = component_formats(deployment.checkpoint, component, online)
    values = sum(part * VALUE_BYTES.get(fmt, BYTES_PER_WEIGHT[fmt]) for fmt, part in shares.items())
    whole = component_bytes_per_weight(deployment.checkpoint, component, online)
    return values / whole if whole else 0.0


def _fused(layer: Layer) -> dict[str, tuple[float, ...]]:
    """Tensors of a component by their share of it."""
    mlp = (2 / 3, 1 / 3) if getattr(layer.ffn, "gated", True) else (0.5, 0.5)
    parts = dict.fromkeys(("dense_mlp", "shared_experts", "routed_experts"), mlp)
    match layer.mixer:
        case GroupedQueryAttention() as mixer:
            queries = mixer.num_heads * (2 if mixer.output_gate else 1)
            keys = mixer.num_kv_heads * (1 if mixer.k_eq_v else 2)
            parts["attn_proj"] = _shares(queries + keys, mixer.num_heads)
        case LatentAttention():
            parts["mla_o"] = (1.0,)
        case Mamba2() as mixer:
            inner = mixer.num_heads * mixer.head_dim
            states = 2 * mixer.n_groups * mixer.state_size
            parts["mamba_proj"] = _shares(2 * inner + states + mixer.num_heads, inner)
        case GatedDeltaNet() as mixer:
            keys = 2 * mixer.num_k_heads * mixer.k_head_dim
            value = mixer.num_v_heads * mixer.v_head_dim
            parts["gdn_proj"] = _shares(keys + 2 * value, value)
    return parts


def _shares(into: float, out: float) -> tuple[float, float]:
    whole = into + out
    return into / whole, out / whole
