"""Families that mix attention with recurrent layers: Nemotron-H, Qwen3-Next, Qwen3.5.

Structure after the modelling files of transformers 5.24 (Mamba-2: Dao & Gu 2024; gated DeltaNet:
Yang et al. 2024); MTP modules after published safetensors headers.
"""

from __future__ import annotations

from typing import Any

from moeplan.models.architecture import (
    MTP,
    DenseFFN,
    GatedDeltaNet,
    GroupedQueryAttention,
    Layer,
    Mamba2,
    MoEFFN,
)
from moeplan.models.family_gqa import sparse_step_layers
from moeplan.models.family_parts import biases, dense, draft, grouped_query, routed
from moeplan.models.fields import Fields
from moeplan.models.structure import Structure

STATE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
LINEAR_OR_FULL = {"linear_attention": "linear", "full_attention": "full"}
# One block a letter (NVIDIA's files), or a word (transformers since 5.0).
NEMOTRON_BLOCKS = {
    "M": "mamba",
    "E": "moe",
    "*": "attention",
    "-": "mlp",
    "mamba": "mamba",
    "linear_attention": "mamba",
    "moe": "moe",
    "attention": "attention",
    "full_attention": "attention",
    "mlp": "mlp",
}


# ------------------------------------------------------------- Nemotron-H


def nemotron_h(f: Fields) -> Structure:
    """Nemotron-H and Nemotron 3: each block is a Mamba-2, attention, MoE or MLP part alone."""
    for name in ("use_bias", "mlp_bias", "mamba_proj_bias"):
        f.only(name, False)
    depth = f.integer("num_hidden_layers")
    blocks = f.words(
        _first(f, "layers_block_type", "hybrid_override_pattern"), NEMOTRON_BLOCKS, depth
    )
    layers = _nemotron_layers(f, blocks)
    return Structure(layers, norms_per_layer=1, mtp=_nemotron_mtp(f))


def _first(f: Fields, *names: str) -> str:
    """The first field that the config states; the last one when it states none."""
    return next((n for n in names if f.has(n)), names[-1])


def _nemotron_layers(f: Fields, blocks: list[str]) -> tuple[Layer, ...]:
    build = {
        "mamba": lambda: Layer(_mamba2(f), None),
        "attention": lambda: Layer(grouped_query(f), None),
        "moe": lambda: Layer(None, _nemotron_moe(f)),
        "mlp": lambda: Layer(None, DenseFFN(f.integer("intermediate_size"), gated=False)),
    }
    kinds = {kind: build[kind]() for kind in dict.fromkeys(blocks)}
    return tuple(kinds[kind] for kind in blocks)


def _mamba2(f: Fields) -> Mamba2:
    return Mamba2(
        num_heads=f.integer("mamba_num_heads"),
        head_dim=f.integer("mamba_head_dim"),
        n_groups=f.integer("n_groups"),
        state_size=f.integer("ssm_state_size"),
        conv_kernel=f.integer("conv_kernel"),
        conv_bias=f.flag("use_conv_bias"),
        state_bytes=f.choice("mamba_ssm_cache_dtype", STATE_BYTES),
    )


def _nemotron_moe(f: Fields) -> MoEFFN:
    """Two matrices an expert (squared ReLU); routed experts may work in a latent (LatentMoE)."""
    return routed(
        f,
        "n_routed_experts",
        gated=False,
        latent_size=f.optional_integer("moe_latent_size"),
        shared_intermediate_size=f.integer("moe_shared_expert_intermediate_size", minimum=0),
    )


def _nemotron_mtp(f: Fields) -> MTP | None:
    if not f.has("num_nextn_predict_layers"):
        return None
    name = _first(f, "mtp_layers_block_type", "mtp_hybrid_override_pattern")
    blocks = f.words(name, NEMOTRON_BLOCKS, None)
    return draft(f, "num_nextn_predict_layers", _nemotron_layers(f, blocks), copies=False)


# ------------------------------------------------- Qwen3-Next and Qwen3.5


def qwen3_next(f: Fields) -> Structure:
    """Qwen3-Next: gated DeltaNet and gated attention, MoE with a gated shared expert.

    The MTP module of its checkpoints is not announced in config.json; state it as
    `mtp_num_hidden_layers`.
    """
    moe = _qwen_moe(f)
    ffns = [layer.ffn for layer in sparse_step_layers(f, None, moe)]
    return _qwen_hybrid(f, ffns, moe)


def qwen3_5_moe(f: Fields) -> Structure:
    """Qwen3.5 and 3.6 MoE: every layer routes."""
    f.only("mlp_only_layers", [])
    moe = _qwen_moe(f)
    return _qwen_hybrid(f, [moe] * f.integer("num_hidden_layers"), moe)


def qwen3_5(f: Fields) -> Structure:
    """Qwen3.5 and 3.6 dense."""
    mlp = dense(f)
    return _qwen_hybrid(f, [mlp] * f.integer("num_hidden_layers"), mlp)


def _qwen_hybrid(f: Fields, ffns: list[Any], draft_ffn: Any) -> Structure:
    f.only("attn_output_gate", True)
    f.only("mtp_use_dedicated_embeddings", False)
    attention = grouped_query(f, qk_norm="head", output_gate=True, **biases(f))
    kinds = _linear_or_full(f, len(ffns))
    mixers: dict[str, GatedDeltaNet | GroupedQueryAttention] = {"full": attention}
    if "linear" in kinds:
        mixers["linear"] = _delta_net(f)
    layers = tuple(Layer(mixers[k], ffn) for k, ffn in zip(kinds, ffns, strict=True))
    mtp = draft(f, "mtp_num_hidden_layers", [Layer(attention, draft_ffn)], copies=False)
    return Structure(layers, mtp=mtp)


def _linear_or_full(f: Fields, depth: int) -> list[str]:
    if f.has("layer_types"):
        return f.words("layer_types", LINEAR_OR_FULL, depth)
    every = f.integer("full_attention_interval")
    return ["full" if (i + 1) % every == 0 else "linear" for i in range(depth)]


def _delta_net(f: Fields) -> GatedDeltaNet:
    keys, values = f.integer("linear_num_key_heads"), f.integer("linear_num_value_heads")
    if values % keys:
        f.refuse("linear_num_value_heads", values, f"must be a multiple of the {keys} key heads")
    return GatedDeltaNet(
        num_k_heads=keys,
        k_head_dim=f.integer("linear_key_head_dim"),
        num_v_heads=values,
        v_head_dim=f.integer("linear_value_head_dim"),
        conv_kernel=f.integer("linear_conv_kernel_dim"),
        state_bytes=f.choice("mamba_ssm_dtype", STATE_BYTES),
    )


def _qwen_moe(f: Fields) -> MoEFFN:
    shared = f.integer("shared_expert_intermediate_size", minimum=0)
    return routed(f, "num_experts", shared_intermediate_size=shared, shared_expert_gate=shared > 0)
