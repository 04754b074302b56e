"""Deployments that the engine would start, each once, with what bounds them."""

from __future__ import annotations

from dataclasses import dataclass, field

from moeplan.cost.predictor import Prepared, Preparer
from moeplan.deployment import Cluster, Deployment, EngineSettings
from moeplan.errors import DeploymentError, DoesNotFitError
from moeplan.hardware_specs.schema import Hardware
from moeplan.models.architecture import Architecture
from moeplan.planner.bounds import Bounds, bounds
from moeplan.planner.candidates import Refusals, Space, build_candidates
from moeplan.planner.demand import Demand
from moeplan.planner.running import may_preempt, most_running
from moeplan.planner.twins import alone, twins
from moeplan.simulation.workload import Workload


@dataclass(frozen=True)
class Option:
    """A deployment that could run, and the best that it could do."""

    prepared: Prepared
    bounds: Bounds


@dataclass
class Feasible:
    """What came of building all deployments."""

    options: list[Option] = field(default_factory=list)
    refusals: Refusals = field(default_factory=Refusals)
    duplicates: int = 0
    least_missing: DoesNotFitError | None = None
    """The refusal that lacks the fewest GiB."""


def feasible(
    architecture: Architecture,
    cluster: Cluster,
    space: Space,
    engine: EngineSettings,
    workload: Workload,
    hardware: Hardware,
) -> Feasible:
    """Build, prepare and bound every deployment of a space."""
    return _Builder(workload, hardware).build(architecture, cluster, space, engine)


class _Builder:
    def __init__(self, workload: Workload, hardware: Hardware):
        self.workload = workload
        self.demands = {1: Demand.of(workload)}
        self.preparer = Preparer(hardware, workload.longest_tokens, workload.routing_sigma)
        self.found = Feasible()
        self.known: set[tuple] = set()

    def build(
        self,
        architecture: Architecture,
        cluster: Cluster,
        space: Space,
        engine: EngineSettings,
    ) -> Feasible:
        candidates = build_candidates(
            architecture,
            cluster,
            space,
            engine,
            self.demands[1].in_flight,
            self.found.refusals,
        )
        for deployment in candidates:
            prepared = self._prepare(deployment)
            if prepared is not None:
                self._take(prepared)
        return self.found

    def _prepare(self, deployment: Deployment) -> Prepared | None:
        found = self.found
        try:
            return self.preparer.prepare(deployment)
        except DoesNotFitError as error:
            found.refusals.add("does not fit in memory", f"{deployment.placement}: {error}")
            if not found.least_missing or error.missing_gib < found.least_missing.missing_gib:
                found.least_missing = error
        except DeploymentError as error:
            rule = str(error).partition(";")[0]
            found.refusals.add(rule, f"{deployment.placement}: {error}")
        return None

    def _take(self, prepared: Prepared) -> None:
        parts = twins(prepared, self.workload)
        demand = self._demand(parts)
        key = _behaviour(prepared, demand)
        if key in self.known:
            self.found.duplicates += 1
            return
        self.known.add(key)
        one = alone(prepared) if parts > 1 else prepared
        self.found.options.append(Option(prepared, bounds(one, demand).times(parts)))

    def _demand(self, parts: int) -> Demand:
        if parts not in self.demands:
            self.demands[parts] = self.demands[1].share(parts)
        return self.demands[parts]


def _behaviour(prepared: Prepared, demand: Demand) -> tuple:
    """What tells the steps of one deployment from those of another.

    A token budget or sequence limit beyond what can ever be in one step does not, unless blocks are
    scarce: then the memory that they take does.
    """
    deployment, engine = prepared.deployment, prepared.engine
    budget, seqs = engine.max_num_batched_tokens, engine.max_num_seqs
    running = most_running(prepared, demand)
    if not may_preempt(prepared, demand, running) and running == min(demand.in_flight, seqs):
        budget = min(budget, demand.in_flight * demand.longest)
        seqs = min(seqs, demand.in_flight)
    checkpoint = deployment.checkpoint
    name = checkpoint.repo or checkpoint.name
    return name, deployment.placement, engine.kv_format, budget, seqs, engine.cuda_graph_sizes
