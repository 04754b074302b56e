"""Counts that follow from an `Architecture`: weights, cache elements, state bytes and FLOPs.

Counts are exact integers of weights or elements. Structure after the modelling files of
transformers 5.24 (one per model type); checked against published totals and file sizes. Router
bias-correction vectors that are buffers, block scales and tensor headers are not weights and are
left out.
"""

from __future__ import annotations

from collections import Counter
from functools import singledispatch
from typing import NamedTuple

from moeplan.models.architecture import (
    Architecture,
    DenseFFN,
    GatedDeltaNet,
    GroupedQueryAttention,
    LatentAttention,
    Layer,
    Mamba2,
    MoEFFN,
)

CONV_BYTES = 2
"""Bytes of one convolution-state element: the model's 16-bit dtype."""
GDN_FLOPS_PER_STATE = 7
"""Decay (1), read k·S (2), rank-one update (2), read q·S (2) an element (Yang et al. 2024)."""
MAMBA_FLOPS_PER_STATE = 5
"""Decay (1), outer-product update (2), read-out (2) an element (Dao & Gu 2024)."""


class StateBytes(NamedTuple):
    """Recurrent state of one sequence, in bytes."""

    ssm: int
    """Recurrent matrix, at the precision that the config asks for."""
    conv: int
    """Columns that the causal convolution looks back on, 16-bit."""


# ------------------------------------------------------------------ weights


def main_components(arch: Architecture) -> Counter[str]:
    """Weights of the main model by component; a tied table counts once, as `embed`."""
    total: Counter[str] = Counter()
    for layer in arch.layers:
        total.update(layer_components(arch, layer))
    table = arch.vocab_size * arch.hidden_size
    total.update(norms=arch.hidden_size, embed=table)
    if not arch.tie_word_embeddings:
        total.update(lm_head=table)
    return total


def mtp_components(arch: Architecture) -> Counter[str]:
    """Weights of all MTP modules by component; empty without MTP.

    Each module fuses the previous hidden state with the next token's embedding (2h → h) and then
    runs its layers; some checkpoints store copies of embedding and head beside it.
    """
    total: Counter[str] = Counter()
    if arch.mtp is None:
        return total
    hidden = arch.hidden_size
    for layer in arch.mtp.layers:
        total.update(layer_components(arch, layer))
    total.update(mtp_fuse=2 * hidden * hidden, norms=arch.mtp.extra_norms * hidden)
    if arch.mtp.copies_embed_and_head:
        table = arch.vocab_size * hidden
        total.update(embed=table, lm_head=table)
    return Counter({name: count * arch.mtp.modules for name, count in total.items()})


def layer_components(arch: Architecture, layer: Layer) -> Counter[str]:
    """Weights of one layer by component, all experts counted; no zero entries."""
    parts: Counter[str] = Counter(norms=arch.norms_per_layer * arch.hidden_size)
    for part in (layer.mixer, layer.ffn):
        if part is not None:
            parts.update(_part_components(part, arch.hidden_size))
    return +parts


def active_params(arch: Architecture) -> dict[str, int]:
    """Weights that one token uses, under the three conventions that vendors publish.

    `with_embed` counts the input table whole, `without_embed` leaves it out (a decode step reads
    one row) but keeps the head, `without_embed_and_head` leaves out both. A tied table is the head:
    it stays in `without_embed`.
    """
    total = sum(main_components(arch).values())
    total -= sum(_idle_weights(arch, layer) for layer in arch.layers)
    table = arch.vocab_size * arch.hidden_size
    without_embed = total if arch.tie_word_embeddings else total - table
    return {
        "with_embed": total,
        "without_embed": without_embed,
        "without_embed_and_head": without_embed - table,
    }


def _idle_weights(arch: Architecture, layer: Layer) -> int:
    """Weights of the experts of a layer that one token does not visit."""
    ffn = layer.ffn
    if not isinstance(ffn, MoEFFN):
        return 0
    parts = _part_components(ffn, arch.hidden_size)
    per_expert = (parts["routed_experts"] + parts["expert_bias"]) // ffn.num_experts
    return (ffn.num_experts - ffn.num_experts_per_tok) * per_expert


