"""Macro-steps, lockstep and plain stepping, and both KV pools, must tell the same story."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeplan.cost.batch import StepBatch
from moeplan.cost.kv_layout import KVCacheSpec, KVGroup
from moeplan.simulation import (
    ReplicaSpec,
    SchedulerSettings,
    SimulationResult,
    Workload,
    run,
    scheduler_base,
)
from moeplan.simulation import scheduler as scheduler_module
from moeplan.simulation.front_end import FrontEndCosts
from moeplan.simulation.kv_pool import CountingPool
from moeplan.simulation.prefix_cache import PrefixCachePool

BLOCK = 4
GROUPS = {
    "full": (KVGroup("full", BLOCK),),
    "sliding": (KVGroup("full", BLOCK), KVGroup("sliding", BLOCK, window=13)),
    "chunked": (KVGroup("full", BLOCK), KVGroup("chunked", BLOCK, window=16)),
    "recurrent": (KVGroup("full", BLOCK), KVGroup("recurrent", BLOCK, fixed_blocks=2)),
}


class CurvedTimer:
    """A soft maximum of a floor and of what the batch reads, plus a window's worth: not linear."""

    stages = 1

    def stage_seconds(self, batch: StepBatch) -> tuple[float, ...]:
        return (self.step_seconds(batch),)

    def step_seconds(self, batch: StepBatch) -> float:
        contexts = np.array(batch.decode_contexts, float)
        prefill = sum(new * (1 + 1e-3 * before) for new, before in batch.prefill_chunks)
        return float(self._decode(contexts[None, :])[0]) + 3.1e-4 * prefill

    def decode_seconds(self, contexts: np.ndarray, steps: int) -> np.ndarray:
        return self._decode(contexts[None, :] + np.arange(steps)[:, None])

    def _decode(self, contexts: np.ndarray) -> np.ndarray:
        read = 1.3e-5 * contexts.sum(1) + 2.1e-5 * np.minimum(contexts, 20).sum(1)
        return np.cbrt(3e-3**3 + read**3) + 1.7e-5 * contexts.shape[1]


FRONT_ENDS = (
    FrontEndCosts(),
    FrontEndCosts(fixed_s=0.0011),
    FrontEndCosts(fixed_s=0.0041, turn_s=0.00053, prompt_token_s=1.9e-5, streamed_token_s=1.7e-4),
)


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    arrivals = draw(st.sampled_from(["closed", "rounds", "gamma", "offline"]))
    open_loop = arrivals == "gamma"
    return Workload(
        arrivals=arrivals,
        num_prompts=draw(st.integers(1, 14)),
        input_tokens=draw(st.integers(1, 40)),
        output_tokens=draw(st.integers(1, 50)),
        input_range=(0.3, 1.6),
        output_range=(0.2, 1.8),
        concurrency=draw(st.integers(1, 8)) if not open_loop or draw(st.booleans()) else None,
        request_rate=draw(st.floats(1, 200)) if open_loop else None,
        burstiness=draw(st.floats(0.3, 5)) if open_loop else 1.0,
        shared_prefix_tokens=draw(st.sampled_from([0, 0, 7, 16])),
        seed=draw(st.integers(0, 10_000)),
    )


@st.composite
def cases(draw: st.DrawFn, caching: bool | None = None) -> tuple[Workload, ReplicaSpec]:
    """A workload and an engine whose cache holds little more than its longest request."""
    workload, replica = draw(workloads()), draw(replica_specs(caching))
    wide = replace(replica.kv, num_blocks=1000)
    need = CountingPool(wide, 0).blocks_to_admit(workload.longest_tokens)
    blocks = 1 + need + draw(st.integers(0, 40))
    return workload, replace(replica, kv=replace(replica.kv, num_blocks=blocks))


@st.composite
def replica_specs(draw: st.DrawFn, caching: bool | None = None) -> ReplicaSpec:
    budget = draw(st.integers(3, 60))
    asynchronous = draw(st.booleans())
    scheduling = SchedulerSettings(
        max_num_batched_tokens=budget,
        max_num_seqs=draw(st.integers(1, 10)),
        enable_prefix_caching=draw(st.booleans()) if caching is None else caching,
        async_scheduling=asynchronous,
        mixed_prefill=draw(st.booleans()),
        long_prefill_token_threshold=draw(st.sampled_from([0, 0, 5])),
        watermark=draw(st.sampled_from([0.0, 0.0, 0.05])),
    )
    groups = GROUPS[draw(st.sampled_from(sorted(GROUPS)))]
    early = draw(st.booleans())
    kv = KVCacheSpec(0, BLOCK, groups, budget * (1 + (asynchronous and not early)), early)
    return ReplicaSpec(CurvedTimer(), kv, scheduling, draw(st.sampled_from(FRONT_ENDS)))


