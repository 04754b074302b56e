"""Transient memory of an engine's profiling run, beside the workspace of routed experts.

vLLM runs the vision tower on its largest image, one forward pass of `max_num_batched_tokens` tokens
without attention and the sampler on `max_num_seqs` rows, and keeps the highest peak
(`gpu_worker.determine_available_memory`). On a cold start the same pass compiles the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moeplan.cost.engine import ResolvedEngine
from moeplan.cost.engine_profile import second_runner, vllm_has
from moeplan.cost.moe_workspace import fused_expert_bytes, moe_workspace_bytes
from moeplan.deployment import Deployment
from moeplan.hardware_specs.schema import Hardware
from moeplan.models.architecture import (
    DenseFFN,
    GatedDeltaNet,
    LatentAttention,
    Layer,
    Mamba2,
    MoEFFN,
)

ELEMENT_BYTES = 2
CUBLAS_BYTES = 32 * 2**20
"""Workspace of one cuBLAS handle and stream on Hopper, kept (PyTorch `CUDABlas.cpp`)."""
RESIDENT_HIDDEN_COPIES = 3
"""Hidden states alive beside a feed-forward layer's own buffers: the compiled piece's input, its
residual and what it normalised."""
SAMPLER_BYTES_PER_LOGIT = 14
"""BF16 logits, the FP32 copy, probabilities and the random draw (2 + 3 × 4;
`v1/sample/sampler.py`, `v1/sample/ops/topk_topp_sampler.py`)."""
SECOND_SAMPLER_BYTES_PER_LOGIT = 6
"""BF16 logits and the FP32 copy: the second runner draws without more (`v1/worker/gpu/sample/`)."""
TOPK_ROW_BYTES = 4
TOPK_LEAST_ROWS = 8
"""Rows of logits from which top-k and top-p run in Triton, with an FP32 row for each processor at
most (`v1/sample/ops/topk_topp_triton.py`)."""
PROCESSORS = 132
"""Multiprocessors of an H100 or H200 (nominal); other devices differ by tens of MiB."""
CONTEXT_LIMIT = 65_536
"""Cached tokens that vLLM expands at once at most with latent attention."""
L2_MB = 50.0
"""L2 cache where a device's file names none."""
VISION_PROFILE_BYTES = 1.6 * 2**30
"""Peak of the vision tower on its largest image.

Estimate from one start-up log: Qwen3.5-122B INT4 on an RTX PRO 6000, vLLM 0.20.2, eager, 128
sequences, where 2.1 GiB lie between weights and KV pool, 0.5 of them workspaces.
"""


@dataclass(frozen=True, slots=True)
class ProfilePeak:
    """What the profiling run adds on one GPU, bytes."""

    workspace: float
    """Kept: routed experts and cuBLAS."""
    transient: float
    """The highest peak beyond it."""


def profile_peak(
    deployment: Deployment,
    hardware: Hardware,
    engine: ResolvedEngine,
    layers: Sequence[Layer],
    *,
    first: bool,
    last: bool,
) -> ProfilePeak:
    """Peak of the profiling run on one GPU of a stage (buffers counted in the engine's source)."""
    workspace = CUBLAS_BYTES + moe_workspace_bytes(deployment, hardware, engine, layers)
    peaks = [_forward(deployment, hardware, engine, layers)]
    if last:
        peaks.append(_sampler(deployment, engine))
    if first and deployment.architecture.vision_params:
        peaks.append(VISION_PROFILE_BYTES)
    tunes = vllm_has(deployment.engine, "kernels tuned while compiling")
    if first and tunes and not engine.enforce_eager:
        # Compiled before the first forward pass, so that the workspace is not there yet.
        peaks.append(_compilation(deployment, hardware, engine) - workspace)
    return ProfilePeak(workspace, max(peaks))


