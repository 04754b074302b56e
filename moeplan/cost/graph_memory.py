"""Memory of captured CUDA graphs."""

from __future__ import annotations

from collections.abc import Sequence

from moeplan.cost.engine import ResolvedEngine
from moeplan.deployment import Deployment
from moeplan.models.architecture import GroupedQueryAttention, LatentAttention, Layer, MoEFFN

MIB = 2**20
POOL_BYTES = 22 * MIB
"""The allocator's first segments in the graphs' pool, 20 and 2 MiB."""
BYTES_PER_GRAPH = 8 * MIB
BYTES_FULL_AT_TOKENS = 496
"""What a further graph adds, in proportion to the tokens of the second-largest one up to this many.

vLLM measures that one and multiplies by the number of graphs, but counts at least `LEAST_PER_GRAPH`
(`v1/worker/gpu_model_runner.py`, `profile_cudagraph_memory`). Fitted, after the other terms, to
what it printed: five engines on H100 with 18 graphs of up to 256 tokens (validate/evidence/
2026-11-27-h100), and two published logs with the 86 default ones (Qwen2.5-7B 0.53 GiB, Gemma 4 26B
0.83). What graphs take in the end scatters as widely: 0.41 to 1.58 GiB in four logs with 86.
"""
LEAST_PER_GRAPH = MIB
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
    total = POOL_BYTES + _further_graphs(sizes) + _further_graphs(full)
    if hopper and engine.attention.name.startswith("flash-attention"):
        widest = max((_head_widths(x.mixer) for x in layers), default=0)
        accumulated = SPLITS * max(full, default=0) * widest * ACCUMULATOR_BYTES
        total += accumulated / deployment.placement.tp
    shared = any(isinstance(x.ffn, MoEFFN) and x.ffn.shared_intermediate_size for x in layers)
    return total + (SHARED_EXPERT_BYTES if shared and engine.shared_beside_tokens else 0)


def _further_graphs(sizes: Sequence[int]) -> float:
    """Bytes of all graphs of a kind but the largest; `sizes` rise."""
    if len(sizes) < 2:
        return 0.0
    each = BYTES_PER_GRAPH * min(sizes[-2] / BYTES_FULL_AT_TOKENS, 1.0)
    return max(each, LEAST_PER_GRAPH) * (len(sizes) - 1)


def _head_widths(mixer: object) -> int:
    """Elements of attention's output over all heads, the latent where it is not expanded."""
    if isinstance(mixer, LatentAttention):
        return mixer.num_heads * mixer.kv_lora_rank
    return mixer.num_heads * mixer.head_dim if isinstance(mixer, GroupedQueryAttention) else 0
