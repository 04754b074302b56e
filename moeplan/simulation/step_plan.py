"""What one step of an engine computes, and the options that decide on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from moeplan.cost.batch import StepBatch
from moeplan.errors import InputError
from moeplan.simulation.requests import Request
from moeplan.speculation import Speculation


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """Engine options, under vLLM's names where it has one."""

    max_num_batched_tokens: int
    max_num_seqs: int
    enable_prefix_caching: bool = False
    async_scheduling: bool = True
    pipeline_parallel_size: int = 1
    mixed_prefill: bool = True
    """False: a step carries either prefill or decode, prefill first."""
    long_prefill_token_threshold: int = 0
    """Most tokens of one prompt in a step; 0: no limit."""
    watermark: float = 0.0
    """Share of the blocks that admission leaves free while anything runs."""
    speculation: Speculation | None = None

    def __post_init__(self) -> None:
        for name in ("max_num_batched_tokens", "max_num_seqs", "pipeline_parallel_size"):
            value = getattr(self, name)
            if value < 1:
                raise InputError(f"{name} is {value}; it must be at least 1")
        if self.long_prefill_token_threshold < 0:
            raise InputError(
                f"long_prefill_token_threshold is {self.long_prefill_token_threshold}; "
                "use 0 for no limit"
            )
        if not 0 <= self.watermark < 1:
            raise InputError(f"watermark is {self.watermark}; it must be at least 0 and below 1")

    @property
    def max_concurrent_batches(self) -> int:
        """Steps in flight at most: one a pipeline stage, one more with async scheduling."""
        return self.pipeline_parallel_size + int(self.async_scheduling)


class StepPlan:
    """What one step computes, and for whom; filled by the scheduler, then fixed."""

    __slots__ = (
        "batch",
        "contexts",
        "decodes",
        "ending",
        "free_blocks",
        "fresh",
        "gains",
        "held_back",
        "index",
        "last",
        "preempted",
        "prefills",
        "running",
        "waiting",
    )

    def __init__(self, index: int):
        self.index = index
        """Steps scheduled before this one."""
        self.decodes: tuple[Request, ...] = ()
        self.contexts: list[int] = []
        """Cached tokens of each decode."""
        self.gains: list[int] = []
        """Tokens that each decode gets where that differs from 1 each, empty otherwise."""
        self.prefills: list[tuple[Request, int, int]] = []
        """Request, new tokens, tokens computed before."""
        self.ending: list[Request] = []
        """Prefills that reach the end of what is known and sample a token."""
        self.last: list[Request] = []
        """Requests whose last token this step samples."""
        self.fresh: list[Request] = []
        """Decodes whose previous token did not come with that of the other decodes."""
        self.held_back: list[Request] = []
        """Decodes that fall out of step: budget or blocks left them out."""
        self.preempted: list[Request] = []
        self.batch = StepBatch()
        self.running = 0
        self.waiting = 0
        self.free_blocks = 0

    def take(self, decodes: list[Request]) -> None:
        """Decode these requests, whose `computed` is absolute and which are not in step."""
        self.decodes = tuple(decodes)
        self.contexts = [request.computed for request in decodes]
        self.fresh = decodes

    @property
    def decoded_tokens(self) -> int:
        """Tokens that the decodes get."""
        return sum(self.gains) if self.gains else len(self.decodes)

    def items(self) -> Iterator[tuple[int, int, int]]:
        """(request index, tokens scheduled, tokens computed once they are) of each request.

        Of a decode's drafts those that are accepted.
        """
        for i, (request, context) in enumerate(zip(self.decodes, self.contexts, strict=True)):
            gain = self.gains[i] if self.gains else 1
            yield request.index, gain, context + gain
        for request, new, before in self.prefills:
            yield request.index, new, before + new
