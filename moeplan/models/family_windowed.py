"""Families whose layers alternate between windows and full attention by their own rules: Gemma 3,
Gemma 4, Llama 4. Structure after the modelling files of transformers 5.24.
"""

from __future__ import annotations

from moeplan.models.architecture import FFN, GroupedQueryAttention, Layer, MoEFFN
from moeplan.models.family_parts import SLIDING_OR_FULL, biases, dense, grouped_query, routed
from moeplan.models.fields import Fields
from moeplan.models.structure import Structure

CHUNKED_OR_FULL = {"chunked_attention": "chunked", "full_attention": "full"}
GEMMA_DENSE_NORMS = 4
"""Before and after attention, before and after the MLP."""
GEMMA_MOE_NORMS = 7
"""Three more: after the dense MLP, before and after the experts."""


def gemma3(f: Fields) -> Structure:
    """Gemma 3: five sliding layers, then one full."""
    depth = f.integer("num_hidden_layers")
    if f.has("layer_types"):
        kinds = f.words("layer_types", SLIDING_OR_FULL, depth)
    else:
        every = f.integer("sliding_window_pattern", "_sliding_window_pattern")
        kinds = ["full" if (i + 1) % every == 0 else "sliding" for i in range(depth)]
    common = {"qk_norm": "head", **biases(f)}
    window = f.integer("sliding_window")
    mixers = {
        "full": grouped_query(f, **common),
        "sliding": grouped_query(f, kind="sliding", window=window, **common),
    }
    mlp = dense(f)
    layers = tuple(Layer(mixers[kind], mlp) for kind in kinds)
    return Structure(layers, norms_per_layer=GEMMA_DENSE_NORMS)


# ----------------------------------------------------------------- Gemma 4


def gemma4(f: Fields) -> Structure:
    """Gemma 4, dense or with experts beside the dense MLP.

    The small models with per-layer input tables or shared KV layers (E2B, E4B) are refused.
    """
    f.only("hidden_size_per_layer_input", 0)
    f.only("num_kv_shared_layers", 0)
    kinds = f.words("layer_types", SLIDING_OR_FULL, f.integer("num_hidden_layers"))
    window = f.integer("sliding_window")
    mixers = {
        "full": _gemma4_full(f),
        "sliding": grouped_query(f, kind="sliding", window=window, qk_norm="head", **biases(f)),
    }
    ffn = _gemma4_ffn(f)
    norms = GEMMA_MOE_NORMS if isinstance(ffn, MoEFFN) else GEMMA_DENSE_NORMS
    return Structure(tuple(Layer(mixers[k], ffn) for k in kinds), norms_per_layer=norms)


def _gemma4_full(f: Fields) -> GroupedQueryAttention:
    """Full layers have wider heads, and with `attention_k_eq_v` their own number of KV heads."""
    k_eq_v = f.flag("attention_k_eq_v")
    kv_heads = f.optional_integer("num_global_key_value_heads") if k_eq_v else None
    width = f.integer("global_head_dim")
    return grouped_query(
        f, kv_heads=kv_heads, width=width, qk_norm="head", k_eq_v=k_eq_v, **biases(f)
    )


def _gemma4_ffn(f: Fields) -> FFN:
    mlp = dense(f)
    if not f.flag("enable_moe_block"):
        return mlp
    width = mlp.intermediate_size
    extras = {"parallel_dense_intermediate": width, "router_scales": True}
    return routed(f, "num_experts", chosen=("top_k_experts",), **extras)


# ----------------------------------------------------------------- Llama 4


def llama4(f: Fields) -> Structure:
    """Llama 4: chunked layers with RoPE, full layers without; its query-key norm has no weights."""
    depth = f.integer("num_hidden_layers")
    bias = biases(f)
    kinds = _chunked_or_full(f, depth)
    mixers = {"full": grouped_query(f, **bias)}
    if "chunked" in kinds:
        chunk = f.integer("attention_chunk_size")
        mixers["chunked"] = grouped_query(f, kind="chunked", window=chunk, **bias)
    sparse = _llama4_moe_layers(f, depth)
    width = f.integer("intermediate_size")
    moe = routed(f, "num_local_experts", "intermediate_size", shared_intermediate_size=width)
    mlp = dense(f, "intermediate_size_mlp") if len(sparse) < depth else None
    layers = (Layer(mixers[k], moe if i in sparse else mlp) for i, k in enumerate(kinds))
    return Structure(tuple(layers))


def _chunked_or_full(f: Fields, depth: int) -> list[str]:
    """`layer_types`; else `no_rope_layers` (1: RoPE, chunked; 0: full); else every fourth full.

    An empty `no_rope_layers` counts as unstated, as in Llama4TextConfig.
    """
    if f.has("layer_types"):
        return f.words("layer_types", CHUNKED_OR_FULL, depth)
    if f.nullable_integer("attention_chunk_size") is None:
        return ["full"] * depth
    if f.stated_list("no_rope_layers"):
        ropes = f.numbers("no_rope_layers", (0, 1), depth)
        return ["chunked" if rope else "full" for rope in ropes]
    every = f.integer("no_rope_layer_interval")
    return ["full" if (i + 1) % every == 0 else "chunked" for i in range(depth)]


def _llama4_moe_layers(f: Fields, depth: int) -> set[int]:
    if f.has("moe_layers"):
        return f.indices("moe_layers", depth)
    step = f.integer("interleave_moe_layer_step")
    return set(range(step - 1, depth, step))
