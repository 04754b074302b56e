"""Times that no step of a deployment can undercut, for whole ranges of batches at once.

A search compares deployments by them before it simulates any.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Attended = Callable[[int | None], float]
"""Tokens that a decoding query attends to, by the cap of its window (None: no cap)."""


@dataclass(frozen=True, slots=True)
class LeastTimes:
    """Seconds by pipeline stage: arrays of shape (stages, batches or sizes)."""

    decode: np.ndarray
    """Pure decode steps of 1, 2, … sequences."""
    riding: np.ndarray
    """What 0, 1, 2, … decodes add to a step that prefills."""
    prefill: np.ndarray
    """Steps with at least so many prefill tokens, by the sizes asked for."""
    prompt_attention: np.ndarray
    """Shape (stages,): attention of all prompts, beside the steps."""

    @property
    def step_decode(self) -> np.ndarray:
        """Pure decode steps through all stages."""
        return self.decode.sum(axis=0)

    @property
    def step_prefill(self) -> np.ndarray:
        """Steps with prefill through all stages."""
        return self.prefill.sum(axis=0)


@dataclass(frozen=True, slots=True)
class LeastQuery:
    """What is asked of a step-time model."""

    largest: int
    """Largest batch of decodes."""
    sizes: np.ndarray
    """Prefill tokens of a step."""
    prompts: np.ndarray
    """Lengths of all prompts."""
    before: np.ndarray
    """Leading tokens of each of them that may be cached already."""
    shortest: Attended
    """What the query of a sequence attends to at least."""
    mean: Attended
    """Mean of that over all decode steps of all sequences."""
    usual: float
    """Sequences that decode together, about: where the estimates should be tight."""
