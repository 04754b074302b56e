"""Transient memory of an engine's profiling run.

vLLM runs the vision tower on its largest image, one forward pass of `max_num_batched_tokens` tokens
without attention and the sampler on `max_num_seqs` rows, and keeps the highest peak
(`gpu_worker.determine_available_memory`).
"""

from __future__ import annotations

from collections.abc import Sequence

from moeplan.cost.engine import ResolvedEngine
from moeplan.deployment import Deployment
from moeplan.models.architecture import (
    DenseFFN,
    GatedDeltaNet,
    LatentAttention,
    Layer,
    Mamba2,
    MoEFFN,
)

ELEMENT_BYTES = 2
RESIDENT_HIDDEN_COPIES = 4
"""Hidden states alive beside a layer's own buffers: input, residual, normalised, output."""
SAMPLER_BYTES_PER_LOGIT = 14
"""BF16 logits, the FP32 copy, probabilities and the random draw (2 + 3 × 4)."""
CONTEXT_LIMIT = 65_536
"""Cached tokens that vLLM expands at once at most with latent attention."""
VISION_PROFILE_BYTES = 1.6 * 2**30
"""Peak of the vision tower on its largest image.

Estimate from one start-up log: Qwen3.5-122B INT4 on an RTX PRO 6000, vLLM 0.20.2, eager, 128
sequences, where 2.1 GiB lie between weights and KV pool, 0.5 of them workspaces.
"""


def activation_bytes(
    deployment: Deployment,
    engine: ResolvedEngine,
    layers: Sequence[Layer],
    *,
    first: bool,
    last: bool,
) -> float:
    """Peak transient bytes on one GPU of a stage (estimate: buffers counted, not measured)."""
    hidden = deployment.architecture.hidden_size
    tokens = engine.max_num_batched_tokens
    widest = max((_layer_width(x, hidden, deployment.placement.tp) for x in layers), default=0)
    forward = tokens * (RESIDENT_HIDDEN_COPIES * hidden + widest) * ELEMENT_BYTES
    forward = max(forward, *(_latent_peak(x.mixer, deployment, engine) for x in layers))
    logits = engine.max_num_seqs * deployment.architecture.vocab_size if last else 0
    vision = VISION_PROFILE_BYTES if first and deployment.architecture.vision_params else 0.0
    return max(forward, logits * SAMPLER_BYTES_PER_LOGIT, vision)


def _latent_peak(mixer: object, deployment: Deployment, engine: ResolvedEngine) -> float:
    """Peak bytes inside latent attention: keys and values of a cached context, expanded.

    vLLM's profiling run takes room for what chunked prefill may expand at once
    (`v1/attention/backends/mla/common.py`, `determine_chunked_prefill_workspace_size`). Sparse
    attention expands nothing.
    """
    if engine.engine != "vllm" or not isinstance(mixer, LatentAttention) or mixer.indexer:
        return 0.0
    pages = engine.max_num_seqs * engine.block_size
    cached = min(max(8 * engine.max_model_len, 4 * pages), CONTEXT_LIMIT)
    heads = mixer.num_heads / deployment.placement.tp
    expanded = max(cached, pages) * heads * (mixer.qk_nope_head_dim + mixer.v_head_dim)
    width = RESIDENT_HIDDEN_COPIES * deployment.architecture.hidden_size
    width += _mixer_width(mixer, deployment.placement.tp)
    return (engine.max_num_batched_tokens * width + expanded) * ELEMENT_BYTES


def _layer_width(layer: Layer, hidden: int, tp: int) -> float:
    """Elements a token that a layer's buffers hold at their peak."""
    return max(_mixer_width(layer.mixer, tp), _ffn_width(layer.ffn, hidden, tp))


def _mixer_width(mixer: object, tp: int) -> float:
    match mixer:
        case None:
            return 0.0
        case GatedDeltaNet():
            keys = 2 * mixer.num_k_heads * mixer.k_head_dim
            return (2 * keys + 3 * mixer.num_v_heads * mixer.v_head_dim) / tp
        case Mamba2():
            inner = mixer.num_heads * mixer.head_dim
            return (3 * inner + 4 * mixer.n_groups * mixer.state_size) / tp
    value = getattr(mixer, "v_head_dim", None) or mixer.head_dim
    return 4 * mixer.num_heads * value / tp


def _ffn_width(ffn: DenseFFN | MoEFFN | None, hidden: int, tp: int) -> float:
    if ffn is None:
        return 0.0
    gate = 2 if ffn.gated else 1
    if isinstance(ffn, DenseFFN):
        return (gate + 1) * ffn.intermediate_size / tp
    width = ffn.moe_intermediate_size / tp
    # Each routed copy of a token passes two buffers: up-projection or output, and activation.
    routed = max(gate * width, ffn.latent_size or hidden) + width
    return ffn.num_experts_per_tok * routed
