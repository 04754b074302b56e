"""`SimulationResult`: every request's times, and the token stream, as NumPy arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moeplan.simulation.recorder import StepLog
from moeplan.simulation.workload import Workload


@dataclass(frozen=True, slots=True, eq=False)
class SimulationResult:
    """What one simulation saw. Times in seconds after the client's start; one entry a request."""

    arrival_s: np.ndarray
    """When the workload wanted it sent; a client-side cap sends it later."""
    sent_s: np.ndarray
    first_token_s: np.ndarray
    finish_s: np.ndarray
    input_tokens: np.ndarray
    output_tokens: np.ndarray
    preemptions: np.ndarray
    prefix_hit_tokens: np.ndarray
    replica: np.ndarray
    gaps_s: np.ndarray
    """Gaps between consecutive tokens of a request; not in order, warm-up included."""
    gap_counts: np.ndarray
    """How many gaps of that length there are."""
    token_times_s: np.ndarray
    """When tokens came; not in order."""
    token_counts: np.ndarray
    """How many tokens came at each of these times."""
    workload: Workload
    steps: StepLog | None = None
    """One row a step, if asked for."""

    def __len__(self) -> int:
        return len(self.sent_s)

    @property
    def ttft_s(self) -> np.ndarray:
        """From the send to the first token; waiting in the client is not in it."""
        return self.first_token_s - self.sent_s

    @property
    def e2e_s(self) -> np.ndarray:
        """From the send to the last token."""
        return self.finish_s - self.sent_s

    @property
    def tpot_s(self) -> np.ndarray:
        """(Last token - first token) / (output tokens - 1); NaN for one-token requests."""
        tokens = np.where(self.output_tokens > 1, self.output_tokens - 1, np.nan)
        return (self.finish_s - self.first_token_s) / tokens

    @property
    def steady(self) -> np.ndarray:
        """Mask of the requests after the first wave (those that did not start all together)."""
        order = np.arange(len(self))
        return order >= self.workload.first_wave
