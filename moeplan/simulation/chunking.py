"""How many tokens of a prompt go into one step."""

from __future__ import annotations

from moeplan.cost.kv_layout import KVCacheSpec
from moeplan.simulation.step_plan import SchedulerSettings


class ChunkRule:
    """vLLM's rules for a prefill chunk (v1/core/sched/scheduler.py).

    What the budget leaves, at most `long_prefill_token_threshold`. A model with recurrent state
    whose prefixes are cached keeps that state at ends of blocks only: a chunk stops at the last one
    that it reaches, and where a shared prefix ends, except for the tail of a prompt; a budget
    smaller than a block advances within it.
    """

    __slots__ = ("_block", "_longest")

    def __init__(self, settings: SchedulerSettings, kv: KVCacheSpec):
        self._longest = settings.long_prefill_token_threshold
        recurrent = [group.block_size for group in kv.groups if group.kind == "recurrent"]
        self._block = max(recurrent, default=0) if settings.enable_prefix_caching else 0

    def size(self, before: int, target: int, junction: int, budget: int) -> int:
        """Tokens after the first `before` of `target`; a shared prefix ends at `junction`."""
        chunk = target - before
        if 0 < self._longest < chunk:
            chunk = self._longest
        chunk = min(chunk, budget)
        if not self._block:
            return chunk
        end = before + chunk
        stop = end - end % self._block
        shared = junction - junction % self._block
        if before < shared < stop:
            stop = shared
        return stop - before if stop > before else chunk
