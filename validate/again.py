"""Runs predicted anew, beside what was written before them and what was measured.

The stored prediction assumed how evenly traffic uses the experts; the routers were counted
afterwards. A prediction made anew takes the count, and the constants given: without a calibration
the difference between the two predictions is what the routing explains and what moeplan learnt
since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from moeplan.validate.measured import MeasuredRun
from moeplan.validate.predict import memory_prediction, predict_load, prepared_of

if TYPE_CHECKING:
    from moeplan.hardware_specs import Hardware

KV = "kv_cache_tokens"
JUDGED = ("output_tok_s", "tpot_ms_mean", "ttft_ms_mean", KV)
"""Figures that are compared."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a run: predicted before, predicted anew, and measured."""

    name: str
    before: float
    anew: float
    measured: float

    @property
    def error_before(self) -> float:
        """before / measured - 1."""
        return self.before / self.measured - 1

    @property
    def error_anew(self) -> float:
        """anew / measured - 1."""
        return self.anew / self.measured - 1


@dataclass(frozen=True, slots=True)
class Again:
    """One run, with those of `JUDGED` that both sides have, by name."""

    key: str
    role: str
    figures: dict[str, Figure]


@dataclass(frozen=True, slots=True)
class Share:
    """Absolute errors of one figure over runs of one role; medians and 90th percentiles."""

    role: str
    name: str
    runs: int
    median_before: float
    p90_before: float
    median_anew: float
    p90_anew: float


def predict_again(run: MeasuredRun, folder: Path, hardware: Hardware) -> Again:
    """Predict a stored run with this hardware data; `folder` is that of its plan."""
    prepared = prepared_of(run.plan, folder, hardware, run.sigma)
    anew = predict_load(prepared, run.run.load, folder, run.plan.routing).metrics
    anew = anew | {KV: float(memory_prediction(prepared).kv_cache_tokens)}
    before = run.run.predicted.metrics | {KV: float(run.plan.memory.kv_cache_tokens)}
    measured = {name: spread.mean for name, spread in run.metrics.items()}
    if run.facts.kv_cache_tokens:
        measured[KV] = float(run.facts.kv_cache_tokens)
    figures = {
        name: Figure(name, before[name], anew[name], measured[name])
        for name in JUDGED
        if name in before and name in anew and measured.get(name)
    }
    return Again(run.key, run.run.role, figures)


def shares(runs: Sequence[Again]) -> list[Share]:
    """Errors by role and figure; the KV cache, which no run is fitted to, over all engines."""
    found = []
    for role in dict.fromkeys(run.role for run in runs):
        for name in JUDGED[:-1]:
            mine = [r.figures[name] for r in runs if r.role == role and name in r.figures]
            if mine:
                found.append(_share(role, name, mine))
    kv = list({f.measured: f for r in runs if (f := r.figures.get(KV))}.values())
    return [*found, _share("engines", KV, kv)] if kv else found


def _share(role: str, name: str, figures: Sequence[Figure]) -> Share:
    before = np.abs([f.error_before for f in figures])
    anew = np.abs([f.error_anew for f in figures])
    return Share(
        role=role,
        name=name,
        runs=len(figures),
        median_before=float(np.median(before)),
        p90_before=float(np.quantile(before, 0.9)),
        median_anew=float(np.median(anew)),
        p90_anew=float(np.quantile(anew, 0.9)),
    )
