"""Carry a plan out: start the engine, measure what the store lacks, stop the engine.

Nothing is lost on Ctrl-C or a crash: every repeat is stored when it ends, with the engine's own
facts and the steps recorded in it, and the next call measures only what is missing.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from moeplan.errors import EngineFailedError, RecordError
from moeplan.models import load_model
from moeplan.simulation.workload import ROUTING_SIGMA
from moeplan.validate.dummy_model import write_named
from moeplan.validate.engine_log import read_engine_log
from moeplan.validate.host import host_facts
from moeplan.validate.launch import Engine, EngineCommand
from moeplan.validate.load import BenchClient, Driver, Repeat
from moeplan.validate.metrics import cache_config
from moeplan.validate.plan import Plan, PlannedRun, now, read_plan
from moeplan.validate.predict import resolved_scenario
from moeplan.validate.probe import FOLDER_VARIABLE, read_probe
from moeplan.validate.routing import RoutingCheck, moe_layer, set_routing
from moeplan.validate.store import RunFolder, Store

MANY = 64
"""Sequences that any engine runs at once unless told otherwise; enough for the routing check."""
Report = Callable[[str, float], None]
"""Told what is going on and which share of the plan is done (0..1)."""


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How to carry a plan out. Times in seconds."""

    python: str
    """Interpreter that has vLLM."""
    start_timeout_s: float = 1800.0
    load_timeout_s: float = 900.0
    """Longest time of one benchmark run."""
    attempts: int = 2
    """Engine starts before giving up on runs that fail."""
    port: int | None = None


@dataclass(slots=True)
class Outcome:
    """What a call did: runs measured now, found complete, and failed (with the reason)."""

    measured: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    """Damaged files of the store, and repeats that are no evidence."""

    def add(self, other: Outcome) -> None:
        """Count what another plan's call did, too."""
        self.measured += other.measured
        self.found += other.found
        self.failed |= other.failed
        self.problems += other.problems


def run_plans(
    files: Sequence[Path], store: Store, settings: RunSettings, report: Report
) -> Outcome:
    """Carry out several plans one after another; an engine that does not start costs its plan only.

    Raises `RecordError` where a plan cannot be read, before anything runs.
    """
    total = Outcome()
    plans = [read_plan(file) for file in files]
    for number, (file, plan) in enumerate(zip(files, plans, strict=True)):
        share = _part(report, number, len(files))
        try:
            total.add(run_plan(plan, file.parent, store, settings, share))
        except EngineFailedError as error:
            total.failed[file.stem] = str(error)
    return total


def _part(report: Report, number: int, parts: int) -> Report:
    return lambda what, share: report(what, (number + share) / parts)


def run_plan(
    plan: Plan, plan_folder: Path, store: Store, settings: RunSettings, report: Report
) -> Outcome:
    """Measure every run of the plan that the store does not hold complete.

    Raises `EngineFailedError` where the engine cannot be started; runs that fail later are in the
    outcome, the others are measured all the same.
    """
    outcome = Outcome()
    pending = _pending(plan, store, outcome)
    for _ in range(settings.attempts):
        if not pending:
            break
        session = _Session(plan, plan_folder, store, settings, report, outcome)
        session.measure(pending)
        pending = [run for run in pending if run.key in outcome.failed]
    return outcome


def _pending(plan: Plan, store: Store, outcome: Outcome) -> list[PlannedRun]:
    pending = []
    for run in plan.runs:
        folder = store.run(plan.store_key(run))
        outcome.problems += folder.problems
        if folder.complete and len(folder.names("repeat-")) >= run.repeats:
            outcome.found.append(run.key)
        else:
            pending.append(run)
    return pending


