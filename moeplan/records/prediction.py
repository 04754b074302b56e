"""Simulating what a record describes, the way its client ran it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from moeplan.deployment import Deployment
from moeplan.estimate import Basis
from moeplan.hardware_specs import Hardware
from moeplan.records.record import RunRecord
from moeplan.records.setup import Setup
from moeplan.records.setup_workload import stream_limit_s
from moeplan.simulation.result import SimulationResult
from moeplan.simulation.workload import Workload

if TYPE_CHECKING:
    from moeplan.cost.predictor import Prepared

GIB = 2**30
_PROBE_TOKENS = 256
_REFINEMENTS = 3
_KEPT_DEPLOYMENTS = 8


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a simulation says: the run, and the memory of one engine."""

    result: SimulationResult
    kv_cache_tokens: float
    """Tokens in the KV pool of one engine."""
    kv_pool_gib: float
    """KV pool on one GPU."""
    weights_gib: float
    """Weights on one GPU."""
    basis: Basis
    front_end_s: float = 0.0
    """What every TTFT holds for HTTP, tokenizer, detokenizer and client."""


Predict = Callable[[Deployment, Workload], Outcome]
"""Simulates a workload on a deployment; raises a `MoeplanError` where that cannot be."""


class CachingPredictor:
    """The simulator on given hardware; deployments used of late keep their step-time tables."""

    def __init__(self, hardware: Hardware):
        self._hardware = hardware
        self._prepared: OrderedDict[str, Prepared] = OrderedDict()

    def __call__(self, deployment: Deployment, workload: Workload) -> Outcome:
        from moeplan.simulation.api import predict_prepared

        prepared = self._prepare(deployment, workload)
        return Outcome(
            result=predict_prepared(prepared, workload).result,
            kv_cache_tokens=float(prepared.memory.capacity.tokens),
            kv_pool_gib=prepared.memory.kv_pool / GIB,
            weights_gib=prepared.memory.usage.parts["weights"] / GIB,
            basis=prepared.basis,
            front_end_s=prepared.engine.host.ttft_us * 1e-6,
        )

    def _prepare(self, deployment: Deployment, workload: Workload) -> Prepared:
        from moeplan.cost.predictor import prepare

        longest, sigma = workload.longest_tokens, workload.routing_sigma
        key = f"{deployment_key(deployment)}|{longest}|{sigma}"
        if key not in self._prepared:
            self._prepared[key] = prepare(deployment, self._hardware, longest, sigma)
            if len(self._prepared) > _KEPT_DEPLOYMENTS:
                self._prepared.popitem(last=False)
        self._prepared.move_to_end(key)
        return self._prepared[key]


def deployment_key(deployment: Deployment) -> str:
    """Text that is the same for deployments that simulate alike."""
    return "|".join(
        repr(part)
        for part in (
            deployment.architecture.slug,
            deployment.checkpoint,
            deployment.cluster,
            deployment.placement,
            deployment.router,
            deployment.engine,
        )
    )


def run_record(record: RunRecord, setup: Setup, predict: Predict) -> Outcome:
    """Simulate the recorded client protocol on the recorded deployment."""
    limit = stream_limit_s(record)
    if limit is not None:
        return _until(setup, predict, limit)
    return predict(setup.deployment, _one_of_equal_rounds(setup))


def _until(setup: Setup, predict: Predict, limit_s: float) -> Outcome:
    """Streams that the client cuts after `limit_s` seconds: as many tokens as come by then."""
    nominal = setup.workload.output_tokens
    tokens = min(_PROBE_TOKENS, nominal)
    outcome = _with_outputs(setup, predict, tokens)
    for _ in range(_REFINEMENTS):
        first = float(np.mean(outcome.result.ttft_s))
        each = float(np.mean(outcome.result.tpot_s))
        reached = min(max(int((limit_s - first) / each) + 1, 2), nominal)
        if reached == tokens:
            break
        tokens = reached
        outcome = _with_outputs(setup, predict, tokens)
    return outcome


def _with_outputs(setup: Setup, predict: Predict, tokens: int) -> Outcome:
    return predict(setup.deployment, setup.workload.model_copy(update={"output_tokens": tokens}))


def _one_of_equal_rounds(setup: Setup) -> Workload:
    """One round of a workload whose rounds are all the same: every mean over rounds is its own."""
    workload, placement = setup.workload, setup.deployment.placement
    width = workload.concurrency or 1
    spread = (workload.input_range, workload.output_range)
    same_lengths = all(low == high for low, high in spread)
    same_routes = placement.replicas == 1 or (
        setup.deployment.router != "simple-shuffle" and width % placement.replicas == 0
    )
    if workload.arrivals == "rounds" and same_lengths and same_routes:
        return workload.model_copy(update={"num_prompts": min(width, workload.num_prompts)})
    return workload
