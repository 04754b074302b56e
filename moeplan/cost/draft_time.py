"""`DraftTimer`: GPU seconds that drafting adds to a step.

As vLLM's MTP and EAGLE proposers work (`v1/spec_decode/eagle.py`): the first pass runs over all
tokens that the step has verified or prefilled, so that the drafter's cache follows; each further
draft is one pass over one token a sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from moeplan.cost.attention_time import DecodeAttentionTime
from moeplan.cost.batch import StepBatch
from moeplan.cost.engine import ResolvedEngine
from moeplan.cost.least_time import LeastQuery
from moeplan.cost.stage_time import StageTimer
from moeplan.cost.stages import Stage
from moeplan.hardware_specs.schema import SmallKernels


class DraftTimer:
    """Seconds of a step's drafts; they come after the last stage, before the next step."""

    def __init__(self, stage: Stage, small: SmallKernels, engine: ResolvedEngine, most_tokens: int):
        """`stage`: one pass of the drafter; its drafts are the greedy ones, sampled at no cost."""
        greedy = replace(engine, host=engine.host.model_copy(update={"exposed_us_per_sequence": 0}))
        self._first = StageTimer(stage, small, greedy, most_tokens, engine.tokens_a_decode)
        self._next = StageTimer(stage, small, greedy, most_tokens)
        self._further = engine.tokens_a_decode - 2

    def seconds(self, batch: StepBatch) -> float:
        """All passes after a step."""
        first = self._first.seconds(batch)
        if not self._further:
            return first
        contexts = [*batch.decode_contexts, *(new + before for new, before in batch.prefill_chunks)]
        return first + self._further * self._next.seconds(StepBatch(contexts))

    def stretch_seconds(self, contexts: np.ndarray) -> np.ndarray:
        """All passes after each of many pure decode steps, contexts (steps, sequences)."""
        first = self._first.stretch_seconds(contexts)
        return first + self._further * self._next.stretch_seconds(contexts)

    def least(
        self, query: LeastQuery, price: Callable[[DecodeAttentionTime], np.ndarray], *, floors: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `StageTimer.least`."""
        decode, riding, prefill = self._first.least(query, price, floors=floors)
        further, _, _ = self._next.least(query, price, floors=floors)
        return decode + self._further * further, riding, prefill
