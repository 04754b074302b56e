"""One request: what the client asks for, and what becomes of it inside an engine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simpy import Event


@dataclass(frozen=True, slots=True)
class RequestSpec:
    """What a client sends, fixed before the run. Lengths in tokens, times in seconds."""

    index: int
    """Position in the workload, from 0; unique."""
    arrival_s: float
    """Earliest time at which the client sends it (0 in closed loops)."""
    input_tokens: int
    output_tokens: int
    """Tokens that the request generates, exactly (end of sequence is ignored)."""
    hash_ids: tuple[int, ...] = ()
    """Content of the prompt, chunk by chunk; equal ids mean equal tokens. What they leave over is
    the request's own."""
    hash_chunk_tokens: int = 0
    """Tokens a chunk."""


class Request:
    """A request inside an engine; the scheduler and the KV pool own its fields.

    It is *waiting* (in the scheduler's queue, `computed` 0), *prefilling* (running, `computed`
    below `target`), *decoding* (running, one token a step) or *finished* (`generated` equals
    `output`). Preemption takes it back to waiting with what it generated kept.
    """

    __slots__ = (
        "block_keys",
        "blocks",
        "cached",
        "chunk_start",
        "computed",
        "decoding",
        "done",
        "final",
        "finish_s",
        "first_token_s",
        "generated",
        "held",
        "hit_tokens",
        "in_step",
        "index",
        "junction",
        "output",
        "preemptions",
        "prompt",
        "regular",
        "replica",
        "sent_s",
        "seq",
        "spec",
        "target",
        "token_s",
        "verified",
    )

    def __init__(self, spec: RequestSpec):
        self.spec = spec
        self.index = spec.index
        self.prompt = spec.input_tokens
        """Prompt tokens."""
        self.output = spec.output_tokens
        """Tokens to generate."""
        self.final = spec.input_tokens + spec.output_tokens - 1
        """Tokens computed when the last one is sampled (that one is never computed)."""
        self.computed = 0
        """Tokens in the cache or being computed; in lockstep, relative to the scheduler's clock."""
        self.target = spec.input_tokens
        """Tokens to compute before the next one is sampled: prompt plus what was generated."""
        self.generated = 0
        """Tokens known; updated when a request leaves lockstep, not at every step."""
        self.decoding = False
        """Whether it advances in lockstep with the other decodes."""
        self.regular = False
        """Whether its last token came with that of all lockstep decodes."""
        self.chunk_start = 0
        """`computed` before its last chunk."""
        self.held = 0
        """Tokens that its blocks were taken for, where drafts take more than are computed."""
        self.in_step = -1
        """Index of the last step that sampled a token of it."""
        self.seq = 0
        """Order of admission."""
        self.blocks: list[list[int]] = []
        """Per KV group: block numbers, 0 where a window has passed; where a pool only counts, the
        range of positions held."""
        self.cached: list[int] = []
        """Blocks of each KV group that carry a key (exact pool only)."""
        self.block_keys: dict[int, list[int]] = {}
        """Keys of the prompt's shareable blocks by block size (exact pool only)."""
        self.junction = 0
        """Tokens shared with an earlier request that not all KV groups had cached."""
        self.verified = 0
        """Steps that verified drafts of it."""
        self.preemptions = 0
        self.hit_tokens = 0
        """Tokens found in the prefix cache, over all admissions."""
        self.replica = 0
        self.done: Event | None = None
        """Succeeds when the last token arrives."""
        self.sent_s = math.nan
        self.first_token_s = math.nan
        self.finish_s = math.nan
        self.token_s = math.nan
        """Time of its last token while not `regular`."""

    def __repr__(self) -> str:
        return f"Request({self.index}, {self.prompt}+{self.output})"
