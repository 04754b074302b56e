"""From a deployment and a workload to a simulated run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from moeplan.cost.predictor import Prepared, prepare
from moeplan.deployment import Deployment
from moeplan.hardware_specs import Hardware, load_hardware
from moeplan.simulation.engine import run
from moeplan.simulation.front_end import FrontEndCosts
from moeplan.simulation.replica import ReplicaSpec
from moeplan.simulation.result import SimulationResult
from moeplan.simulation.scheduler import SchedulerSettings
from moeplan.simulation.workload import Workload


@dataclass(frozen=True)
class Prediction:
    """A simulated run beside all that it assumed."""

    prepared: Prepared
    workload: Workload
    result: SimulationResult


def scheduler_settings(prepared: Prepared) -> SchedulerSettings:
    """What the scheduler of one replica needs of the engine's settings."""
    engine, given = prepared.engine, prepared.deployment.engine
    return SchedulerSettings(
        max_num_batched_tokens=engine.max_num_batched_tokens,
        max_num_seqs=engine.max_num_seqs,
        enable_prefix_caching=engine.prefix_caching,
        async_scheduling=engine.async_scheduling,
        pipeline_parallel_size=prepared.deployment.placement.pp,
        mixed_prefill=engine.mixed_prefill,
        long_prefill_token_threshold=given.long_prefill_token_threshold,
        watermark=given.watermark,
        speculation=given.speculation,
    )


def predict(
    deployment: Deployment,
    workload: Workload,
    hardware: Hardware | None = None,
    *,
    record_steps: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Prediction:
    """Simulate the workload on the deployment; times in seconds.

    Raises `DeploymentError`, `DoesNotFitError` or `InputError` where no run is possible.
    """
    prepared = prepare(
        deployment,
        hardware or load_hardware(),
        workload.longest_tokens,
        workload.routing_sigma,
    )
    return predict_prepared(prepared, workload, record_steps=record_steps, progress=progress)


def predict_prepared(
    prepared: Prepared,
    workload: Workload,
    *,
    record_steps: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Prediction:
    """`predict` for a deployment that is prepared already (sweeps share the step-time tables)."""
    placement, host = prepared.deployment.placement, prepared.engine.host
    overlaps = prepared.engine.async_scheduling and placement.pp == 1
    replica = ReplicaSpec(
        timer=prepared.timer,
        kv=prepared.kv,
        settings=scheduler_settings(prepared),
        front_end=FrontEndCosts(
            fixed_s=host.ttft_us * 1e-6,
            turn_s=host.request_us * 1e-6,
            prompt_token_s=host.prompt_token_us * 1e-6,
            streamed_token_s=host.stream_us_per_token * 1e-6,
        ),
        launch=prepared.timer.launched_seconds if overlaps else None,
        launches_block=placement.tp == 1,
    )
    result = run(
        [replica] * prepared.deployment.placement.replicas,
        prepared.deployment.router,
        workload,
        record_steps=record_steps,
        progress=progress,
    )
    return Prediction(prepared, workload, result)


def simulate(
    deployment: Deployment, workload: Workload, hardware: Hardware | None = None
) -> SimulationResult:
    """Request times and throughput of the workload on the deployment."""
    return predict(deployment, workload, hardware).result
