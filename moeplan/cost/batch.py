"""What a step computes, and the two questions that a simulation asks of a step-time model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np


@dataclass(frozen=True, slots=True)
class StepBatch:
    """Composition of one engine step, one replica.

    `decode_contexts`: tokens already in the cache of each decoding sequence, before this step.
    `prefill_chunks`: (new tokens, tokens computed before) of each prefilling sequence.
    `sampled_rows`: sequences that get a token: decodes plus prompts that end in this step.
    `tokens_a_decode`: tokens that each decoding sequence computes: its drafts and one more.
    """

    decode_contexts: Sequence[int] = field(default_factory=tuple)
    prefill_chunks: Sequence[tuple[int, int]] = field(default_factory=tuple)
    sampled_rows: int = 0
    tokens_a_decode: int = 1

    @property
    def tokens(self) -> int:
        """Tokens that the step computes."""
        decodes = self.tokens_a_decode * len(self.decode_contexts)
        return decodes + sum(new for new, _ in self.prefill_chunks)


class StepTimer(Protocol):
    """A step-time model, as the simulation sees it. All times in seconds."""

    stages: int
    """Pipeline stages; 1 without pipeline parallelism."""

    def stage_seconds(self, batch: StepBatch) -> tuple[float, ...]:
        """Time that each pipeline stage spends on this batch, sending it on included."""

    def step_seconds(self, batch: StepBatch) -> float:
        """Time from launching a step to its successor's launch on an idle pipeline: all stages."""

    def decode_seconds(self, contexts: np.ndarray, steps: int) -> np.ndarray:
        """`step_seconds` of each of the next `steps` pure decode steps, shape (steps,).

        `contexts` are the cached tokens of each sequence before the first of them; each step adds
        one token to every sequence.
        """

    def draft_seconds(self, contexts: np.ndarray) -> np.ndarray:
        """`step_seconds` of pure decode steps of an engine that drafts, shape (steps,).

        `contexts`, shape (steps, sequences), are the cached tokens before each of them.
        """

    def decode_stage_seconds(self, contexts: np.ndarray, steps: int) -> np.ndarray:
        """`stage_seconds` of each of the next `steps` pure decode steps, shape (stages, steps).

        Asked for only where `stages` exceeds 1; contexts as in `decode_seconds`.
        """
