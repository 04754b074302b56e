"""Bytes that one layer caches on one GPU: a token of attention, a sequence of recurrent state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from moeplan.models.architecture import (
    GatedDeltaNet,
    GroupedQueryAttention,
    LatentAttention,
    Mamba2,
    Mixer,
)

ELEMENT_BYTES = {"bf16": 2, "fp8": 1}
CONV_BYTES = 2
"""The convolution's columns are kept in the model's own BF16."""
SCALE_GROUP = 128
"""Elements that share one FP32 scale in the sparse FP8 latent and in the indexer's keys."""
SCALE_BYTES = 4


@dataclass(frozen=True, slots=True)
class LayerCache:
    """What one layer keeps on one GPU."""

    kind: Literal["full", "sliding", "chunked", "recurrent"]
    token_bytes: int = 0
    """Bytes a token; 0 for recurrent layers."""
    state_bytes: int = 0
    """Bytes a sequence; 0 for attention."""
    window: int | None = None
    latent: bool = False


def layer_caches(mixer: Mixer | None, tp: int, kv_format: str) -> tuple[LayerCache, ...]:
    """Caches of one layer on one of `tp` ranks: none, one, or two with a sparse indexer.

    KV heads are cut by the ranks and replicated where there are fewer; the MLA latent is
    replicated; recurrent heads are cut.
    """
    match mixer:
        case GroupedQueryAttention():
            heads = max(1, mixer.num_kv_heads // tp)
            token = 2 * heads * mixer.head_dim * ELEMENT_BYTES[kv_format]
            return (LayerCache(mixer.kind, token, window=mixer.window),)
        case LatentAttention():
            return _latent_caches(mixer, kv_format)
        case GatedDeltaNet():
            return (LayerCache("recurrent", state_bytes=_gated_delta_state(mixer, tp)),)
        case Mamba2():
            return (LayerCache("recurrent", state_bytes=_mamba_state(mixer, tp)),)
    return ()


def _latent_caches(mixer: LatentAttention, kv_format: str) -> tuple[LayerCache, ...]:
    width = mixer.kv_lora_rank + mixer.qk_rope_head_dim
    if mixer.indexer is None:
        return (LayerCache("full", width * ELEMENT_BYTES[kv_format], latent=True),)
    token = width * ELEMENT_BYTES["bf16"]
    if kv_format == "fp8":  # FP8 latent with scales, BF16 rope part: 656 bytes for 512 + 64
        token = _scaled(mixer.kv_lora_rank) + mixer.qk_rope_head_dim * ELEMENT_BYTES["bf16"]
    # The indexer's keys are FP8 with a scale whatever the latent's format.
    keys = LayerCache("full", _scaled(mixer.indexer.head_dim), latent=True)
    return (LayerCache("full", token, latent=True), keys)


def _scaled(elements: int) -> int:
    return elements + elements // SCALE_GROUP * SCALE_BYTES


def _gated_delta_state(mixer: GatedDeltaNet, tp: int) -> int:
    conv = 2 * mixer.num_k_heads * mixer.k_head_dim + mixer.num_v_heads * mixer.v_head_dim
    state = mixer.num_v_heads // tp * mixer.k_head_dim * mixer.v_head_dim * mixer.state_bytes
    return conv // tp * (mixer.conv_kernel - 1) * CONV_BYTES + state


def _mamba_state(mixer: Mamba2, tp: int) -> int:
    groups = mixer.n_groups if mixer.n_groups % tp == 0 else tp  # a rank holds its heads' group
    conv = mixer.num_heads * mixer.head_dim + 2 * groups * mixer.state_size
    state = mixer.num_heads // tp * mixer.head_dim * mixer.state_size * mixer.state_bytes
    return conv // tp * (mixer.conv_kernel - 1) * CONV_BYTES + state
