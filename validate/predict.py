"""Predictions for a plan: the deployment that it describes, and each of its loads simulated."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from moeplan.errors import InputError
from moeplan.scenario import Scenario, build_deployment
from moeplan.simulation.workload import ROUTING_SIGMA, Routing
from moeplan.validate.plan import Memory, Plan, Predicted
from moeplan.validate.workloads import LoadPoint, to_workload

if TYPE_CHECKING:
    from moeplan.calibration import Calibration
    from moeplan.cost.predictor import Prepared
    from moeplan.hardware_specs import Hardware
    from moeplan.simulation.result import SimulationResult
    from moeplan.validate.plan import Calibration as NamedCalibration

GIB = 2**30


def prepared_of(
    plan: Plan, folder: Path, hardware: Hardware | None = None, sigma: float | None = None
) -> Prepared:
    """The plan's deployment with settings, kernels and memory; `folder` is that of the plan.

    `hardware` stands in for the hardware files and calibration that the plan names, `sigma` for the
    spread of expert popularity that it assumes.
    """
    if hardware is None:
        hardware = hardware_of(plan, folder)
    scenario = resolved_scenario(plan.scenario, folder)
    longest = max(to_workload(r.load, folder, plan.routing).longest_tokens for r in plan.runs)
    sigma = ROUTING_SIGMA[plan.routing] if sigma is None else sigma
    return prepare_deployment(scenario, hardware, longest, sigma)


def prepare_deployment(
    scenario: Scenario, hardware: Hardware, longest_tokens: int, sigma: float
) -> Prepared:
    """A scenario prepared for sequences of that length and experts of that popularity."""
    from moeplan.cost.predictor import prepare

    deployment = build_deployment(scenario, hardware)
    if deployment.placement.replicas > 1:
        raise InputError("replicas above 1: the validator starts one engine; leave --replicas out")
    return prepare(deployment, hardware, longest_tokens, sigma)


def hardware_of(plan: Plan, folder: Path) -> Hardware:
    """Hardware data of the plan's own folder if it names one, with its calibration applied.

    Raises `InputError` where the calibration is not where the plan says, nor beside the plan.
    """
    hardware = own_hardware(plan, folder)
    if plan.calibration is None:
        return hardware
    return _calibration_of(plan.calibration, folder).applied_to(hardware)


def own_hardware(plan: Plan, folder: Path) -> Hardware:
    """Hardware data of the plan's own folder if it names one, without a calibration."""
    from moeplan.hardware_specs import load_hardware

    return load_hardware(folder / plan.hardware_dir if plan.hardware_dir else None)


def _calibration_of(named: NamedCalibration, folder: Path) -> Calibration:
    from moeplan.calibration import load_calibration

    places = [folder / named.path, folder / Path(named.path).name]
    there = [path for path in places if path.is_file()]
    for path in there:
        if (found := load_calibration(path)).sha256 == named.sha256:
            return found
    if there:
        raise InputError(
            f"{there[0]} is not the calibration that the plan was written with; copy that one "
            f"beside the plan in {folder}, or plan anew"
        )
    raise InputError(
        f"the calibration that the plan was written with, {named.path}, is not there, nor beside "
        f"the plan in {folder}; copy it there (--plan names the plan)"
    )


def resolved_scenario(scenario: Scenario, folder: Path) -> Scenario:
    """The scenario with a model path made relative to the plan's folder, where there is one."""
    path = folder / scenario.model
    return scenario.model_copy(update={"model": str(path)}) if path.exists() else scenario


def memory_prediction(prepared: Prepared) -> Memory:
    """What the engine will print of its memory."""
    weights = sum(prepared.memory.usage.weights.values())
    return Memory(
        kv_cache_tokens=prepared.memory.capacity.tokens,
        num_blocks=prepared.kv.num_blocks,
        weights_gib=round(weights / GIB, 4),
    )


def predict_load(
    prepared: Prepared, load: LoadPoint, folder: Path, routing: Routing = "random"
) -> Predicted:
    """Simulate one load point."""
    from moeplan.simulation.api import predict_prepared

    workload = to_workload(load, folder, routing)
    result = predict_prepared(prepared, workload, record_steps=True).result
    steps = result.steps
    assert steps is not None
    return Predicted(
        metrics={name: round(value, 4) for name, value in metrics_of(result).items()},
        steps=len(steps.duration_s),
        mean_step_ms=round(float(steps.duration_s.mean()) * 1e3, 4),
        mean_decodes=round(float(steps.decodes.mean()), 3),
        preemptions=int(result.preemptions.sum()),
        prefix_hit_tokens=int(result.prefix_hit_tokens.sum()),
    )


def metrics_of(result: SimulationResult) -> dict[str, float]:
    """A simulated run under the metric names of run records."""
    from moeplan.simulation import metrics

    found = {
        "output_tok_s": metrics.output_tok_s(result),
        "total_tok_s": metrics.total_tok_s(result),
        "request_throughput": metrics.request_throughput(result),
        "duration_s": metrics.duration_s(result),
    }
    latencies = {
        "ttft_ms": (metrics.ttft(result), 1e3),
        "tpot_ms": (metrics.tpot(result), 1e3),
        "itl_ms": (metrics.itl(result), 1e3),
        "e2e_s": (metrics.e2e(result), 1.0),
    }
    for name, (values, scale) in latencies.items():
        for statistic in ("mean", "p50", "p90", "p99"):
            found[f"{name}_{statistic}"] = getattr(values, statistic) * scale
    return {name: value for name, value in found.items() if not math.isnan(value)}
