"""Drafts: tokens a step against closed forms, blocks, budget, and that nothing is lost."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeplan.cost.batch import StepBatch
from moeplan.cost.kv_layout import KVCacheSpec, KVGroup
from moeplan.errors import InputError
from moeplan.simulation.engine import run
from moeplan.simulation.metrics import itl, tpot
from moeplan.simulation.pipelined import make_scheduler
from moeplan.simulation.replica import ReplicaSpec
from moeplan.simulation.requests import Request, RequestSpec
from moeplan.simulation.step_plan import SchedulerSettings
from moeplan.simulation.workload import Workload
from moeplan.speculation import Speculation, rates_of_mean, speculation

STEP_S = 0.01


class FlatTimer:
    """Every step takes as long; keeps the batches that it was asked for."""

    stages = 1

    def __init__(self) -> None:
        self.batches: list[StepBatch] = []

    def step_seconds(self, batch: StepBatch) -> float:
        self.batches.append(batch)
        return STEP_S

    def draft_seconds(self, contexts: np.ndarray) -> np.ndarray:
        return np.full(len(contexts), STEP_S)


class GrowingTimer(FlatTimer):
    """Steps take longer with more tokens in the cache, and with prefill."""

    def step_seconds(self, batch: StepBatch) -> float:
        prefill = sum(new for new, _ in batch.prefill_chunks)
        return STEP_S + 1e-6 * (sum(batch.decode_contexts) + 7 * prefill)

    def draft_seconds(self, contexts: np.ndarray) -> np.ndarray:
        return STEP_S + 1e-6 * contexts.sum(axis=1)


def drafts(*rates: float) -> Speculation:
    return Speculation("mtp", len(rates), rates)


def engine(
    speculation: Speculation | None, blocks: int = 10_000, timer: FlatTimer | None = None, **options
) -> ReplicaSpec:
    known = {"max_num_batched_tokens": 512, "max_num_seqs": 64, "async_scheduling": False}
    return ReplicaSpec(
        timer or FlatTimer(),
        KVCacheSpec(blocks, 16, (KVGroup("full", 16),)),
        SchedulerSettings(**(known | options), speculation=speculation),
    )


def closed(requests: int, output: int, concurrency: int = 1, prompt: int = 8) -> Workload:
    return Workload(
        arrivals="closed",
        num_prompts=requests,
        concurrency=concurrency,
        input_tokens=prompt,
        output_tokens=output,
    )


@pytest.mark.parametrize("kept", range(4))
def test_a_sure_number_of_drafts_divides_the_steps(kept: int) -> None:
    sure = drafts(*(1.0 if i < kept else 0.0 for i in range(3)))
    result = run([engine(sure)], "round_robin", closed(1, 101))
    steps = math.ceil(100 / (1 + kept))
    assert result.finish_s[0] - result.first_token_s[0] == pytest.approx(steps * STEP_S)


def test_tokens_a_step_are_one_and_the_sum_of_the_rates() -> None:
    some = drafts(0.8, 0.6, 0.3)
    result = run([engine(some)], "round_robin", closed(64, 2001, concurrency=8))
    assert STEP_S / tpot(result).mean == pytest.approx(1 + 0.8 + 0.6 + 0.3, rel=0.01)
    assert itl(result).mean == pytest.approx(STEP_S)  # chunks, as vLLM's benchmark counts them


def test_no_accepted_draft_is_no_speculation() -> None:
    workload = closed(12, 40, concurrency=4)
    never = run([engine(drafts(0.0, 0.0))], "round_robin", workload)
    plain = run([engine(None)], "round_robin", workload, macro=False)
    assert never.finish_s == pytest.approx(plain.finish_s)


def test_a_decode_computes_its_drafts_and_one_more() -> None:
    timer = FlatTimer()
    run([engine(drafts(1.0, 1.0), timer=timer)], "round_robin", closed(3, 10, concurrency=3))
    decoding = [batch for batch in timer.batches if batch.decode_contexts]
    assert decoding
    assert {batch.tokens for batch in decoding} == {9}


def test_asynchronous_scheduling_wastes_the_row_after_the_last_token() -> None:
    timer = FlatTimer()
    workload = Workload(arrivals="offline", num_prompts=2, input_tokens=8, output_tokens=100,
                        output_range=(0.1, 1.0), seed=3)  # fmt: skip
    spec = engine(drafts(1.0), timer=timer, async_scheduling=True)
    result = run([spec], "round_robin", workload, macro=False)
    rows = sum(len(batch.decode_contexts) for batch in timer.batches)
    needed = sum(math.ceil((tokens - 1) / 2) for tokens in result.output_tokens)
    assert rows == needed + 1  # the longer one is alone when it ends


def test_blocks_are_held_for_all_drafts() -> None:
    kv = KVCacheSpec(100, 16, (KVGroup("full", 16),))
    limits = SchedulerSettings(64, 4, async_scheduling=False, speculation=drafts(0.0, 0.0, 0.0))
    scheduler = make_scheduler(limits, kv)
    scheduler.add(Request(RequestSpec(0, 0.0, 12, 40)))
    for _ in range(2):  # the prompt, then a decode of 12 + 1 + 3 tokens, with 3 written ahead
        scheduler.complete(scheduler.schedule())
    assert scheduler.pool.free == scheduler.pool.usable - math.ceil((12 + 4 + 3) / 16)


def test_a_budget_below_the_drafts_of_all_serves_them_in_turn() -> None:
    timer = FlatTimer()
    spec = engine(drafts(1.0, 1.0, 1.0), timer=timer, max_num_batched_tokens=10, max_num_seqs=3)
    result = run([spec], "round_robin", closed(3, 30, concurrency=3, prompt=4))
    assert len(result) == 3
    assert all(len(batch.decode_contexts) <= 3 for batch in timer.batches)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(8, 60), st.integers(1, 5), st.booleans(), st.booleans(), st.floats(0, 1),
    st.integers(0, 9),
)  # fmt: skip
def test_nothing_is_lost_and_all_blocks_come_back(
    blocks: int, concurrency: int, asynchronous: bool, caching: bool, rate: float, seed: int
) -> None:
    workload = Workload(
        arrivals="closed", num_prompts=12, concurrency=concurrency, input_tokens=40,
        output_tokens=40, input_range=(0.1, 1.0), output_range=(0.1, 1.0), seed=seed,
    )  # fmt: skip
    spec = engine(
        drafts(rate, rate * rate), blocks, async_scheduling=asynchronous,
        enable_prefix_caching=caching,
    )  # fmt: skip
    result = run([spec], "round_robin", workload, record_steps=True)
    assert np.isfinite(result.finish_s).all()
    assert result.token_counts.sum() == result.output_tokens.sum()
    assert result.steps is not None
    assert result.steps.kv_usage.max() <= 1
    assert (result.finish_s >= result.first_token_s).all()


def test_rates_of_a_mean_are_a_chain() -> None:
    rates = rates_of_mean(2.6, 3)
    assert sum(rates) == pytest.approx(1.6)
    assert rates[1] / rates[0] == pytest.approx(rates[0])
    assert rates_of_mean(1.0, 2) == pytest.approx((0.0, 0.0), abs=1e-9)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="out of reach of 2 draft tokens"):
        rates_of_mean(3.5, 2)
    with pytest.raises(InputError, match="fall from one position"):
        drafts(0.5, 0.6)
    with pytest.raises(InputError, match="depends on the text"):
        speculation("ngram", 3, None)
    with pytest.raises(InputError, match="1 stage"):
        make_scheduler(
            SchedulerSettings(64, 4, pipeline_parallel_size=2, speculation=drafts(0.5)),
            KVCacheSpec(10, 16, (KVGroup("full", 16),)),
        )


@settings(max_examples=60, deadline=None)
@given(
    st.integers(30, 400), st.integers(1, 9), st.booleans(),
    st.sampled_from([(0.9, 0.3), (1.0, 1.0)]), st.integers(0, 99),
    st.sampled_from(["closed", "poisson", "rounds"]), st.booleans(),
)  # fmt: skip
def test_macro_steps_equal_single_steps(
    blocks: int,
    concurrency: int,
    asynchronous: bool,
    rates: tuple[float, ...],
    seed: int,
    arrivals: str,
    windows: bool,
) -> None:
    workload = Workload(
        arrivals=arrivals, num_prompts=14, concurrency=concurrency, input_tokens=60,
        output_tokens=90, input_range=(0.1, 1.0), output_range=(0.1, 1.0), seed=seed,
        request_rate=5.0 if arrivals == "poisson" else None,
    )  # fmt: skip
    groups = (
        (KVGroup("full", 16), KVGroup("sliding", 16, 32)) if windows else (KVGroup("full", 16),)
    )
    limits = SchedulerSettings(96, 5, async_scheduling=asynchronous, speculation=drafts(*rates))
    spec = ReplicaSpec(GrowingTimer(), KVCacheSpec(blocks, 16, groups, 192), limits)
    fast, slow = (run([spec], "round_robin", workload, macro=macro) for macro in (True, False))
    for name in ("first_token_s", "finish_s"):
        assert getattr(fast, name) == pytest.approx(getattr(slow, name), rel=1e-9)
    assert fast.preemptions.tolist() == slow.preemptions.tolist()
    assert np.repeat(fast.gaps_s, fast.gap_counts).sum() == pytest.approx(
        np.repeat(slow.gaps_s, slow.gap_counts).sum()
    )
    assert fast.token_counts.sum() == slow.token_counts.sum() == fast.output_tokens.sum()
