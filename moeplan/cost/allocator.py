"""What PyTorch's caching allocator counts as allocated for a tensor that vLLM loads.

"Model loading took" is the growth of allocated bytes, whole blocks of the allocator, not the sizes
of tensors. vLLM loads under `max_split_size_mb:20` (`v1/worker/gpu_worker.py`, `load_model`), so
that blocks from 20 MiB on are never split.
"""

from __future__ import annotations

import math

MIB = 2**20
DIRECT_BYTES = 10 * MIB
"""From here on a tensor has a segment of its own (`kMinLargeAlloc`)."""
SEGMENT_STEP = 2 * MIB
"""Multiple to which such segments are rounded (`kRoundLarge`)."""
SPLIT_LIMIT = 20 * MIB
LEAST_REMAINDER = MIB
"""A remainder that is not larger stays part of the block (`kSmallSize`)."""
BLOCK_STEP = 512
"""Multiple of every block (`kMinBlockSize`)."""


def allocated_bytes(size: float) -> int:
    """Bytes of the block that holds a tensor of `size` bytes.

    After c10/cuda/CUDACachingAllocator.cpp (`should_split`). Blocks that are left from freed
    tensors and taken again are not followed; they may be larger.
    """
    rounded = math.ceil(size / BLOCK_STEP) * BLOCK_STEP
    if size < DIRECT_BYTES:
        return rounded
    segment = math.ceil(size / SEGMENT_STEP) * SEGMENT_STEP
    splits = size < SPLIT_LIMIT and segment - rounded > LEAST_REMAINDER
    return rounded if splits else segment


def surplus_bytes(size: float) -> float:
    """Bytes that the block of a tensor has beyond the tensor."""
    return allocated_bytes(size) - size