@dataclass(slots=True)
class _Session:
    """One start of the engine."""

    plan: Plan
    plan_folder: Path
    store: Store
    settings: RunSettings
    report: Report
    outcome: Outcome
    routing: RoutingCheck | None = None

    def measure(self, runs: list[PlannedRun]) -> None:
        """Start engine and client, measure these runs, stop both."""
        total = sum(run.minutes for run in self.plan.runs) or 1.0
        done = total - sum(run.minutes for run in runs)
        self.report("starting the engine", done / total)
        with tempfile.TemporaryDirectory(prefix="moeplan-probe-") as probe, self._up(probe) as up:
            for run in runs:
                self.report(run.key, done / total)
                self._attempt(run, up, Path(probe))
                done += run.minutes
        self.report("done", 1.0)

    @contextlib.contextmanager
    def _up(self, probe: str) -> Iterator[Driver]:
        model = self._model()
        logs = self.store.root / ".logs" / now().replace(":", "")
        environment = dict(self.plan.launch.environment)
        if self.plan.launch.probe:
            environment[FOLDER_VARIABLE] = probe
        command = EngineCommand(
            model, tuple(self.plan.launch.options), self.settings.python, environment=environment
        )
        engine = Engine(
            command,
            logs / "engine.log",
            port=self.settings.port,
            start_timeout_s=self.settings.start_timeout_s,
        )
        with BenchClient(self.settings.python, logs / "client.log") as client, engine:
            driver = Driver(engine, client, model, self.plan_folder, self.settings.load_timeout_s)
            self._route(driver)
            yield driver

    def _route(self, driver: Driver) -> None:
        """Give the routers the popularity that the predictions assume, and check them."""
        if not self.plan.launch.routers:
            return
        scenario = resolved_scenario(self.plan.scenario, self.plan_folder)
        moe = moe_layer(load_model(scenario.model).architecture)
        assert moe is not None  # the plan drew routers because there are some
        self.report("checking the routers", 0.0)
        sigma = ROUTING_SIGMA[self.plan.routing]
        try:
            self.routing = set_routing(driver, moe, sigma, scenario.max_num_seqs or MANY)
        except EngineFailedError as error:
            driver.engine.check_alive()
            self.outcome.problems.append(f"routing not checked: {error}")
        else:
            self.outcome.problems += self.routing.problems

    def _model(self) -> Path:
        """Folder that the engine loads; one without weights is made where the plan names none."""
        if self.plan.launch.model:
            return self.plan_folder / self.plan.launch.model
        scenario, layers = self.plan.scenario, self.plan.launch.layers
        own = self.plan_folder / scenario.model
        if own.is_dir():
            return own
        name = "-".join([scenario.model.replace("/", "--"), scenario.checkpoint or "default"])
        folder = self.store.root / ".models" / (f"{name}-{layers}-layers" if layers else name)
        return write_named(scenario.model, folder, scenario.checkpoint, layers)

    def _attempt(self, run: PlannedRun, driver: Driver, probe: Path) -> None:
        try:
            self._measure_run(run, driver, probe)
        except EngineFailedError as error:
            self.outcome.failed[run.key] = str(error)
        else:
            self.outcome.failed.pop(run.key, None)
            self.outcome.measured.append(run.key)

    def _measure_run(self, run: PlannedRun, driver: Driver, probe: Path) -> None:
        folder = self.store.run(self.plan.store_key(run))
        if "plan.json" not in folder.entries:
            folder.write_json("plan.json", describe(self.plan, run))
        driver.engine.check_alive()
        start = f"engine-{len(folder.names('engine-'))}.json"
        routing = self.routing.as_dict() if self.routing else None
        folder.write_json(start, {**engine_facts(driver.engine), "routing": routing})
        driver.warm_up(run.load)
        for number in range(run.repeats):
            if f"repeat-{number}.json" not in folder.entries:
                repeat = driver.measure(run.load)
                self._keep(folder, run, number, repeat, start, probe)
        folder.finish()

    def _keep(
        self,
        folder: RunFolder,
        run: PlannedRun,
        number: int,
        repeat: Repeat,
        start: str,
        probe: Path,
    ) -> None:
        stored = {"engine": start, "steps": None, **asdict(repeat)}
        if self.plan.launch.probe:
            try:
                steps = read_probe(probe).between(*repeat.span_ns)
                stored["steps"] = f"steps-{number}-{repeat.span_ns[0]}.npz"
                folder.write(stored["steps"], steps.to_bytes())
            except RecordError as error:
                stored["problems"] = [*repeat.problems, f"steps: {error}"]
        folder.write_json(f"repeat-{number}.json", stored)
        self.outcome.problems += [
            f"{run.key}, repeat {number}: {text}"
            for text in (*stored["problems"], *repeat.compiled)
        ]


def describe(plan: Plan, run: PlannedRun) -> dict[str, Any]:
    """What a run folder says of itself: the plan without its other runs."""
    return plan.model_dump(mode="json") | {"runs": [run.model_dump(mode="json")]}


def engine_facts(engine: Engine) -> dict[str, Any]:
    """All that is known of a running engine: log, command line, cache configuration, host."""
    return {
        "log": read_engine_log(engine.log()).as_dict(),
        "cache_config": cache_config(engine),
        "start_seconds": engine.start_seconds,
        "options": list(engine.command.options),
        "environment": dict(engine.command.environment),
        "host": host_facts(),
        "started": now(),
    }
