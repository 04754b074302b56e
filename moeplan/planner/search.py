"""Search: build deployments, drop what does not fit, bound, simulate, rank."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from moeplan.cost.predictor import Prepared
from moeplan.deployment import Cluster, Deployment, EngineSettings
from moeplan.errors import DoesNotFitError, InputError, NoFeasiblePlanError
from moeplan.hardware_specs.schema import Hardware
from moeplan.models.architecture import Architecture
from moeplan.planner.bounds import Bounds
from moeplan.planner.candidates import Space, build_candidates, fewer_sequences
from moeplan.planner.feasible import Feasible
from moeplan.planner.money import Pricing, hourly_cost, usd_per_million_output_tokens
from moeplan.planner.nearest import none_meets
from moeplan.planner.objective import TIE, Objective, excess, merit
from moeplan.planner.ranking import (
    beaten,
    in_order,
    missed_limits,
    pareto_front,
    score_of,
    tie_key,
    usual_share,
)
from moeplan.planner.recommendation import Candidate, Counts, Recommendation, Score, family
from moeplan.planner.slo import Limit
from moeplan.planner.twins import simulate
from moeplan.planner.workers import Workers
from moeplan.simulation.workload import Workload

Progress = Callable[[float, str], None]
RUNNERS_UP = 5
BOUNDING = 0.2
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
        self.bounds: list[Bounds] = []
        """What each prepared deployment could do at best, in their order."""
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
        built = self._build()
        if not built:
            self._raise_nothing_fits()
        self._look_at(built)
        self._look_at(self.feasible.add(self._with_fewer_sequences()))
        self._look_back()
        self.progress(1.0, "done")
        return self._answer()

    @property
    def prepared(self) -> list[Prepared]:
        """Deployments that could run."""
        return self.feasible.prepared

    def _build(self) -> range:
        request, found = self.request, self.feasible
        return found.add(
            build_candidates(
                request.architecture,
                request.cluster,
                request.space,
                request.engine,
                found.demand.in_flight,
                found.refusals,
            )
        )

    def _look_at(self, numbers: Sequence[int]) -> None:
        """Bound these, then simulate those that matter."""
        with Workers(self) as workers:
            for number, found in workers.run(_Search._bound, numbers, _always):
                self.bounds.append(found)
                self._tell(BOUNDING * number / len(self.prepared), number)
            self._simulate(workers, self._by_hope(numbers), self._matters)

    def _bound(self, number: int) -> Bounds:
        return self.feasible.bounds(number)

    def _tell(self, share: float, number: int) -> None:
        self.progress(share, str(self.prepared[number].deployment.placement))

    # Simulation

    def _score(self, number: int) -> Score | DoesNotFitError:
        prepared = self.prepared[number]
        try:
            result = simulate(prepared, self.request.workload)
        except DoesNotFitError as error:
            return error
        return score_of(prepared, result, self.cost, self.hardware)

    def _look_back(self) -> None:
        """Simulate what nothing asked for yet: the nearest misses, or runners-up."""
        with Workers(self) as workers:
            if not self._meeting():
                nearest = sorted(self._left(), key=self._least_excess)
                self._simulate(workers, nearest, self._may_be_nearest)
            elif self.request.runners_up:
                self._simulate(workers, self._for_comparison(), _always)

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

    def _simulate(
        self, workers: Workers[_Search], numbers: Iterable[int], wanted: Callable[[int], bool]
    ) -> None:
        """Simulate those that are wanted in the light of what is done, in this order."""
        for number, score in workers.run(_Search._score, numbers, wanted):
            self.seen += 1
            self._take(number, score)

    def _take(self, number: int, score: Score | DoesNotFitError | None) -> None:
        done = min(self.seen / len(self.prepared), 1.0)
        self._tell(BOUNDING + (1 - BOUNDING) * done, number)
        if isinstance(score, DoesNotFitError):
            self.unserved += 1
            text = str(self.prepared[number].deployment.placement)
            self.feasible.refusals.add("a request never fits", f"{text}: {score}")
        elif score is not None:
            self.done[number] = self._candidate(number, score)

    def _candidate(self, number: int, score: Score) -> Candidate:
        objective = self.request.objective
        usd = score.usd_per_million_output_tokens
        value = merit(objective, score.output_tok_s, score.latencies, usd)
        missed = missed_limits(score, self.request.limits)
        return Candidate(self.prepared[number], self.bounds[number], score, missed, value)

    def _left(self) -> list[int]:
        return [number for number in range(len(self.prepared)) if number not in self.done]

    def _meeting(self) -> list[Candidate]:
        return [candidate for candidate in self.done.values() if not candidate.missed]

    # What need not be simulated

    def _upper(self, number: int) -> float:
        """Most merit that a deployment can have."""
        bounds = self.bounds[number]
        usd = usd_per_million_output_tokens(self.cost, self._gpus(number), bounds.output_tok_s)
        return merit(self.request.objective, bounds.output_tok_s, bounds.latencies, usd)

    def _expected(self, number: int) -> float:
        """About the merit to expect: a good order finds the winner early."""
        return self._upper(number) * usual_share(self.prepared[number])

    def _matters(self, number: int) -> bool:
        if self.exhaustive:
            return True
        limits, bounds = self.request.limits, self.bounds[number]
        if excess(bounds.latencies, limits) > 1:
            return False
        return self._may_win(number) or not (limits or self._beaten(number, bounds))

    def _may_win(self, number: int) -> bool:
        """Whether a deployment might beat all that are done, or tie with them on fewer GPUs."""
        meeting = self._meeting()
        if not meeting:
            return True
        best, upper = max(c.merit for c in meeting), self._upper(number)
        leader = in_order(meeting)[0]
        tie = tie_key(self.prepared[number], upper)
        ties = upper >= best * (1 - TIE) and tie >= tie_key(leader.prepared, leader.merit)
        return upper > best or ties

    def _beaten(self, number: int, bounds: Bounds) -> bool:
        per_gpu = bounds.output_tok_s / self._gpus(number)
        return beaten(self.done.values(), per_gpu, bounds.tok_s_per_user)

    def _gpus(self, number: int) -> int:
        return self.prepared[number].deployment.placement.gpus

    def _least_excess(self, number: int) -> float:
        return excess(self.bounds[number].latencies, self.request.limits)

    def _excess(self, candidate: Candidate) -> float:
        return excess(candidate.score.latencies, self.request.limits)

    def _may_be_nearest(self, number: int) -> bool:
        best = min(map(self._excess, self.done.values()), default=None)
        return self.exhaustive or best is None or self._least_excess(number) < best

    def _for_comparison(self) -> list[int]:
        """What is left of the best checkpoints and placements, one option each.

        As many as asked for beside the winner, by what they reached or are expected to reach.
        """
        best: dict[tuple[str, str], tuple[float, int]] = {}
        for number, prepared in enumerate(self.prepared):
            done = self.done.get(number)
            value = done.merit if done else self._expected(number)
            key = family(prepared)
            best[key] = max(best.get(key, (0.0, number)), (value, number))
        first = sorted(best.values(), reverse=True)[: self.request.runners_up + 1]
        return [number for _, number in first if number not in self.done]

    # Answers

    def _answer(self) -> Recommendation:
        meeting = self._meeting()
        if not meeting:
            raise none_meets(self.done.values(), self.request.limits)
        return Recommendation(
            objective=self.request.objective,
            limits=self.request.limits,
            ranked=tuple(in_order(meeting)),
            front=pareto_front(self.done.values()),
            simulated=tuple(self.done.values()),
            counts=self._counts(),
        )

    def _counts(self) -> Counts:
        found, refusals = self.feasible, self.feasible.refusals
        return Counts(
            built=refusals.total + found.duplicates + len(self.prepared) - self.unserved,
            refused=dict(refusals.counts),
            refusal_examples=dict(refusals.examples),
            duplicates=found.duplicates,
            screened=len(self.prepared) - len(self.done) - self.unserved,
            simulated=len(self.done),
        )

    def _raise_nothing_fits(self) -> NoReturn:
        if self.feasible.least_missing:
            raise self.feasible.least_missing
        rules = "; ".join(self.feasible.refusals.examples.values()) or "no placement is possible"
        raise NoFeasiblePlanError(f"no deployment can be built: {rules}")


def _always(_number: int) -> bool:
    return True
