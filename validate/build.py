"""Put a plan together: deployment, engine options, runs, and a prediction for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moeplan.calibration import load_calibration
from moeplan.deployment import Deployment
from moeplan.hardware_specs import Hardware, load_hardware
from moeplan.scenario import Scenario
from moeplan.simulation.workload import ROUTING_SIGMA, Routing
from moeplan.validate.engine_options import engine_options
from moeplan.validate.plan import Calibration, Launch, Plan, PlannedRun, now
from moeplan.validate.predict import (
    memory_prediction,
    predict_load,
    prepare_deployment,
    resolved_scenario,
)
from moeplan.validate.workloads import LoadPoint, to_workload
from moeplan.version import __version__


@dataclass(frozen=True, slots=True)
class Wanted:
    """A run before it has a prediction."""

    key: str
    why: str
    role: Literal["fit", "held-out"]
    load: LoadPoint
    repeats: int = 1
    minutes: float | None = None
    """None: twice its predicted duration for each repeat."""


@dataclass(frozen=True, slots=True)
class Setup:
    """Everything about a plan but its runs. Paths are relative to the plan's folder."""

    scenario: Scenario
    routing: Routing = "random"
    hardware_dir: str | None = None
    calibration: str | None = None
    model: str | None = None
    """Folder with weights; None plans a model without."""
    layers: int | None = None
    environment: tuple[tuple[str, str], ...] = ()
    serve_options: tuple[str, ...] = ()
    """Further options of `vllm serve`; the predictions know nothing of them."""
    probe: bool = True
    routers: bool = True
    """Draw and check the routers of a MoE model without weights."""

    def hardware(self, folder: Path) -> Hardware:
        """Hardware data with the calibration applied."""
        found = load_hardware(folder / self.hardware_dir if self.hardware_dir else None)
        if self.calibration is None:
            return found
        return load_calibration(folder / self.calibration).applied_to(found)


def build_plan(setup: Setup, wanted: Sequence[Wanted], folder: Path) -> Plan:
    """Predict every run and put the plan together; `folder` is where it will lie.

    Raises `InputError`, `DeploymentError` or `DoesNotFitError` where a run is impossible.
    """
    hardware = setup.hardware(folder)
    scenario = resolved_scenario(setup.scenario, folder)
    longest = max(to_workload(w.load, folder, setup.routing).longest_tokens for w in wanted)
    prepared = prepare_deployment(scenario, hardware, longest, ROUTING_SIGMA[setup.routing])
    dummy = setup.model is None
    routers = setup.routers and dummy and prepared.deployment.architecture.is_moe
    options = engine_options(prepared, dummy=dummy, probe=setup.probe, routers=routers)
    options += setup.serve_options
    runs = []
    for run in wanted:
        predicted = predict_load(prepared, run.load, folder, setup.routing)
        minutes = run.minutes
        if minutes is None:
            minutes = 2 * run.repeats * predicted.metrics["duration_s"] / 60
        about = {"key": run.key, "why": run.why, "role": run.role, "repeats": run.repeats}
        runs.append(
            PlannedRun(**about, minutes=round(minutes, 3), load=run.load, predicted=predicted)
        )
    return Plan(
        written=now(),
        moeplan_version=__version__,
        calibration=_calibration(setup, folder),
        hardware_dir=setup.hardware_dir,
        routing=setup.routing,
        deployment=setup.scenario.model_dump(exclude_defaults=True),
        launch=Launch(
            options=options,
            model=setup.model,
            layers=setup.layers,
            environment=dict(setup.environment),
            probe=setup.probe,
            routers=routers,
        ),
        memory=memory_prediction(prepared),
        runs=runs,
    )


def deployment_of(setup: Setup, folder: Path) -> Deployment:
    """The deployment of a setup."""
    from moeplan.scenario import build_deployment

    return build_deployment(resolved_scenario(setup.scenario, folder), setup.hardware(folder))


def _calibration(setup: Setup, folder: Path) -> Calibration | None:
    if setup.calibration is None:
        return None
    sha256 = load_calibration(folder / setup.calibration).sha256
    return Calibration(path=setup.calibration, sha256=sha256)
