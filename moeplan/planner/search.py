"""Search: build deployments, drop what does not fit, bound, simulate, rank."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NoReturn

from moeplan.cost.predictor import Prepared
from moeplan.deployment import Cluster, Deployment, EngineSettings
from moeplan.errors import DoesNotFitError, InputError, NoFeasiblePlanError
from moeplan.hardware_specs.schema import Hardware
from moeplan.models.architecture import Architecture
from moeplan.planner.bounds import Bounds
from moeplan.planner.candidates import Space, build_candidates, fewer_sequences
from moeplan.planner.feasible import Feasible, Option
from moeplan.planner.money import Pricing, hourly_cost, usd_per_million_output_tokens
from moeplan.planner.objective import TIE, Objective, excess, merit, ranked
from moeplan.planner.ranking import beaten, missed_limits, pareto_front, score_of
from moeplan.planner.recommendation import Candidate, Counts, Recommendation, Score, family
from moeplan.planner.slo import Limit
from moeplan.planner.twins import simulate
from moeplan.planner.workers import Workers
from moeplan.simulation.workload import Workload

Progress = Callable[[float, str], None]
RUNNERS_UP = 5
BOUNDING = 0.6
"""Share of a search's time that goes into bounds, about; tells only how far a search is."""


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
    runners_up: int = RUNNERS_UP
    """Other checkpoints or placements to simulate for comparison, though a bound rules them out."""


def recommend(
    request: Request,
    hardware: Hardware,
    *,
    exhaustive: bool = False,
    progress: Progress | None = None,
) -> Recommendation:
    """The best deployments for a request.

    `exhaustive` simulates everything; otherwise deployments whose bound cannot change the answer
    are skipped. Raises `DoesNotFitError` where nothing fits, `NoFeasiblePlanError` where nothing
    meets the limits and `InputError` where costs are to be ranked and no price is known.
    """
    return _Search(request, hardware, exhaustive, progress or (lambda _share, _text: None)).run()


