"""Parts that several model families read from config.json alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from moeplan.models.architecture import (
    MTP,
    DenseFFN,
    GroupedQueryAttention,
    Layer,
    MoEFFN,
)
from moeplan.models.fields import Fields

SLIDING_OR_FULL = {"sliding_attention": "sliding", "full_attention": "full"}
Kind = Literal["full", "sliding", "chunked"]


def head_dim(f: Fields) -> int:
    """Width of an attention head: stated, or hidden / heads (transformers' rule when left out)."""
    if f.has("head_dim"):
        return f.integer("head_dim")
    hidden, heads = f.integer("hidden_size"), f.integer("num_attention_heads")
    if hidden % heads:
        remedy = f"does not divide hidden_size = {hidden}, and head_dim is missing; add head_dim"
        f.refuse("num_attention_heads", heads, remedy)
    return hidden // heads


def grouped_query(
    f: Fields,
    *,
    kind: Kind = "full",
    window: int | None = None,
    kv_heads: int | None = None,
    width: int | None = None,
    **extras: Any,
) -> GroupedQueryAttention:
    """Grouped-query attention; `kv_heads` and `width` override the common fields.

    Raises:
        ModelConfigError: the query heads are no multiple of the KV heads.
    """
    heads = f.integer("num_attention_heads")
    kv = f.integer("num_key_value_heads") if kv_heads is None else kv_heads
    if heads % kv:
        f.refuse("num_attention_heads", heads, f"must be a multiple of the {kv} KV heads")
    size = head_dim(f) if width is None else width
    return GroupedQueryAttention(kind, heads, kv, size, window=window, **extras)


def biases(f: Fields, output: bool = True) -> dict[str, bool]:
    """`attention_bias` as biases of the q, k, v and (where the family has one) o projection."""
    stated = f.flag("attention_bias")
    return {"qkv_bias": stated, "o_bias": stated and output}


def dense(f: Fields, name: str = "intermediate_size") -> DenseFFN:
    """A gated dense MLP."""
    return DenseFFN(f.integer(name))


def routed(
    f: Fields,
    experts: str,
    width: str = "moe_intermediate_size",
    chosen: tuple[str, ...] = ("num_experts_per_tok",),
    **extras: Any,
) -> MoEFFN:
    """Routed experts: the fields with their number, their width and how many a token visits.

    Raises:
        ModelConfigError: more experts a token than experts.
    """
    total = f.integer(experts)
    per_token = f.integer(*chosen)
    if per_token > total:
        f.refuse(chosen[0], per_token, f"exceeds {experts} = {total}")
    return MoEFFN(total, per_token, f.integer(width), **extras)


def shared_width(f: Fields) -> int:
    """Width of the shared experts of DeepSeek's kind: their number times a routed expert's."""
    return f.integer("n_shared_experts", minimum=0) * f.integer("moe_intermediate_size")


def uniform(f: Fields, mixer: Any, ffn: Any) -> tuple[Layer, ...]:
    """The same layer `num_hidden_layers` times."""
    return (Layer(mixer, ffn),) * f.integer("num_hidden_layers")


def dense_first(f: Fields, mixer: Any, moe: MoEFFN) -> tuple[Layer, ...]:
    """Dense layers first, MoE after: `mlp_layer_types`, or `first_k_dense_replace`."""
    depth = f.integer("num_hidden_layers")
    if f.has("mlp_layer_types"):
        sparse = f.words("mlp_layer_types", {"dense": False, "sparse": True}, depth)
    else:
        first = f.integer("first_k_dense_replace", minimum=0)
        if first > depth:
            f.refuse("first_k_dense_replace", first, f"exceeds num_hidden_layers = {depth}")
        every = f.integer("moe_layer_freq") if f.has("moe_layer_freq") else 1
        sparse = [i >= first and i % every == 0 for i in range(depth)]
    plain = None if all(sparse) else dense(f)
    return tuple(Layer(mixer, moe if is_moe else plain) for is_moe in sparse)


def draft(f: Fields, name: str, layers: Sequence[Layer], *, copies: bool) -> MTP | None:
    """MTP modules, their number under `name`; None where it is 0 or left out.

    `copies`: the published checkpoints store embedding and head once more beside the module.
    """
    modules = f.integer(name, minimum=0) if f.has(name) else 0
    return MTP(modules, tuple(layers), copies_embed_and_head=copies) if modules else None