def assert_same(a: SimulationResult, b: SimulationResult) -> None:
    for name in ("sent_s", "first_token_s", "finish_s"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-9, atol=1e-12)
    for name in ("preemptions", "prefix_hit_tokens", "replica"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert a.gap_counts.sum() == b.gap_counts.sum()
    assert (a.gap_counts * a.gaps_s).sum() == pytest.approx((b.gap_counts * b.gaps_s).sum())
    assert a.token_counts.sum() == b.token_counts.sum() == a.output_tokens.sum()


@given(cases(), st.integers(1, 2))
@settings(max_examples=100, deadline=None)
def test_macro_steps_equal_single_steps(case: tuple[Workload, ReplicaSpec], copies: int) -> None:
    workload, replicas = case[0], [case[1]] * copies
    macro = run(replicas, "round-robin", workload)
    assert_same(macro, run(replicas, "round-robin", workload, macro=False))


@given(cases())
@settings(max_examples=60, deadline=None)
def test_lockstep_equals_taking_requests_one_by_one(case: tuple[Workload, ReplicaSpec]) -> None:
    workload, replica = case
    together = run([replica], "round-robin", workload, macro=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduler_module.Scheduler, "_step_together", lambda *_args: False)
        one_by_one = run([replica], "round-robin", workload, macro=False)
    assert_same(together, one_by_one)


@given(cases(caching=False))
@settings(max_examples=60, deadline=None)
def test_both_pools_agree_where_nothing_can_be_found(case: tuple[Workload, ReplicaSpec]) -> None:
    workload, replica = case
    counted = run([replica], "round-robin", workload, record_steps=True)

    class Unfound(PrefixCachePool):
        def lookup(self, request: object) -> object:
            return CountingPool.lookup(self, request)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduler_base, "CountingPool", Unfound)
        identified = run([replica], "round-robin", workload, record_steps=True)
    assert_same(counted, identified)
    np.testing.assert_array_equal(counted.steps.kv_usage, identified.steps.kv_usage)


class PipelineTimer(CurvedTimer):
    """Stages of unlike speed."""

    def __init__(self, stages: int):
        self.stages = stages
        self._shares = 1.0 + 0.3 * np.arange(stages) % 1

    def stage_seconds(self, batch: StepBatch) -> tuple[float, ...]:
        return tuple((super().step_seconds(batch) * self._shares).tolist())

    def step_seconds(self, batch: StepBatch) -> float:
        return sum(self.stage_seconds(batch))

    def decode_stage_seconds(self, contexts: np.ndarray, steps: int) -> np.ndarray:
        return self._shares[:, None] * super().decode_seconds(contexts, steps)


@given(cases(), st.integers(2, 4))
@settings(max_examples=100, deadline=None)
def test_macro_steps_equal_single_steps_in_pipelines(
    case: tuple[Workload, ReplicaSpec], stages: int
) -> None:
    workload, replica = case
    piped = replace(
        replica,
        timer=PipelineTimer(stages),
        settings=replace(replica.settings, pipeline_parallel_size=stages),
    )
    macro = run([piped], "round-robin", workload)
    assert_same(macro, run([piped], "round-robin", workload, macro=False))
    assert not np.isnan(macro.finish_s).any()


def test_a_window_that_still_covers_a_prompt_counts_in_a_pipeline() -> None:
    """A stretch must not begin while a request's window holds blocks of its last chunk."""
    workload = Workload(
        arrivals="offline",
        num_prompts=9,
        input_tokens=11,
        output_tokens=16,
        input_range=(0.3, 1.6),
        output_range=(0.2, 1.8),
        seed=427,
    )
    groups = (KVGroup("full", 4), KVGroup("sliding", 4, 13))
    settings = SchedulerSettings(23, 4, pipeline_parallel_size=3)
    replica = ReplicaSpec(PipelineTimer(3), KVCacheSpec(29, 4, groups, 46), settings)
    macro = run([replica], "round-robin", workload)
    assert macro.preemptions.sum() > 0
    assert_same(macro, run([replica], "round-robin", workload, macro=False))