class _Search:
    def __init__(self, request: Request, hardware: Hardware, exhaustive: bool, progress: Progress):
        self.request, self.hardware = request, hardware
        self.exhaustive, self.progress = exhaustive, progress
        self.cost = hourly_cost(hardware, request.cluster.nodes[0].device, request.pricing)
        self.done: dict[int, Candidate] = {}
        self.seen = self.unserved = 0
        ends = request.objective == "latency" or any(x.metric == "e2e" for x in request.limits)
        self.feasible = Feasible(request.workload, hardware, whole_loops=ends)
        if request.objective == "cost" and self.cost is None:
            raise InputError(
                f"objective is cost, but no price of {request.cluster.nodes[0].device} is known; "
                "give --usd-per-gpu-hour or --purchase-usd"
            )

    def run(self) -> Recommendation:
        """Build, bound, simulate, rank."""
        self.progress(0.0, "preparing")
        self._build()
        if not self.options:
            self._raise_nothing_fits()
        self._simulate_all()
        return self._answer()

    @property
    def options(self) -> list[Option]:
        """Deployments that could run."""
        return self.feasible.options

    def _build(self) -> None:
        request, found = self.request, self.feasible
        built = build_candidates(
            request.architecture,
            request.cluster,
            request.space,
            request.engine,
            found.demand.in_flight,
            found.refusals,
        )
        found.add(self._told(list(built)))

    def _told(self, built: list[Deployment]) -> Iterator[Deployment]:
        """Deployments to bound, one by one, telling how many are done."""
        for number, deployment in enumerate(built):
            self.progress(BOUNDING * number / len(built), str(deployment.placement))
            yield deployment

    # Simulation

    def _score(self, number: int) -> Score | DoesNotFitError:
        prepared = self.options[number].prepared
        try:
            result = simulate(prepared, self.request.workload)
        except DoesNotFitError as error:
            return error
        return score_of(prepared, result, self.cost, self.hardware)

    def _simulate_all(self) -> None:
        self._simulate(self._by_hope(range(len(self.options))), self._matters)
        smaller = self.feasible.add(self._with_fewer_sequences())
        self._simulate(self._by_hope(smaller), self._matters)
        if not self._meeting():
            nearest = sorted(self._left(), key=self._least_excess)
            self._simulate(nearest, self._may_be_nearest)
        elif self.request.runners_up:
            self._simulate(self._for_comparison(), lambda _number: True)
        self.progress(1.0, "done")

    def _by_hope(self, numbers: Iterable[int]) -> list[int]:
        return sorted(numbers, key=self._expected, reverse=True)

    def _with_fewer_sequences(self) -> Iterator[Deployment]:
        """Variants of those that miss a limit on gaps between tokens.

        Fewer sequences at once bring tokens closer together and make requests wait.
        """
        if self.request.space.running_limits != (None,):
            return
        for candidate in list(self.done.values()):
            if any(limit.metric in ("itl", "tpot") for limit in candidate.missed):
                yield from fewer_sequences(
                    candidate.prepared.deployment, self.feasible.demand.in_flight
                )

    def _simulate(self, numbers: Iterable[int], wanted: Callable[[int], bool]) -> None:
        """Simulate those that are wanted in the light of what is done, in this order."""
        with Workers(self._score) as workers:
            for number, score in workers.run(numbers, wanted):
                self.seen += 1
                self._take(number, score)

    def _take(self, number: int, score: Score | DoesNotFitError | None) -> None:
        text = str(self.options[number].prepared.deployment.placement)
        done = min(self.seen / len(self.options), 1.0)
        self.progress(BOUNDING + (1 - BOUNDING) * done, text)
        if isinstance(score, DoesNotFitError):
            self.unserved += 1
            self.feasible.refusals.add("a request never fits", f"{text}: {score}")
        elif score is not None:
            self.done[number] = self._candidate(number, score)

    def _candidate(self, number: int, score: Score) -> Candidate:
        option, objective = self.options[number], self.request.objective
        usd = score.usd_per_million_output_tokens
        value = merit(objective, score.output_tok_s, score.latencies, usd)
        missed = missed_limits(score, self.request.limits)
        return Candidate(option.prepared, option.bounds, score, missed, value)

    def _left(self) -> list[int]:
        return [number for number in range(len(self.options)) if number not in self.done]

    def _meeting(self) -> list[Candidate]:
        return [candidate for candidate in self.done.values() if not candidate.missed]

    # What need not be simulated

    def _upper(self, number: int) -> float:
        """Most merit that a deployment can have."""
        option = self.options[number]
        bounds = option.bounds
        usd = usd_per_million_output_tokens(self.cost, self._gpus(number), bounds.output_tok_s)
        return merit(self.request.objective, bounds.output_tok_s, bounds.latencies, usd)

    def _expected(self, number: int) -> float:
        """About the merit to expect: a good order finds the winner early."""
        return self._upper(number) * _usual_share(self.options[number].prepared)

    def _matters(self, number: int) -> bool:
        if self.exhaustive:
            return True
        limits, bounds = self.request.limits, self.options[number].bounds
        if excess(bounds.latencies, limits) > 1:
            return False
        return self._may_win(number) or not (limits or self._beaten(number, bounds))

    def _may_win(self, number: int) -> bool:
        """Whether a deployment might beat all that are done, or tie with them on fewer GPUs."""
        meeting = self._meeting()
        if not meeting:
            return True
        best, upper = max(c.merit for c in meeting), self._upper(number)
        leader = _ranked(meeting)[0]
        tie = _tie_key(self.options[number].prepared, upper)
        ties = upper >= best * (1 - TIE) and tie >= _tie_key(leader.prepared, leader.merit)
        return upper > best or ties

    def _beaten(self, number: int, bounds: Bounds) -> bool:
        per_gpu = bounds.output_tok_s / self._gpus(number)
        return beaten(self.done.values(), per_gpu, bounds.tok_s_per_user)

    def _gpus(self, number: int) -> int:
        return self.options[number].prepared.deployment.placement.gpus

    def _least_excess(self, number: int) -> float:
        return excess(self.options[number].bounds.latencies, self.request.limits)

    def _may_be_nearest(self, number: int) -> bool:
        best = min((_excess(c, self.request.limits) for c in self.done.values()), default=None)
        return self.exhaustive or best is None or self._least_excess(number) < best

    def _for_comparison(self) -> list[int]:
        """What is left of the best checkpoints and placements, one option each.

        As many as asked for beside the winner, by what they reached or are expected to reach.
        """
        best: dict[tuple[str, str], tuple[float, int]] = {}
        for number, option in enumerate(self.options):
            done = self.done.get(number)
            value = done.merit if done else self._expected(number)
            best.setdefault(family(option.prepared), (0.0, number))
            best[family(option.prepared)] = max(best[family(option.prepared)], (value, number))
        first = sorted(best.values(), reverse=True)[: self.request.runners_up + 1]
        return [number for _, number in first if number not in self.done]

    # Answers

    def _answer(self) -> Recommendation:
        meeting = self._meeting()
        if not meeting:
            self._raise_none_meets()
        return Recommendation(
            objective=self.request.objective,
            limits=self.request.limits,
            ranked=tuple(_ranked(meeting)),
            front=pareto_front(self.done.values()),
            simulated=tuple(self.done.values()),
            counts=self._counts(),
        )

    def _counts(self) -> Counts:
        found, refusals = self.feasible, self.feasible.refusals
        return Counts(
            built=refusals.total + found.duplicates + len(self.options) - self.unserved,
            refused=dict(refusals.counts),
            refusal_examples=dict(refusals.examples),
            duplicates=found.duplicates,
            screened=len(self.options) - len(self.done) - self.unserved,
            simulated=len(self.done),
        )

    def _raise_nothing_fits(self) -> NoReturn:
        if self.feasible.least_missing:
            raise self.feasible.least_missing
        rules = "; ".join(self.feasible.refusals.examples.values()) or "no placement is possible"
        raise NoFeasiblePlanError(f"no deployment can be built: {rules}")

    def _raise_none_meets(self) -> NoReturn:
        limits = self.request.limits
        wanted = " and ".join(map(str, limits))
        if not self.done:
            raise NoFeasiblePlanError("no deployment can serve the longest request; shorten it")
        nearest = min(self.done.values(), key=lambda c: _excess(c, limits))
        binding = max(limits, key=lambda limit: nearest.score.latency(limit) / limit.seconds)
        value = nearest.score.latency(binding)
        raise NoFeasiblePlanError(
            f"no deployment meets {wanted}; the nearest is {nearest.label}: its "
            f"{binding.statistic} {binding.metric.upper()} is {value * 1e3:.4g} ms against "
            f"{binding.seconds * 1e3:g} ms, the limit that binds; relax --{binding.metric}, lower "
            "the load or add GPUs"
        )


def _usual_share(prepared: Prepared) -> float:
    """Share of its bound that a deployment usually reaches; orders the search, no more."""
    placement = prepared.deployment.placement
    if placement.pp > 1:
        return 0.8
    return 0.95 if placement.replicas & (placement.replicas - 1) == 0 else 0.8


def _ranked(candidates: list[Candidate]) -> list[Candidate]:
    return ranked(candidates, lambda c: c.merit, lambda c: _tie_key(c.prepared, c.merit))


def _tie_key(prepared: Prepared, value: float) -> tuple[int, bool, float]:
    """Among equals fewer GPUs, then the KV format that the checkpoint asks for, then more merit."""
    deployment = prepared.deployment
    native = prepared.engine.kv_format == deployment.checkpoint.kv_format
    return -deployment.placement.gpus, native, value


def _excess(candidate: Candidate, limits: tuple[Limit, ...]) -> float:
    return excess(candidate.score.latencies, limits)
