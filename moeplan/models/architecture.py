"""`Architecture`: the layers of a model and every count that follows from them.

Counts are of weights unless the name says otherwise; bytes depend on the checkpoint and live in
`checkpoint.py`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Literal


@dataclass(frozen=True, slots=True)
class GroupedQueryAttention:
    """Multi-head attention with grouped KV heads."""

    kind: Literal["full", "sliding", "chunked"]
    num_heads: int
    num_kv_heads: int
    head_dim: int
    window: int | None = None
    """Tokens that a sliding or chunked layer looks back on; None for full attention."""
    output_gate: bool = False
    """The query projection is twice as wide and gates the output (Qwen3.5, Qwen3-Next)."""
    k_eq_v: bool = False
    """Keys serve as values: one projection, but two cached vectors (Gemma 4 full layers)."""
    qkv_bias: bool = False
    o_bias: bool = False
    sinks: bool = False
    """One learned logit a head (gpt-oss)."""
    qk_norm: Literal["none", "head", "layer"] = "none"


@dataclass(frozen=True, slots=True)
class SparseIndexer:
    """The lightning indexer that picks the tokens attention reads (DeepSeek-V3.2, GLM-5)."""

    num_heads: int
    head_dim: int
    topk: int


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """Multi-head latent attention (MLA): one latent a token is cached, shared by all heads."""

    num_heads: int
    q_lora_rank: int
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    indexer: SparseIndexer | None = None
    kind: Literal["mla"] = "mla"


@dataclass(frozen=True, slots=True)
class GatedDeltaNet:
    """Gated DeltaNet linear attention: a constant state a sequence instead of a KV cache."""

    num_k_heads: int
    k_head_dim: int
    num_v_heads: int
    v_head_dim: int
    conv_kernel: int
    state_bytes: int = 4
    """Bytes of one state element (FP32 where a config names it, else the model's 16-bit dtype)."""
    kind: Literal["gdn"] = "gdn"


@dataclass(frozen=True, slots=True)
class Mamba2:
    """Mamba-2 state-space mixer: a constant state a sequence instead of a KV cache."""

    num_heads: int
    head_dim: int
    n_groups: int
    state_size: int
    conv_kernel: int
    conv_bias: bool
    state_bytes: int = 4
    kind: Literal["mamba2"] = "mamba2"


Attention = GroupedQueryAttention | LatentAttention
Recurrent = GatedDeltaNet | Mamba2
Mixer = Attention | Recurrent


@dataclass(frozen=True, slots=True)
class DenseFFN:
    """A dense feed-forward layer: three matrices when gated, two otherwise."""

    intermediate_size: int
    gated: bool = True
    kind: Literal["dense"] = "dense"


@dataclass(frozen=True, slots=True)
class MoEFFN:
    """A routed feed-forward layer with whatever always runs beside the routed experts."""

    num_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    gated: bool = True
    latent_size: int | None = None
    """Width that routed experts work in when it is not the hidden size (LatentMoE)."""
    shared_intermediate_size: int = 0
    """Total width of the shared experts, 0 for none."""
    shared_expert_gate: bool = False
    parallel_dense_intermediate: int = 0
    """Width of a dense MLP that runs beside the experts in every layer (Gemma 4)."""
    expert_bias: bool = False
    router_bias: bool = False
    router_scales: bool = False
    """Per-channel and per-expert scales in the router (Gemma 4)."""
    kind: Literal["moe"] = "moe"


FFN = DenseFFN | MoEFFN


@dataclass(frozen=True, slots=True)
class Layer:
    """One block: a mixer, a feed-forward part, or both."""

    mixer: Mixer | None
    ffn: FFN | None

    @property
    def collectives(self) -> int:
        """All-reduces that tensor parallelism needs for this layer (one a part)."""
        return (self.mixer is not None) + (self.ffn is not None)


@dataclass(frozen=True, slots=True)
class MTP:
    """Multi-token-prediction draft layers that a checkpoint carries beside the main model."""

    modules: int
    layers: tuple[Layer, ...]
    extra_norms: int = 3
    copies_embed_and_head: bool = False


@dataclass(frozen=True)
class Architecture:
    """The structure of one model, every figure taken from its config.json."""

    slug: str
    model_type: str
    hidden_size: int
    vocab_size: int
    tie_word_embeddings: bool
    max_position_embeddings: int
    layers: tuple[Layer, ...]
    norms_per_layer: int
    mtp: MTP | None = None
    vision_params: int = 0

    @cached_property
    def components(self) -> Counter[str]:
        """Weights of the main model by component (`routed_experts`, `attn_proj`, `lm_head`, …)."""
        from moeplan.models.counting import main_components

        return main_components(self)

    @cached_property
    def mtp_components(self) -> Counter[str]:
        """Weights of the MTP modules by component; empty without MTP."""
        from moeplan.models.counting import mtp_components

        return mtp_components(self)

    @property
    def total_params(self) -> int:
        """Weights of the main model, without MTP and vision."""
        return sum(self.components.values())

    @property
    def is_moe(self) -> bool:
        """Whether any layer routes."""
        return any(isinstance(layer.ffn, MoEFFN) for layer in self.layers)

    @property
    def is_hybrid(self) -> bool:
        """Whether any layer keeps a recurrent state instead of a KV cache."""
        return any(isinstance(layer.mixer, Recurrent) for layer in self.layers)
