"""Replicas that see the same traffic: one of them stands for all.

Where requests are alike, are sent when others end, and go round the replicas in turn, equal numbers
for each, all replicas do the same at the same times. One of them with its share of the requests
then tells the whole run.
"""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np

from moeplan.cost.predictor import Prepared
from moeplan.planner.demand import most_in_flight
from moeplan.simulation.api import predict_prepared
from moeplan.simulation.result import SimulationResult
from moeplan.simulation.workload import Workload


def alone(prepared: Prepared) -> Prepared:
    """One replica of a deployment."""
    deployment = prepared.deployment
    placement = replace(deployment.placement, replicas=1)
    return replace(prepared, deployment=replace(deployment, placement=placement))


def twins(prepared: Prepared, workload: Workload) -> int:
    """How many replicas a single one stands for: all of them, or 1 where they may differ."""
    deployment = prepared.deployment
    replicas = deployment.placement.replicas
    alike = workload.input_range == workload.output_range == (1.0, 1.0) and not workload.trace
    together = workload.arrivals in ("closed", "rounds", "offline")
    counts = (workload.num_prompts, most_in_flight(workload), workload.num_warmups)
    even = all(count % replicas == 0 for count in counts)
    return replicas if alike and together and even and deployment.router == "round_robin" else 1


def share(workload: Workload, parts: int) -> Workload:
    """The requests that one of `parts` twins gets."""
    counts = ("num_prompts", "concurrency", "num_warmups")
    parted = {name: getattr(workload, name) for name in counts}
    return workload.model_copy(update={n: v and max(v // parts, 1) for n, v in parted.items()})


def simulate(prepared: Prepared, workload: Workload) -> SimulationResult:
    """`predict_prepared`, by one replica where all are twins."""
    parts = twins(prepared, workload)
    if parts == 1:
        return predict_prepared(prepared, workload).result
    result = predict_prepared(alone(prepared), share(workload, parts)).result
    arrays = {f.name: getattr(result, f.name) for f in fields(result)}
    repeated = {
        name: np.repeat(array, parts)
        for name, array in arrays.items()
        if isinstance(array, np.ndarray)
    }
    repeated["replica"] = np.tile(np.arange(parts), len(result))
    return replace(result, **repeated, workload=workload)
