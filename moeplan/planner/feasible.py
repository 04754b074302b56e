"""Deployments that the engine would start, each once, and what bounds them."""

from __future__ import annotations

from collections.abc import Iterable

from moeplan.cost.predictor import Prepared, Preparer
from moeplan.deployment import Deployment
from moeplan.errors import DeploymentError, DoesNotFitError
from moeplan.hardware_specs.schema import Hardware
from moeplan.planner.bounds import Bounds, bounds
from moeplan.planner.candidates import Refusals
from moeplan.planner.demand import Demand
from moeplan.planner.running import most_running, preemption
from moeplan.planner.twins import alone, twins
from moeplan.simulation.workload import Workload


class Feasible:
    """What came of all deployments that were built for one workload."""

    def __init__(self, workload: Workload, hardware: Hardware, *, whole_loops: bool):
        """`whole_loops` as in `bounds`."""
        self.prepared: list[Prepared] = []
        self.refusals = Refusals()
        self.duplicates = 0
        self.least_missing: DoesNotFitError | None = None
        """The refusal that lacks the fewest GiB."""
        self.demand = Demand.of(workload)
        self._workload, self._whole_loops = workload, whole_loops
        self._shares = {1: self.demand}
        self._preparer = Preparer(hardware, workload.longest_tokens, workload.routing_sigma)
        self._known: set[tuple] = set()

    def add(self, deployments: Iterable[Deployment]) -> range:
        """Prepare deployments; the places of those that are new."""
        start = len(self.prepared)
        for deployment in deployments:
            prepared = self._prepare(deployment)
            if prepared is not None:
                self._take(prepared)
        return range(start, len(self.prepared))

    def bounds(self, number: int) -> Bounds:
        """The best that the deployment at a place could do."""
        prepared = self.prepared[number]
        parts = twins(prepared, self._workload)
        one = alone(prepared) if parts > 1 else prepared
        return bounds(one, self._share(parts), whole_loops=self._whole_loops).times(parts)

    def _prepare(self, deployment: Deployment) -> Prepared | None:
        try:
            return self._preparer.prepare(deployment)
        except DoesNotFitError as error:
            self.refusals.add("does not fit in memory", f"{deployment.placement}: {error}")
            if not self.least_missing or error.missing_gib < self.least_missing.missing_gib:
                self.least_missing = error
        except DeploymentError as error:
            rule = str(error).partition(";")[0]
            self.refusals.add(rule, f"{deployment.placement}: {error}")
        return None

    def _take(self, prepared: Prepared) -> None:
        key = _behaviour(prepared, self._share(twins(prepared, self._workload)))
        if key in self._known:
            self.duplicates += 1
            return
        self._known.add(key)
        self.prepared.append(prepared)

    def _share(self, parts: int) -> Demand:
        if parts not in self._shares:
            self._shares[parts] = self.demand.share(parts)
        return self._shares[parts]


def _behaviour(prepared: Prepared, demand: Demand) -> tuple:
    """What tells the steps of one deployment from those of another.

    A token budget or sequence limit beyond what can ever be in one step does not, unless blocks are
    scarce: then the memory that they take does.
    """
    deployment, engine = prepared.deployment, prepared.engine
    budget, seqs = engine.max_num_batched_tokens, engine.max_num_seqs
    running = most_running(prepared, demand)
    if preemption(prepared, demand, running) is None and running == min(demand.in_flight, seqs):
        budget = min(budget, demand.in_flight * demand.longest)
        seqs = min(seqs, demand.in_flight)
    checkpoint = deployment.checkpoint
    name = checkpoint.repo or checkpoint.name
    return (
        name,
        deployment.placement,
        engine.kv_format,
        budget,
        seqs,
        engine.cuda_graph_sizes,
        engine.speculation,
    )
