"""Measured steps: what each computed and how long it took."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from moeplan.cost.batch import StepBatch
from moeplan.cost.step_time import StepTimeModel
from moeplan.deployment import Deployment

FINEST_RATIO = 1.05
"""Batches whose sizes differ by less than this fall into one cell."""


@dataclass(frozen=True, slots=True)
class StepObservation:
    """Steps of like composition, measured on one deployment."""

    batch: StepBatch
    seconds: float
    """Median of the steps."""
    steps: int = 1
    spread: float = 0.0
    """Robust standard deviation of log(seconds) among them; 0 for a single step."""
    run: str = ""
    """Which run they come from."""
    held_out: bool = False
    """Compared after the fit, never fitted."""
    idle: bool = False
    """Started in an idle engine: nothing before it hides the host's time."""

    def priced(self, timer: StepTimeModel) -> float:
        """Predicted seconds."""
        return timer.idle_seconds(self.batch) if self.idle else timer.step_seconds(self.batch)


@dataclass(frozen=True)
class Dataset:
    """Observations of one deployment, and what pricing its steps needs."""

    deployment: Deployment
    max_sequence_tokens: int
    sigma: float
    """Spread of expert popularity that the runs had."""
    observations: tuple[StepObservation, ...]

    @property
    def fitted(self) -> tuple[StepObservation, ...]:
        """Those that a fit may see."""
        return tuple(o for o in self.observations if not o.held_out)

    @property
    def held_out(self) -> tuple[StepObservation, ...]:
        """Those that it may not."""
        return tuple(o for o in self.observations if o.held_out)


def group_steps(
    batches: Iterable[StepBatch],
    seconds: Iterable[float],
    *,
    run: str = "",
    held_out: bool = False,
    idle: Iterable[bool] | None = None,
    min_seconds: float = 1e-6,
) -> list[StepObservation]:
    """Gather steps of like composition; the median of each cell is robust against host hiccups.

    Like means: sequences that decode, their summed context, tokens and attention pairs of prefill
    each within 5 %, and both or neither (`idle`) started in an idle engine. The cell's batch is
    that of its median step. Steps without a valid duration (NaN, not above `min_seconds`) are left
    out.
    """
    cells: dict[tuple[int, ...], list[tuple[float, StepBatch]]] = defaultdict(list)
    alone = repeat(False) if idle is None else idle
    for batch, duration, first in zip(batches, seconds, alone, strict=False):
        if duration > min_seconds and batch.tokens:
            cells[(int(first), *_cell(batch))].append((duration, batch))
    return [
        _observation(steps, run, held_out, bool(cell[0])) for cell, steps in sorted(cells.items())
    ]


def _cell(batch: StepBatch) -> tuple[int, ...]:
    prefill = sum(new for new, _ in batch.prefill_chunks)
    pairs = sum(new * (before + new / 2) for new, before in batch.prefill_chunks)
    sizes = (len(batch.decode_contexts), sum(batch.decode_contexts), prefill, pairs)
    return (*(_bucket(size) for size in sizes), len(batch.prefill_chunks))


def _bucket(size: float) -> int:
    return round(math.log(size) / math.log(FINEST_RATIO)) if size >= 1 else -1


def _observation(
    steps: Sequence[tuple[float, StepBatch]], run: str, held_out: bool, idle: bool
) -> StepObservation:
    ordered = sorted(steps, key=lambda step: step[0])
    seconds = np.array([duration for duration, _ in ordered])
    logs = np.log(seconds)
    spread = 1.4826 * float(np.median(np.abs(logs - np.median(logs))))
    return StepObservation(
        batch=ordered[len(ordered) // 2][1],
        seconds=float(np.median(seconds)),
        steps=len(ordered),
        spread=spread,
        run=run,
        held_out=held_out,
        idle=idle,
    )
