"""Ranking and the Pareto front, as properties."""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from moeplan.planner.objective import TIE, excess, merit, ranked
from moeplan.planner.ranking import beaten, pareto_front
from moeplan.planner.slo import Limit

RATES = st.floats(0.1, 1e5, allow_nan=False)


def candidate(per_gpu: float, per_user: float) -> SimpleNamespace:
    """What the front looks at."""
    return SimpleNamespace(
        score=SimpleNamespace(output_tok_s_per_gpu=per_gpu, tok_s_per_user=per_user)
    )


def point(found: SimpleNamespace) -> tuple[float, float]:
    return found.score.output_tok_s_per_gpu, found.score.tok_s_per_user


points = st.lists(st.tuples(RATES, RATES), min_size=1, max_size=30)


@given(points)
def test_the_front_beats_all_else_and_nothing_on_it(rates):
    front = pareto_front([candidate(*rate) for rate in rates])
    on_it = [point(c) for c in front]
    for x, y in rates:
        assert any(a >= x and b >= y for a, b in on_it)
    for x, y in on_it:
        assert not any((a > x and b >= y) or (a >= x and b > y) for a, b in rates)


@given(points)
def test_the_front_falls_one_way_and_rises_the_other(rates):
    on_it = [point(c) for c in pareto_front([candidate(*rate) for rate in rates])]
    assert on_it == sorted(on_it, reverse=True)
    assert [y for _, y in on_it] == sorted(y for _, y in on_it)
    assert len(set(on_it)) == len(on_it)


@given(points, RATES, RATES)
def test_what_is_beaten_never_joins_the_front(rates, x, y):
    done = [candidate(*rate) for rate in rates]
    if beaten(done, x, y):
        on_it = {point(c) for c in pareto_front([*done, candidate(x, y)])}
        assert (x, y) not in on_it or (x, y) in rates


@given(st.lists(st.tuples(RATES, st.integers(1, 8)), min_size=1, max_size=30))
def test_ranking_puts_the_fewest_gpus_of_those_tied_with_the_best_first(items):
    order = ranked(items, lambda x: x[0], lambda x: (-x[1], x[0]))
    assert sorted(order) == sorted(items)
    best = max(value for value, _ in items)
    tied = [x for x in items if x[0] >= best * (1 - TIE)]
    assert order[0][1] == min(gpus for _, gpus in tied)
    assert set(order[: len(tied)]) == set(tied)


def test_merits_by_hand():
    latencies = {"e2e": {"mean": 4.0}}
    assert merit("throughput", 100.0, latencies, 2.0) == 100.0
    assert merit("latency", 100.0, latencies, 2.0) == 0.25
    assert merit("cost", 100.0, latencies, 2.0) == 500_000.0
    assert merit("cost", 100.0, latencies, None) == 0.0


def test_the_worst_limit_counts():
    latencies = {"ttft": {"p99": 3.0}, "itl": {"mean": 0.02}}
    limits = [Limit("ttft", "p99", 2.0), Limit("itl", "mean", 0.03)]
    assert excess(latencies, limits) == 1.5
    assert excess(latencies, []) == 0.0