@singledispatch
def _part_components(part: object, hidden: int) -> Counter[str]:
    """Weights of a mixer or feed-forward part by component."""
    raise TypeError(f"no weights are known for {type(part).__name__} at width {hidden}")


@_part_components.register
def _(part: GroupedQueryAttention, hidden: int) -> Counter[str]:
    queries, keys = part.num_heads * part.head_dim, part.num_kv_heads * part.head_dim
    q_width = queries * (2 if part.output_gate else 1)
    kv_width = keys * (1 if part.k_eq_v else 2)
    norm = {"none": 0, "head": 2 * part.head_dim, "layer": queries + keys}[part.qk_norm]
    small = norm + (part.num_heads if part.sinks else 0)
    small += (q_width + kv_width) if part.qkv_bias else 0
    small += hidden if part.o_bias else 0
    return Counter(attn_proj=hidden * (q_width + kv_width + queries), attn_small=small)


@_part_components.register
def _(part: LatentAttention, hidden: int) -> Counter[str]:
    head_width = part.qk_nope_head_dim + part.qk_rope_head_dim
    heads, rank = part.num_heads, part.q_lora_rank
    q_in = rank or hidden
    parts = Counter(
        mla_q=hidden * rank + q_in * heads * head_width,
        mla_kv=hidden * (part.kv_lora_rank + part.qk_rope_head_dim)
        + part.kv_lora_rank * heads * (part.qk_nope_head_dim + part.v_head_dim),
        mla_o=heads * part.v_head_dim * hidden,
        attn_small=rank + part.kv_lora_rank,  # norms of the two latents
    )
    if part.indexer:
        index = part.indexer
        keys_and_head_weights = hidden * (index.head_dim + index.num_heads)
        parts.update(
            indexer=rank * index.num_heads * index.head_dim + keys_and_head_weights,
            attn_small=2 * index.head_dim,  # LayerNorm of the indexer's keys
        )
    return parts


@_part_components.register
def _(part: GatedDeltaNet, hidden: int) -> Counter[str]:
    value = part.num_v_heads * part.v_head_dim
    conv = _conv_width(part)
    gates = 2 * hidden * part.num_v_heads  # beta and decay of each value head
    head_vectors = 2 * part.num_v_heads + part.v_head_dim  # A, dt bias; gated norm
    return Counter(
        gdn_proj=hidden * (conv + 2 * value),
        gdn_small=gates + conv * part.conv_kernel + head_vectors,
    )


@_part_components.register
def _(part: Mamba2, hidden: int) -> Counter[str]:
    inner = part.num_heads * part.head_dim
    conv = _conv_width(part)
    head_vectors = 3 * part.num_heads  # A, D, dt bias
    conv_weights = conv * (part.conv_kernel + (1 if part.conv_bias else 0))
    return Counter(
        mamba_proj=hidden * (inner + conv + part.num_heads) + inner * hidden,
        mamba_small=conv_weights + head_vectors + inner,  # gated norm over the inner width
    )


@_part_components.register
def _(part: DenseFFN, hidden: int) -> Counter[str]:
    return Counter(dense_mlp=_mlp(hidden, part.intermediate_size, part.gated))


@_part_components.register
def _(part: MoEFFN, hidden: int) -> Counter[str]:
    experts = part.num_experts
    width = part.latent_size or hidden
    router = hidden * experts
    router += experts if part.router_bias else 0
    router += hidden if part.shared_expert_gate else 0
    router += hidden + experts if part.router_scales else 0
    bias = experts * (2 * part.moe_intermediate_size + hidden) if part.expert_bias else 0
    return Counter(
        routed_experts=experts * _mlp(width, part.moe_intermediate_size, part.gated),
        router=router,
        expert_bias=bias,
        shared_experts=_mlp(hidden, part.shared_intermediate_size, part.gated),
        latent_proj=2 * hidden * (part.latent_size or 0),
        dense_mlp=_mlp(hidden, part.parallel_dense_intermediate, part.gated),
    )


