"""`Demand`: what a workload asks to be computed, whatever serves it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from moeplan.simulation.workload import Workload, requests


def most_in_flight(workload: Workload) -> int:
    """Most requests that the client keeps open at once."""
    capped = workload.concurrency if workload.arrivals != "offline" else None
    return min(capped or workload.size, workload.size)


@dataclass(frozen=True, eq=False)
class Demand:
    """Requests of a workload as arrays in order of sending, and how many may be open at once."""

    inputs: np.ndarray
    outputs: np.ndarray
    arrivals_s: np.ndarray
    in_flight: int
    """Most requests that the client keeps open at once."""
    first_wave: int
    """Requests that are sent together at the start."""
    closed: bool
    """Whether every end sends the next request, until none is left."""
    shared: int | None
    """Leading tokens of a prompt that a prefix cache may hold; None: nobody knows, maybe all."""

    @classmethod
    def of(cls, workload: Workload) -> Demand:
        """Sum up a workload."""
        specs = requests(workload)
        return cls(
            inputs=np.array([spec.input_tokens for spec in specs]),
            outputs=np.array([spec.output_tokens for spec in specs]),
            arrivals_s=np.array([spec.arrival_s for spec in specs]),
            in_flight=most_in_flight(workload),
            first_wave=workload.first_wave,
            closed=workload.arrivals == "closed",
            shared=None
            if any(row.hash_ids for row in workload.trace)
            else workload.shared_prefix_tokens,
        )

    def share(self, parts: int) -> Demand:
        """What one of so many twins has to compute: every so-manieth request."""
        return replace(
            self,
            inputs=self.inputs[::parts],
            outputs=self.outputs[::parts],
            arrivals_s=self.arrivals_s[::parts],
            in_flight=self.in_flight // parts,
            first_wave=self.first_wave // parts,
        )

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def shortest_input(self) -> int:
        """Tokens of the shortest prompt."""
        return int(self.inputs.min())

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return int((self.inputs + self.outputs).max())

    def uncached(self, *, prefix_caching: bool) -> np.ndarray:
        """Prompt tokens of each request that no prefix cache can hold, at least 1."""
        if not prefix_caching or self.shared == 0:
            return self.inputs
        if self.shared is None:
            return np.ones_like(self.inputs)
        return np.maximum(self.inputs - self.shared, 1)

    def shortest_attended(self, cap: int | None) -> float:
        """Tokens that the query of any decode step attends to at least."""
        return float(min(self.shortest_input + 1, cap or np.inf))

    def mean_attended(self, cap: int | None) -> float:
        """Mean over all decode steps of all requests of what their queries attend to.

        The i-th of them, from 0, sees its prompt, i generated tokens and its own.
        """
        steps, first = self.outputs - 1, self.inputs + 1
        growing = steps if cap is None else np.clip(cap - first, 0, steps)
        total = growing * first + growing * (growing - 1) / 2
        if cap is not None:
            total = total + (steps - growing) * cap
        return float(total.sum()) / max(int(steps.sum()), 1)
