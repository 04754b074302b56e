"""Families with full or sliding grouped-query attention: Llama, Mistral, Mixtral, Qwen3, GLM-4.5,
MiniMax-M2, gpt-oss. Structure after the modelling files of transformers 5.24.
"""

from __future__ import annotations

from moeplan.models.architecture import GroupedQueryAttention, Layer
from moeplan.models.family_parts import (
    SLIDING_OR_FULL,
    biases,
    dense,
    dense_first,
    draft,
    grouped_query,
    routed,
    shared_width,
    uniform,
)
from moeplan.models.fields import Fields
from moeplan.models.structure import Structure


def llama(f: Fields) -> Structure:
    """Llama 2 and 3."""
    f.only("mlp_bias", False)
    return Structure(uniform(f, grouped_query(f, **biases(f)), dense(f)))


def _mistral_attention(f: Fields) -> GroupedQueryAttention:
    """Every layer slides where a window is stated; null means full attention."""
    window = f.nullable_integer("sliding_window")
    return grouped_query(f, kind="sliding" if window else "full", window=window)


def mistral(f: Fields) -> Structure:
    """Mistral 7B to Mistral Large."""
    return Structure(uniform(f, _mistral_attention(f), dense(f)))


def mixtral(f: Fields) -> Structure:
    """Mixtral: experts as wide as `intermediate_size`, no shared expert."""
    moe = routed(f, "num_local_experts", "intermediate_size")
    return Structure(uniform(f, _mistral_attention(f), moe))


def _qwen3_attention(f: Fields) -> GroupedQueryAttention:
    f.only("use_sliding_window", False)
    return grouped_query(f, qk_norm="head", **biases(f))


def qwen3(f: Fields) -> Structure:
    """Qwen3 dense."""
    return Structure(uniform(f, _qwen3_attention(f), dense(f)))


def qwen3_moe(f: Fields) -> Structure:
    """Qwen3 MoE: every `decoder_sparse_step`-th layer routes unless listed as dense."""
    layers = sparse_step_layers(f, _qwen3_attention(f), routed(f, "num_experts"))
    return Structure(layers)


def sparse_step_layers(f: Fields, mixer: object, moe: object) -> tuple[Layer, ...]:
    """Qwen's choice of dense layers: `mlp_only_layers` and `decoder_sparse_step`."""
    depth, step = f.integer("num_hidden_layers"), f.integer("decoder_sparse_step")
    plain = f.indices("mlp_only_layers", depth)
    sparse = [i not in plain and (i + 1) % step == 0 for i in range(depth)]
    mlp = None if all(sparse) else dense(f)
    return tuple(Layer(mixer, moe if is_moe else mlp) for is_moe in sparse)


def glm4_moe(f: Fields) -> Structure:
    """GLM-4.5 to 4.7: biased q, k and v, first layers dense, one shared expert, MTP."""
    norm = "head" if f.flag("use_qk_norm") else "none"
    attention = grouped_query(f, qk_norm=norm, **biases(f, output=False))
    moe = routed(f, "n_routed_experts", shared_intermediate_size=shared_width(f))
    layers = dense_first(f, attention, moe)
    mtp = draft(f, "num_nextn_predict_layers", [Layer(attention, moe)], copies=True)
    return Structure(layers, mtp=mtp)


def minimax_m2(f: Fields) -> Structure:
    """MiniMax-M2: query and key norms over all heads at once.

    The files announce MTP modules (`use_mtp`) that no published repository contains; only
    `shared_intermediate_size` = 0 was ever published.
    """
    f.only("shared_intermediate_size", 0)
    f.only("qk_norm_type", "per_layer")
    norm = "layer" if f.flag("use_qk_norm") else "none"
    moe = routed(f, "num_local_experts", "intermediate_size")
    return Structure(uniform(f, grouped_query(f, qk_norm=norm), moe))


def gpt_oss(f: Fields) -> Structure:
    """gpt-oss: sinks, biases everywhere, alternating windows, experts of `intermediate_size`."""
    depth = f.integer("num_hidden_layers")
    kinds = f.words("layer_types", SLIDING_OR_FULL, depth)
    common = {"sinks": True, **biases(f)}
    mixers = {"full": grouped_query(f, **common)}
    if "sliding" in kinds:
        window = f.integer("sliding_window")
        mixers["sliding"] = grouped_query(f, kind="sliding", window=window, **common)
    chosen = ("num_experts_per_tok", "experts_per_token")  # the published files state both
    extras = {"expert_bias": True, "router_bias": True}
    moe = routed(f, "num_local_experts", "intermediate_size", chosen, **extras)
    return Structure(tuple(Layer(mixers[kind], moe) for kind in kinds))