def _mlp(width: int, intermediate: int, gated: bool) -> int:
    return (3 if gated else 2) * width * intermediate


# ------------------------------------------------- caches, state and FLOPs


def kv_elements_per_token(layer: Layer) -> dict[str, int]:
    """Elements that one layer caches for one token, by kind of cache.

    Kinds: "full", "sliding", "chunked", "mla" (the latent, shared by all heads) and "indexer" (keys
    of the sparse indexer, beside "mla"). Empty for layers that keep no cache.
    """
    mixer = layer.mixer
    if isinstance(mixer, GroupedQueryAttention):
        return {mixer.kind: 2 * mixer.num_kv_heads * mixer.head_dim}
    if isinstance(mixer, LatentAttention):
        latent = {"mla": mixer.kv_lora_rank + mixer.qk_rope_head_dim}
        return latent | ({"indexer": mixer.indexer.head_dim} if mixer.indexer else {})
    return {}


def kv_elements_by_kind(arch: Architecture) -> dict[str, int]:
    """Elements that all layers of the main model cache for one token, by kind of cache."""
    total: Counter[str] = Counter()
    for layer in arch.layers:
        total.update(kv_elements_per_token(layer))
    return dict(total)


def state_bytes(layer: Layer) -> StateBytes:
    """Recurrent state of one sequence in one layer; zeros for layers without one."""
    mixer = layer.mixer
    if not isinstance(mixer, GatedDeltaNet | Mamba2):
        return StateBytes(0, 0)
    conv = (mixer.conv_kernel - 1) * _conv_width(mixer) * CONV_BYTES
    return StateBytes(_state_elements(mixer) * mixer.state_bytes, conv)


def attention_flops_per_context_token(layer: Layer, prefill: bool = False) -> dict[str, int]:
    """FLOPs of one query against one cached token in one layer, by kind of cache.

    Two FLOPs a multiply-add, scores and values. MLA decodes in the absorbed form, over the latent;
    it prefills with expanded heads (DeepSeek-V2, section 2.1).
    """
    mixer = layer.mixer
    if isinstance(mixer, GroupedQueryAttention):
        return {mixer.kind: 4 * mixer.num_heads * mixer.head_dim}
    if isinstance(mixer, LatentAttention):
        return _latent_flops(mixer, prefill)
    return {}


def recurrent_flops_per_token(layer: Layer) -> int:
    """FLOPs of one token's state update and read-out in one layer, in the decode form."""
    mixer = layer.mixer
    if isinstance(mixer, GatedDeltaNet):
        return GDN_FLOPS_PER_STATE * _state_elements(mixer)
    if isinstance(mixer, Mamba2):
        return MAMBA_FLOPS_PER_STATE * _state_elements(mixer)
    return 0


def _latent_flops(mixer: LatentAttention, prefill: bool) -> dict[str, int]:
    if prefill:
        width = mixer.qk_nope_head_dim + mixer.qk_rope_head_dim + mixer.v_head_dim
    else:
        width = 2 * mixer.kv_lora_rank + mixer.qk_rope_head_dim
    flops = {"mla": 2 * mixer.num_heads * width}
    if mixer.indexer:
        flops["indexer"] = 2 * mixer.indexer.num_heads * mixer.indexer.head_dim
    return flops


def _state_elements(mixer: GatedDeltaNet | Mamba2) -> int:
    if isinstance(mixer, Mamba2):
        return mixer.num_heads * mixer.head_dim * mixer.state_size
    return mixer.num_v_heads * mixer.k_head_dim * mixer.v_head_dim


def _conv_width(mixer: GatedDeltaNet | Mamba2) -> int:
    """Channels that pass the causal convolution: x, B and C of Mamba-2; q, k and v of DeltaNet."""
    if isinstance(mixer, Mamba2):
        return mixer.num_heads * mixer.head_dim + 2 * mixer.n_groups * mixer.state_size
    return 2 * mixer.num_k_heads * mixer.k_head_dim + mixer.num_v_heads * mixer.v_head_dim
