"""How an engine pages the cache of one model: blocks, and the groups of layers that share them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class KVGroup:
    """Layers of one kind; every sequence holds blocks in every group.

    A `full` group holds ceil(length / block_size) blocks, a `sliding` or `chunked` one only those
    that its window still needs, a `recurrent` one `fixed_blocks` whatever the length.
    """

    kind: Literal["full", "sliding", "chunked", "recurrent"]
    block_size: int
    """Tokens a block."""
    window: int | None = None
    """Tokens that a sliding or chunked layer looks back on."""
    fixed_blocks: int = 0


@dataclass(frozen=True, slots=True)
class KVCacheSpec:
    """The pool of blocks of one replica's engine, shared by all groups."""

    num_blocks: int
    """Blocks in all, the null block (never usable) included."""
    block_size: int
    """Tokens a block in the scheduler's sense (prefix hits are whole blocks)."""
    groups: tuple[KVGroup, ...]
    max_in_flight_tokens: int = 0
    """Tokens that a windowed group must hold beyond its window (budget × batches in flight)."""
    frees_in_flight: bool = False
    """Whether windows pass tokens whose step still runs."""


@dataclass(frozen=True, slots=True)
class KVCapacity:
    """The two figures that vLLM prints at start."""

    tokens: int
    """"GPU KV cache size": the concurrency times `max_model_len`."""
    max_concurrency: float
    """Sequences of `max_model_len` tokens that the pool holds at once."""


def admission_blocks(group: KVGroup, length: int, in_flight_tokens: int) -> int:
    """Most blocks that one sequence of up to `length` tokens ever holds in a group.

    Windowed groups keep the tokens in flight beside the window, because blocks are freed when a
    step's result is known (`max_admission_blocks_per_request` in vLLM).
    """
    match group.kind:
        case "recurrent":
            return group.fixed_blocks
        case "sliding":
            held = min(group.window - 1 + in_flight_tokens, length)
            return math.ceil(held / group.block_size) + 1  # a window starts inside a block
        case "chunked":
            return math.ceil(min(group.window + in_flight_tokens, length) / group.block_size)
    return math.ceil(length / group.block_size)


def sequence_blocks(spec: KVCacheSpec, length: int) -> int:
    """Blocks of the pool that one sequence of `length` tokens may come to hold, all groups."""
    return sum(admission_blocks(g, length, spec.max_in_flight_tokens) for g in spec.groups)


def decoding_blocks(spec: KVCacheSpec, length: int) -> int:
    """Blocks that one sequence holds while it decodes at `length` tokens, all groups."""
    return sum(
        g.fixed_blocks or min(admission_blocks(g, length, 1), math.ceil(length / g.block_size))
        for g in spec.groups
    )


def kv_capacity(spec: KVCacheSpec, max_model_len: int) -> KVCapacity:
    """Capacity as vLLM prints it: blocks of the pool over blocks of the longest sequence."""
    concurrency = spec.num_blocks / sequence_blocks(spec, max_model_len)
    return KVCapacity(int(concurrency * max_model_len), concurrency)