def _compilation(deployment: Deployment, hardware: Hardware, engine: ResolvedEngine) -> float:
    """Peak while Inductor tunes the piece that looks embeddings up, cold start.

    `torch._inductor.standalone_compile` tunes kernels on made-up arguments, so that a second
    embedding table is there, beside the piece's output and a buffer of the size of the L2 cache
    that flushes it. Where a vision tower feeds embeddings in, the lookup is not compiled.
    """
    architecture = deployment.architecture
    if architecture.vision_params:
        return 0.0
    table = architecture.vocab_size * architecture.hidden_size / deployment.placement.tp
    output = engine.max_num_batched_tokens * architecture.hidden_size
    cache = hardware.devices[deployment.device].memory.l2_mb
    return (table + output) * ELEMENT_BYTES + (cache.value if cache else L2_MB) * 1e6


def _sampler(deployment: Deployment, engine: ResolvedEngine) -> float:
    """Peak of sampling `max_num_seqs` rows while the forward pass's output lives."""
    architecture, rows = deployment.architecture, engine.max_num_seqs
    second = second_runner(deployment.engine, architecture.model_type)
    logit = SECOND_SAMPLER_BYTES_PER_LOGIT if second else SAMPLER_BYTES_PER_LOGIT
    per_token = rows * logit
    if not second and rows >= TOPK_LEAST_ROWS:
        per_token += min(rows, PROCESSORS) * TOPK_ROW_BYTES
    hidden = engine.max_num_batched_tokens * architecture.hidden_size * ELEMENT_BYTES
    return per_token * architecture.vocab_size + hidden


def _forward(
    deployment: Deployment, hardware: Hardware, engine: ResolvedEngine, layers: Sequence[Layer]
) -> float:
    """Peak of the forward pass over the layers."""
    hidden, tp = deployment.architecture.hidden_size, deployment.placement.tp
    tokens = engine.max_num_batched_tokens * ELEMENT_BYTES
    widest = max((_layer_width(x, hidden, tp) for x in layers), default=0.0)
    fused = fused_expert_bytes(deployment, hardware, engine, layers)
    peaks = [tokens * widest, tokens * RESIDENT_HIDDEN_COPIES * hidden + fused]
    return max(*peaks, *(_latent_peak(x.mixer, deployment, engine) for x in layers))


def _latent_peak(mixer: object, deployment: Deployment, engine: ResolvedEngine) -> float:
    """Peak bytes inside latent attention: keys and values of a cached context, expanded.

    vLLM's profiling run takes room for what chunked prefill may expand at once
    (`model_executor/layers/attention/mla_attention.py`,
    `determine_chunked_prefill_workspace_size`). Sparse attention expands nothing.
    """
    if engine.engine != "vllm" or not isinstance(mixer, LatentAttention) or mixer.indexer:
        return 0.0
    pages = engine.max_num_seqs * engine.block_size
    cached = min(max(8 * engine.max_model_len, 4 * pages), CONTEXT_LIMIT)
    heads = mixer.num_heads / deployment.placement.tp
    expanded = max(cached, pages) * heads * (mixer.qk_nope_head_dim + mixer.v_head_dim)
    queries = heads * (mixer.qk_nope_head_dim + mixer.qk_rope_head_dim + mixer.v_head_dim)
    latents = 2 * (mixer.kv_lora_rank + mixer.qk_rope_head_dim)
    width = 2 * deployment.architecture.hidden_size + queries + latents
    return (engine.max_num_batched_tokens * width + expanded) * ELEMENT_BYTES


def _layer_width(layer: Layer, hidden: int, tp: int) -> float:
    """Elements a token that a layer's buffers hold at their peak, hidden states included."""
    own = max(_mixer_width(layer.mixer, tp), _ffn_width(layer.ffn, tp))
    return RESIDENT_HIDDEN_COPIES * hidden + own


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


def _ffn_width(ffn: DenseFFN | MoEFFN | None, tp: int) -> float:
    """Up-projection and activation of what every token passes; routed experts aside."""
    if ffn is None:
        return 0.0
    always = ffn.intermediate_size if isinstance(ffn, DenseFFN) else ffn.shared_intermediate_size
    return (3 if ffn.gated else 2) * always / tp
