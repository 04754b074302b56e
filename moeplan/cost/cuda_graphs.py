"""Which batch sizes an engine captures as CUDA graphs, and the memory that they take."""

from __future__ import annotations

GIB = 2**30
POOL_BYTES = 0.2 * GIB
BYTES_PER_GRAPH = 0.01 * GIB
"""Memory of captured graphs: a shared pool and a part for each graph.

Estimate from five published vLLM start-up logs (unlike models and GPUs): 86 graphs 0.73, 1.22 and
1.58 GiB, 14 graphs 0.61 GiB, 4 graphs 0.30 GiB. They scatter by a factor of 1.8 around it.
"""


def capture_sizes(top: int, max_tokens: int, max_num_seqs: int | None = None) -> tuple[int, ...]:
    """Token counts that vLLM captures up to `top`: 1, 2, 4, then by 8 to 256, then by 16.

    The token budget itself is captured where it is within `top`, and so is `max_num_seqs` (None
    for versions that do not capture it). After `config/vllm.py`.
    """
    sizes = {n for n in (1, 2, 4) if n <= top}
    sizes.update(range(8, min(top + 1, 256), 8))
    sizes.update(range(256, top + 1, 16))
    sizes.update(n for n in (max_tokens, max_num_seqs) if n is not None and n <= top)
    return tuple(sorted(sizes))


def graph_bytes(sizes: tuple[int, ...], max_num_seqs: int) -> float:
    """Memory of the captured graphs on one GPU, bytes (estimate, see `BYTES_PER_GRAPH`).

    Every size has a piecewise graph; those up to `max_num_seqs` have a full decode graph as well.
    """
    if not sizes:
        return 0.0
    graphs = len(sizes) + sum(n <= max_num_seqs for n in sizes)
    return POOL_BYTES + BYTES_PER_GRAPH * graphs
