"""What the user wants validated: a workload, the time for it, how the engine is started."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from moeplan.errors import InputError
from moeplan.options import Options, parse_options
from moeplan.scenario import MOST_TOKENS, Scenario
from moeplan.validate.decision import Decision, Metric

if TYPE_CHECKING:
    from moeplan.validate.build import Setup, Wanted
    from moeplan.validate.plan import Plan


class ExperimentOptions(Options):
    """What a plan is for, and how long it may take."""

    input: int = Field(1024, ge=1, le=MOST_TOKENS, description="Prompt tokens of your workload.")
    output: int = Field(256, ge=1, le=MOST_TOKENS, description="Tokens that it generates.")
    concurrency: int = Field(32, ge=1, le=100_000, description="Its requests in flight.")
    num_prompts: int | None = Field(
        None, ge=1, le=1_000_000, description="Its requests in all.  [default: 10 × concurrency]"
    )
    metric: Metric = Field(
        "throughput", description="What you decide by: throughput, tpot or ttft of the workload."
    )
    limit: float | None = Field(
        None,
        gt=0,
        description="What it must keep: least tok/s, or most ms of TPOT or TTFT. Runs are then "
        "chosen by how much they lower the chance of judging this wrongly.",
    )
    against: str | None = Field(
        None,
        description="Another deployment that you choose between, as changed options: 'tp=2' or "
        "'checkpoint=bf16,kv=fp8'; throughput is compared a GPU.",
    )
    minutes: float = Field(
        10.0, gt=0, le=10_000, description="Time for all runs, the engine's start left out."
    )
    repeats: int = Field(2, ge=1, le=100, description="Measurements of each run.")
    runs: Path | None = Field(
        None, description="TOML file with runs of your own, in place of chosen ones."
    )
    routing: str = Field(
        "random", description="How unevenly the prompts use the experts (as in simulate)."
    )
    model_dir: Path | None = Field(
        None, description="Folder with weights.  [default: a model without, same speed but routing]"
    )
    layers: int | None = Field(
        None, ge=1, le=10_000, description="Cut the model without weights to its first layers."
    )
    serve_options: str | None = Field(
        None, description="Further options of vllm serve, in one string; predictions ignore them."
    )
    hardware_dir: Path | None = Field(None, description="Folder with hardware files of your own.")
    calibration: Path | None = Field(None, description="Calibration behind the predictions.")
    probe: bool = Field(
        True, description="Record every scheduler step (--no-probe: the engine's own class)."
    )


def _setup(scenario: Scenario, experiment: ExperimentOptions, folder: Path) -> Setup:
    from moeplan.cost.routing import ROUTING_SIGMA
    from moeplan.validate.build import Setup

    if experiment.routing not in ROUTING_SIGMA:
        raise InputError(
            f"routing is {experiment.routing!r}; it must be one of {', '.join(ROUTING_SIGMA)}"
        )
    return Setup(
        scenario,
        routing=experiment.routing,  # type: ignore[arg-type]
        hardware_dir=_seen_from(folder, experiment.hardware_dir),
        calibration=_seen_from(folder, experiment.calibration),
        model=_seen_from(folder, experiment.model_dir),
        layers=experiment.layers,
        serve_options=tuple(shlex.split(experiment.serve_options or "")),
        probe=experiment.probe,
    )


def _seen_from(folder: Path, path: Path | None) -> str | None:
    """The path relative to the plan's folder: both may travel to another host together."""
    return os.path.relpath(path.resolve(), folder.resolve()) if path is not None else None


def plan_of(
    scenario: Scenario, experiment: ExperimentOptions, path: Path, *, held_out: bool
) -> Plan:
    """Choose runs, predict them and put the plan for `path` together.

    `held_out` adds the workload itself to chosen runs; runs of the user's own stay as they are.
    Raises `InputError` where the time does not suffice or an option is wrong, `RecordError` where
    the file of own runs is.
    """
    from moeplan.validate.build import build_plan
    from moeplan.validate.own_runs import read_own_runs

    setup = _setup(scenario, experiment, path.parent)
    if experiment.runs is not None:
        own = read_own_runs(experiment.runs, path.stem)
        return build_plan(setup, own, path.parent)
    runs = _chosen(setup, experiment, path.parent)
    return build_plan(setup, runs if held_out else runs[:-1], path.parent)


def _chosen(setup: Setup, experiment: ExperimentOptions, folder: Path) -> list[Wanted]:
    from moeplan.validate.planning import wanted_runs
    from moeplan.validate.workloads import ClosedLoop

    target = ClosedLoop(
        concurrency=experiment.concurrency,
        input_tokens=experiment.input,
        output_tokens=experiment.output,
        num_prompts=experiment.num_prompts or 10 * experiment.concurrency,
    )
    decision = _decision(setup.scenario, experiment)
    return wanted_runs(setup, target, folder, experiment.minutes, experiment.repeats, decision)


def _decision(scenario: Scenario, experiment: ExperimentOptions) -> Decision:
    if experiment.limit is not None and experiment.against is not None:
        raise InputError("limit and against are two questions; ask one of them")
    return Decision(experiment.metric, experiment.limit, _rival(scenario, experiment.against))


def _rival(scenario: Scenario, changes: str | None) -> Scenario | None:
    """The scenario with changed options "name=value,name=value"."""
    if changes is None:
        return None
    values = {}
    for change in changes.split(","):
        name, sign, value = change.partition("=")
        name = name.strip().removeprefix("--").replace("-", "_")
        if not sign or name not in Scenario.model_fields:
            raise InputError(
                f"against {changes!r}: {change.strip()!r} is no option=value of a deployment; "
                "write for example 'tp=2,kv=fp8'"
            )
        values[name] = value.strip()
    return parse_options(Scenario, scenario.model_dump(exclude_unset=True) | values)
