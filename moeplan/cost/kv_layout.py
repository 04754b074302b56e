"""How an engine pages the cache of one model: blocks, and the groups of layers that share them."""

from __future__ import annotations

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
