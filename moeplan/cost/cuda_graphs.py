"""Which batch sizes an engine captures as CUDA graphs."""

from __future__ import annotations


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
