"""Whole runs: event logs of small scenarios, conservation, closed forms, monotonicity."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeplan.cost.batch import StepBatch
from moeplan.cost.kv_layout import KVCacheSpec, KVGroup
from moeplan.errors import DoesNotFitError, InputError, UnknownNameError
from moeplan.simulation import ReplicaSpec, SchedulerSettings, SimulationResult, Workload, run
from moeplan.simulation import metrics as m
from moeplan.simulation.front_end import FrontEndCosts

SYNC = SchedulerSettings(max_num_batched_tokens=100, max_num_seqs=64, async_scheduling=False)
ASYNC = replace(SYNC, async_scheduling=True)


class FlatTimer:
    """Every step takes `base` seconds, and `token` for each prompt token."""

    def __init__(self, base: float = 1.0, token: float = 0.0, stages: int = 1):
        self.base, self.token, self.stages = base, token, stages
        self.calls = 0

    def stage_seconds(self, batch: StepBatch) -> tuple[float, ...]:
        self.calls += 1
        seconds = self.base + self.token * sum(new for new, _ in batch.prefill_chunks)
        return (seconds / self.stages,) * self.stages

    def step_seconds(self, batch: StepBatch) -> float:
        return sum(self.stage_seconds(batch))

    def decode_seconds(self, contexts: np.ndarray, steps: int) -> np.ndarray:
        self.calls += 1
        assert len(contexts)
        return np.full(steps, self.base)

    def decode_stage_seconds(self, contexts: np.ndarray, steps: int) -> np.ndarray:
        return self.decode_seconds(contexts, steps) * np.ones((self.stages, 1)) / self.stages


def engine(
    scheduling: SchedulerSettings = SYNC, timer: FlatTimer | None = None, blocks: int = 1000, **more
) -> ReplicaSpec:
    kv = KVCacheSpec(blocks + 1, 4, (KVGroup("full", 4),))
    return ReplicaSpec(timer or FlatTimer(), kv, scheduling, **more)


def log(result: SimulationResult) -> list[tuple[float, str, int]]:
    """Events in the order of time: sends, first and last tokens."""
    events = []
    for name, times in [
        ("send", result.sent_s),
        ("first", result.first_token_s),
        ("last", result.finish_s),
    ]:
        events += [(round(float(t), 6), name, i) for i, t in enumerate(times)]
    return sorted(events, key=lambda event: (event[0], event[2]))


def simulate(workload: Workload, *replicas: ReplicaSpec, **options) -> SimulationResult:
    return run(replicas or [engine()], "round-robin", workload, **options)


def closed(**options) -> Workload:
    defaults = {"num_prompts": 3, "concurrency": 1, "input_tokens": 10, "output_tokens": 2}
    return Workload(**(defaults | options))


def test_closed_loop_sends_the_next_when_one_ends() -> None:
    result = simulate(closed(num_prompts=2))
    assert log(result) == [
        (0, "send", 0), (1, "first", 0), (2, "last", 0),
        (2, "send", 1), (3, "first", 1), (4, "last", 1),
    ]  # fmt: skip


def test_closed_loop_fills_a_slot_as_soon_as_it_is_vacant() -> None:
    result = simulate(
        closed(concurrency=2, num_prompts=3, input_tokens=2, output_tokens=2, seed=3),
        engine(replace(SYNC, max_num_batched_tokens=3)),
    )
    # Budget 3: request 1 begins with one token beside request 0 and ends a step later.
    # Request 2 leaves at 2, while a step begins, and is in the one after it.
    assert log(result) == [
        (0, "send", 0), (0, "send", 1), (1, "first", 0), (2, "last", 0), (2, "first", 1),
        (2, "send", 2), (3, "last", 1), (4, "first", 2), (5, "last", 2),
    ]  # fmt: skip


def test_rounds_wait_for_all() -> None:
    result = simulate(
        closed(arrivals="rounds", concurrency=2, num_prompts=4, output_tokens=4,
               output_range=(0.5, 1.0), seed=1)
    )  # fmt: skip
    assert len(set(result.output_tokens.tolist())) > 1
    first, second = slice(0, 2), slice(2, 4)
    assert (result.sent_s[second] == result.finish_s[first].max()).all()


def test_offline_sends_everything_at_once() -> None:
    result = simulate(closed(arrivals="offline", num_prompts=5))
    assert (result.sent_s == 0).all()


def test_open_loop_with_a_cap_keeps_the_wait_out_of_ttft() -> None:
    result = simulate(
        closed(arrivals="gamma", request_rate=10.0, burstiness=float("inf"), concurrency=1)
    )
    np.testing.assert_allclose(result.arrival_s, [0.1, 0.2, 0.3])
    np.testing.assert_allclose(result.sent_s, [0.1, 2.1, 4.1])
    np.testing.assert_allclose(result.ttft_s, 1.0)


def test_an_arrival_during_a_step_waits_for_its_end_without_async() -> None:
    trace = ({"timestamp": 0.0, "input_length": 5, "output_length": 9},
             {"timestamp": 2.5, "input_length": 5, "output_length": 1})  # fmt: skip
    result = simulate(Workload(arrivals="trace", trace=trace))
    np.testing.assert_allclose(result.first_token_s, [1.0, 4.0])


def test_an_arrival_during_a_step_misses_the_next_one_with_async() -> None:
    trace = ({"timestamp": 0.0, "input_length": 5, "output_length": 9},
             {"timestamp": 2.5, "input_length": 5, "output_length": 1})  # fmt: skip
    for macro in (True, False):
        result = simulate(Workload(arrivals="trace", trace=trace), engine(ASYNC), macro=macro)
        np.testing.assert_allclose(result.first_token_s, [1.0, 5.0])


def test_the_front_end_comes_before_the_queue() -> None:
    result = simulate(closed(num_prompts=2), engine(front_end=FrontEndCosts(fixed_s=0.25)))
    np.testing.assert_allclose(result.ttft_s, 1.25)
    np.testing.assert_allclose(result.sent_s, [0.0, 2.25])


def test_warm_up_is_not_measured() -> None:
    plain = simulate(closed())
    warm = simulate(closed(num_warmups=2))
    np.testing.assert_allclose(warm.finish_s, plain.finish_s)
    assert len(warm) == 3
    assert warm.token_counts.sum() == 6


def test_pipeline_stages_work_side_by_side() -> None:
    scheduling = replace(ASYNC, pipeline_parallel_size=2, max_num_batched_tokens=10)
    workload = closed(concurrency=2, num_prompts=2, output_tokens=50)
    piped = simulate(workload, engine(scheduling, FlatTimer(stages=2)))
    single = simulate(workload, engine(ASYNC, FlatTimer()))
    # Two batches of one request overlap: the rate is that of one stage, half a second each.
    assert m.tpot(piped).mean == pytest.approx(1.0)
    assert m.tpot(single).mean == pytest.approx(1.0)
    alone = simulate(
        closed(num_prompts=1, output_tokens=50), engine(scheduling, FlatTimer(stages=2))
    )
    assert m.output_tok_s(piped) == pytest.approx(2 * m.output_tok_s(alone), rel=0.02)


def test_the_step_log_adds_up() -> None:
    workload = closed(concurrency=3, num_prompts=7, output_tokens=20, output_range=(0.5, 1.5))
    result = simulate(workload, engine(ASYNC), record_steps=True)
    steps = result.steps
    assert steps is not None
    assert steps.prefill_tokens.sum() == result.input_tokens.sum()
    assert steps.decodes.sum() == (result.output_tokens - 1).sum()
    ends = steps.start_s + steps.duration_s
    assert (steps.start_s[1:] >= ends[:-1] - 1e-9).all()
    assert ends[-1] == pytest.approx(result.finish_s.max())
    assert steps.kv_usage.max() <= 1
    assert simulate(workload, engine(ASYNC)).steps is None


def test_cost_grows_with_batch_changes_not_with_tokens() -> None:
    def calls(output: int) -> int:
        timer = FlatTimer()
        simulate(
            closed(num_prompts=8, concurrency=4, output_tokens=output), engine(ASYNC, timer, 9000)
        )
        return timer.calls

    assert calls(8000) == calls(800)


def test_decode_only_closed_form() -> None:
    """c requests that never queue: (prefill + (output - 1) steps) a request, c at a time."""
    result = simulate(
        closed(concurrency=4, num_prompts=8, output_tokens=31), engine(timer=FlatTimer(0.5))
    )
    assert m.duration_s(result) == pytest.approx(2 * 31 * 0.5)
    assert m.output_tok_s(result) == pytest.approx(4 / 0.5)
    assert m.tpot(result) == m.Distribution(*[pytest.approx(0.5)] * 4)


def test_waiting_time_of_an_m_d_1_queue() -> None:
    """One-token requests served one a step: Pollaczek-Khinchine, W = rho s / (2 (1 - rho))."""
    load, service = 0.7, 0.01
    workload = Workload(
        arrivals="poisson", request_rate=load / service, num_prompts=60_000, input_tokens=1,
        output_tokens=1, seed=2,
    )  # fmt: skip
    one_a_step = engine(replace(SYNC, max_num_batched_tokens=1), FlatTimer(service))
    wait = m.ttft(simulate(workload, one_a_step)).mean - service
    assert wait == pytest.approx(load * service / (2 * (1 - load)), rel=0.05)


@given(st.floats(0.1, 0.99), st.integers(0, 1000), st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_faster_engine_is_never_slower(factor: float, seed: int, asynchronous: bool) -> None:
    workload = closed(concurrency=3, num_prompts=10, output_tokens=12, output_range=(0.3, 1.7),
                      seed=seed)  # fmt: skip
    scheduling = ASYNC if asynchronous else SYNC
    slow = simulate(workload, engine(scheduling, FlatTimer(1.0, 0.05)))
    fast = simulate(workload, engine(scheduling, FlatTimer(factor, 0.05 * factor)))
    assert m.output_tok_s(fast) >= m.output_tok_s(slow) * (1 - 1e-9)


@given(st.integers(9, 40), st.integers(1, 8), st.booleans(), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_nothing_is_lost(blocks: int, concurrency: int, asynchronous: bool, seed: int) -> None:
    workload = closed(concurrency=concurrency, num_prompts=12, input_tokens=12, output_tokens=14,
                      output_range=(0.1, 1.5), input_range=(0.2, 1.2), seed=seed)  # fmt: skip
    scheduling = replace(ASYNC if asynchronous else SYNC, max_num_batched_tokens=16)
    result = simulate(workload, engine(scheduling, blocks=blocks), record_steps=True)
    assert result.token_counts.sum() == result.output_tokens.sum()
    assert result.gap_counts.sum() == (result.output_tokens - 1).sum()
    assert (result.first_token_s > result.sent_s).all()
    assert (result.finish_s >= result.first_token_s).all()
    assert result.steps.preemptions.sum() == result.preemptions.sum()
    if not result.preemptions.any():
        assert result.steps.prefill_tokens.sum() == result.input_tokens.sum()


def test_what_can_never_fit_is_refused_with_numbers() -> None:
    with pytest.raises(DoesNotFitError, match=r"request 0 \(50 in, 2 out\) needs 13 .* has 12"):
        simulate(closed(input_tokens=50), engine(blocks=12))


def test_an_empty_deployment_and_an_unknown_router_are_refused() -> None:
    with pytest.raises(InputError, match="replicas is empty"):
        run([], "round-robin", closed())
    with pytest.raises(UnknownNameError, match="least-busy"):
        run([engine()], "least-bsy", closed())


@pytest.mark.parametrize("router", ["round-robin", "simple-shuffle", "least-busy"])
def test_routers_spread_requests(router: str) -> None:
    workload = closed(concurrency=8, num_prompts=64)
    result = run([engine(), engine()], router, workload)
    shares = np.bincount(result.replica, minlength=2)
    assert shares.sum() == 64
    assert shares.min() >= 16
    if router != "simple-shuffle":
        assert shares.tolist() == [32, 32]


def test_progress_ends_at_one() -> None:
    seen: list[float] = []
    simulate(closed(), progress=seen.append)
    assert seen == pytest.approx([1 / 3, 2 / 3, 1.0])
