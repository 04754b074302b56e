"""Stored runs, read back as evidence: metrics with their spread, engine facts, recorded steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from moeplan.errors import MoeplanError, RecordError
from moeplan.records.importers import vllm_bench
from moeplan.simulation.workload import ROUTING_SIGMA
from moeplan.validate.engine_log import LogFacts, facts_from_dict
from moeplan.validate.plan import Plan, PlannedRun
from moeplan.validate.probe import StepTrace, trace_from_bytes
from moeplan.validate.routing import Touched, counted_sigma
from moeplan.validate.store import RunFolder, Store


@dataclass(frozen=True, slots=True)
class Spread:
    """A metric over repeats: mean, and half the range between the extremes relative to it."""

    mean: float
    half_range: float
    repeats: int


@dataclass
class MeasuredRun:
    """One stored run. Repeats that are no evidence are left out; `problems` says why."""

    folder: RunFolder
    plan: Plan
    repeats: list[dict[str, Any]]
    problems: list[str] = field(default_factory=list)

    @property
    def run(self) -> PlannedRun:
        """What was planned and predicted, as it stood before the run."""
        return self.plan.runs[0]

    @property
    def key(self) -> str:
        """Name of the run in its plan."""
        return self.run.key

    @cached_property
    def engine(self) -> dict[str, Any]:
        """Facts of the engine that the last repeat was measured on."""
        return self.folder.read_json(self.repeats[-1]["engine"])

    @property
    def facts(self) -> LogFacts:
        """What the engine's log said."""
        return facts_from_dict(self.engine["log"])

    @property
    def routing(self) -> list[Touched] | None:
        """Experts that the routers touched where they were checked, else None."""
        found = self.engine.get("routing")
        return None if found is None else [Touched(**t) for t in found["touched"]]

    @cached_property
    def sigma(self) -> float:
        """Spread of expert popularity: as counted where the routers were checked, else assumed."""
        checked = self.engine.get("routing")
        counted = checked and counted_sigma(self.routing or [], checked)
        return ROUTING_SIGMA[self.plan.routing] if counted is None else counted

    @cached_property
    def metrics(self) -> dict[str, Spread]:
        """Metrics under the names of run records, over the repeats."""
        each = [vllm_bench.metrics(r["result"], self.key) for r in self.repeats]
        names = [name for name in each[0] if all(name in found for found in each)]
        return {name: _spread([found[name] for found in each]) for name in names}

    @cached_property
    def counters(self) -> dict[str, float]:
        """Differences of the server's counters, mean over repeats."""
        names = self.repeats[0]["counters"]
        return {n: float(np.mean([r["counters"].get(n, 0.0) for r in self.repeats])) for n in names}

    @cached_property
    def traces(self) -> list[StepTrace]:
        """Recorded steps of each repeat; empty without a probe."""
        names = [r["steps"] for r in self.repeats if r.get("steps") in self.folder.entries]
        return [trace_from_bytes(self.folder.read(name)) for name in names]


def _spread(values: list[float]) -> Spread:
    mean = float(np.mean(values))
    half_range = (max(values) - min(values)) / 2
    return Spread(mean, half_range / mean if mean else 0.0, len(values))


@dataclass(frozen=True)
class Evidence:
    """A store's usable runs, and what could not be used."""

    runs: list[MeasuredRun]
    problems: list[str]


def read_store(root: Path) -> Evidence:
    """Read every run; damaged, unfinished and tainted ones are named and left out.

    Raises `RecordError` where nothing usable is left.
    """
    runs, problems = [], []
    for folder in Store(root).runs():
        problems += folder.problems
        try:
            run = read_run(folder)
        except (MoeplanError, ValidationError, KeyError, ValueError) as error:
            problems.append(f"{folder.path}: {_one_line(error)}; run skipped")
            continue
        problems += run.problems
        runs.append(run)
    if not runs:
        detail = f": {problems[0]}" if problems else ""
        raise RecordError(f"{root} holds no usable run{detail}; measure with `validate run`")
    return Evidence(runs, problems)


def read_run(folder: RunFolder) -> MeasuredRun:
    """One run; raises `RecordError` where no repeat of it is evidence."""
    plan = Plan.model_validate(folder.read_json("plan.json"))
    usable, problems = [], []
    for name in folder.names("repeat-"):
        repeat = folder.read_json(name)
        flaws = [*repeat["problems"], *repeat["compiled"]]
        if flaws:
            problems.append(f"{folder.path / name}: {flaws[0]}; left out")
        else:
            usable.append(repeat)
    if not usable:
        why = problems[0] if problems else "no repeat was finished"
        raise RecordError(why)
    if not folder.complete:
        problems.append(f"{folder.path}: unfinished, {len(usable)} repeats used")
    return MeasuredRun(folder, plan, usable, problems)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
