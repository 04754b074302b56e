"""Search: build deployments, drop what does not fit, bound, simulate, rank."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from moeplan.cost.predictor import Prepared, prepare
from moeplan.deployment import Cluster, Deployment, EngineSettings
from moeplan.errors import DeploymentError, DoesNotFitError, NoFeasiblePlanError
from moeplan.hardware_specs.schema import Hardware
from moeplan.models.architecture import Architecture
from moeplan.planner.bounds import Bounds, Demand, bounds
from moeplan.planner.candidates import Refusals, Space, build_candidates
from moeplan.planner.money import Pricing, hourly_cost, usd_per_million_output_tokens
from moeplan.planner.ranking import better_front, missed_limits, rank_key, score_of, upper_key
from moeplan.planner.recommendation import Candidate, Counts, Objective, Recommendation
from moeplan.planner.slo import Limit
from moeplan.simulation.api import predict_prepared
from moeplan.simulation.metrics import output_tok_s
from moeplan.simulation.workload import Workload, requests

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Request:
    """What the user wants to know."""

    architecture: Architecture
    cluster: Cluster
    space: Space
    workload: Workload
    engine: EngineSettings = field(default_factory=EngineSettings)
    objective: Objective = "throughput"
    limits: tuple[Limit, ...] = ()
    pricing: Pricing = field(default_factory=Pricing)


def recommend(
    request: Request,
    hardware: Hardware,
    *,
    exhaustive: bool = False,
    progress: Progress | None = None,
) -> Recommendation:
    """The best deployments for a request.

    `exhaustive` simulates everything; otherwise deployments whose bound cannot change the answer
    are skipped. Raises `DoesNotFitError` where nothing fits and `NoFeasiblePlanError` where nothing
    meets the limits.
    """
    search = _Search(request, hardware, exhaustive, progress)
    search.prepare_all()
    search.simulate_all()
    return search.answer()


class _Search:
    def __init__(
        self,
        request: Request,
        hardware: Hardware,
        exhaustive: bool,
        progress: Progress | None,
    ):
        self.request = request
        self.hardware = hardware
        self.exhaustive = exhaustive
        self.progress = progress or (lambda _share, _text: None)
        self.refusals = Refusals()
        self.built = 0
        self.screened = 0
        self.least_missing: DoesNotFitError | None = None
        self.ready: list[tuple[Prepared, Bounds]] = []
        self.done: list[Candidate] = []

    def prepare_all(self) -> None:
        """Prepare and bound every deployment that fits."""
        request = self.request
        workload = request.workload
        demand = Demand.of(requests(workload), workload.concurrency)
        seen: set[tuple] = set()
        for deployment in build_candidates(
            request.architecture, request.cluster, request.space, request.engine, self.refusals
        ):
            self.built += 1
            prepared = self._prepare(deployment)
            if prepared is None or _same(prepared, seen):
                continue
            hits = prepared.engine.prefix_caching and _shares_prefixes(workload)
            self.ready.append((prepared, bounds(prepared, demand, prefix_caching=hits)))

    def _prepare(self, deployment: Deployment) -> Prepared | None:
        workload = self.request.workload
        try:
            return prepare(
                deployment, self.hardware, workload.longest_tokens, workload.routing_sigma
            )
        except DoesNotFitError as error:
            self.refusals.add("does not fit in memory", f"{deployment.placement}: {error}")
            if not self.least_missing or error.missing_gib < self.least_missing.missing_gib:
                self.least_missing = error
        except DeploymentError as error:
            self.refusals.add("engine refuses", f"{deployment.placement}: {error}")
        return None

    def simulate_all(self) -> None:
        """Simulate in the order of the bounds, skipping what cannot matter any more."""
        key = self._upper
        self.ready.sort(key=lambda pair: key(*pair), reverse=True)
        for index, (prepared, bound) in enumerate(self.ready):
            self.progress(index / len(self.ready), str(prepared.deployment.placement))
            if not self.exhaustive and self._cannot_matter(prepared, bound):
                self.screened += 1
                continue
            self.done.append(self._simulate(prepared, bound))
        self.progress(1.0, "done")

    def _upper(self, prepared: Prepared, bound: Bounds) -> float:
        return upper_key(self.request.objective, prepared, bound, self._price(prepared))

    def _price(self, prepared: Prepared) -> float | None:
        cost = hourly_cost(self.hardware, prepared.deployment.device, self.request.pricing)
        return cost.usd_per_gpu_hour if cost else None

    def _cannot_matter(self, prepared: Prepared, bound: Bounds) -> bool:
        request = self.request
        if not request.limits:
            gpus = prepared.deployment.placement.gpus
            return not better_front(self.done, bound.output_tok_s / gpus, 1 / bound.tpot_s)
        hopeless = any(_bound_of(bound, limit) > limit.seconds for limit in request.limits)
        best = max(
            (rank_key(request.objective, c) for c in self.done if not c.missed), default=None
        )
        if best is None:
            return False
        return hopeless or self._upper(prepared, bound) <= best

    def _simulate(self, prepared: Prepared, bound: Bounds) -> Candidate:
        request = self.request
        result = predict_prepared(prepared, request.workload).result
        cost = hourly_cost(self.hardware, prepared.deployment.device, request.pricing)
        usd = usd_per_million_output_tokens(
            cost, prepared.deployment.placement.gpus, output_tok_s(result)
        )
        score = score_of(prepared, result, usd, self.hardware)
        return Candidate(prepared, bound, score, missed_limits(score, request.limits))

    def answer(self) -> Recommendation:
        """Rank what was simulated."""
        request = self.request
        if not self.ready:
            self._raise_nothing_fits()
        meeting = [c for c in self.done if not c.missed]
        if not meeting:
            raise NoFeasiblePlanError(_nearest_text(self.done, request.limits))
        ranked = sorted(meeting, key=lambda c: rank_key(request.objective, c), reverse=True)
        return Recommendation(
            objective=request.objective,
            limits=request.limits,
            ranked=tuple(ranked),
            front=pareto_front(self.done),
            simulated=tuple(self.done),
            counts=Counts(
                self.built,
                dict(self.refusals.counts),
                dict(self.refusals.examples),
                self.screened,
                len(self.done),
            ),
        )

    def _raise_nothing_fits(self) -> None:
        if self.least_missing:
            raise self.least_missing
        rules = "; ".join(self.refusals.examples.values()) or "no placement was possible"
        raise NoFeasiblePlanError(f"no deployment can be built: {rules}")


def _shares_prefixes(workload: Workload) -> bool:
    return workload.shared_prefix_tokens > 0 or any(row.hash_ids for row in workload.trace)


def _same(prepared: Prepared, seen: set[tuple]) -> bool:
    """Whether defaults made this deployment equal to one already built."""
    deployment, engine = prepared.deployment, prepared.engine
    key = (
        deployment.checkpoint.name,
        deployment.checkpoint.repo,
        deployment.placement,
        engine.kv_format,
        engine.max_num_batched_tokens,
        engine.max_num_seqs,
    )
    if key in seen:
        return True
    seen.add(key)
    return False


def _bound_of(bound: Bounds, limit: Limit) -> float:
    """The least that a limited figure can be; 0 where no bound is known."""
    if limit.metric == "ttft":
        return bound.ttft_s if limit.statistic == "mean" else 0.0
    if limit.metric == "tpot":
        return bound.tpot_s
    return 0.0


def pareto_front(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Candidates that no other beats in both tok/s per GPU and tok/s per user."""
    ordered = sorted(
        candidates,
        key=lambda c: (c.score.output_tok_s_per_gpu, c.score.tok_s_per_user),
        reverse=True,
    )
    front: list[Candidate] = []
    for candidate in ordered:
        if not front or candidate.score.tok_s_per_user > front[-1].score.tok_s_per_user:
            front.append(candidate)
    return tuple(front)


def _nearest_text(done: list[Candidate], limits: tuple[Limit, ...]) -> str:
    nearest = min(done, key=lambda c: _excess(c, limits))
    binding = max(limits, key=lambda limit: nearest.score.latency(limit) / limit.seconds)
    value = nearest.score.latency(binding)
    return (
        f"no deployment meets {' and '.join(map(str, limits))}; nearest: {nearest.label}, whose "
        f"{binding.metric.upper()} {binding.statistic} is {value * 1e3:.0f} ms against "
        f"{binding.seconds * 1e3:.0f} ms; relax --{binding.metric}, lower the load, or add GPUs"
    )


def _excess(candidate: Candidate, limits: tuple[Limit, ...]) -> float:
    return max(candidate.score.latency(limit) / limit.seconds for limit in limits)
