"""Memory of captured CUDA graphs."""

from __future__ import annotations

from collections.abc import Sequence

from moeplan.cost.engine import ResolvedEngine
from moeplan.deployment import Deployment
from moeplan.models.architecture import GroupedQueryAttention, LatentAttention, Layer, MoEFFN

MIB = 2**20
POOL_BYTES = 22 * MIB
"""The allocator's first segments in the graphs' pool, 20 and 2 MiB."""
BYTES_PER_GRAPH_AND_LAYER = 0.05 * MIB
"""What the driver and the pool keep of one layer in one graph.

Fitted to the estimates that vLLM 0.24 printed for six engines on H100, 18 graphs each, after the
terms below: 0.02 to 0.08 (validate/evidence/2026-11-27-h100). Five published logs of unlike models
and versions (86 graphs 0.73, 1.22 and 1.58 GiB, 14 graphs 0.61, 4 graphs 0.30) hold 1.4 to 3 times
what this gives.
"""
SPLITS = 32
"""Parts of the context that FlashAttention 3 may share out in a full graph, each with an FP32
output (`v1/attention/backends/flash_attn.py`, `flash_attn_max_num_splits_for_cuda_graph`)."""
ACCUMULATOR_BYTES = 4
SHARED_EXPERT_BYTES = 2 * (32 + 20) * MIB
"""Shared experts run on a stream of their own: a cuBLAS workspace and a segment, in warm-up and
capture."""


def graph_bytes(
    deployment: Deployment, engine: ResolvedEngine, layers: Sequence[Layer], *, hopper: bool
) -> float:
    """Memory of the captured graphs of a stage on one GPU, bytes (estimate).

    Every size has a piecewise graph; those up to `max_num_seqs` have a full decode graph as well.
    """
    sizes = engine.cuda_graph_sizes
    if not sizes:
        return 0.0
    full = [n for n in sizes if n <= engine.max_num_seqs]
    graphs = len(sizes) + len(full)
    total = POOL_BYTES + BYTES_PER_GRAPH_AND_LAYER * graphs * len(layers)
    if hopper and engine.attention.name.startswith("flash-attention"):
        widest = max((_head_widths(x.mixer) for x in layers), default=0)
        accumulated = SPLITS * max(full, default=0) * widest * ACCUMULATOR_BYTES
        total += accumulated / deployment.placement.tp
    shared = any(isinstance(x.ffn, MoEFFN) and x.ffn.shared_intermediate_size for x in layers)
    return total + (SHARED_EXPERT_BYTES if shared and engine.shared_beside_tokens else 0)


def _head_widths(mixer: object) -> int:
    """Elements of attention's output over all heads, the latent where it is not expanded."""
    if isinstance(mixer, LatentAttention):
        return mixer.num_heads * mixer.kv_lora_rank
    return mixer.num_heads * mixer.head_dim if isinstance(mixer, GroupedQueryAttention) else 0
