"""The scheduler's rules, one scenario each: a few requests and what the steps carry."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moeplan.cost.kv_layout import KVCacheSpec, KVGroup
from moeplan.errors import InputError
from moeplan.simulation import SchedulerSettings
from moeplan.simulation.pipelined import make_scheduler
from moeplan.simulation.requests import Request, RequestSpec
from moeplan.simulation.scheduler_base import SchedulerBase
from moeplan.simulation.step_plan import StepPlan

SYNC = SchedulerSettings(max_num_batched_tokens=10, max_num_seqs=8, async_scheduling=False)
ASYNC = replace(SYNC, async_scheduling=True)
FULL = (KVGroup("full", 4),)


def scheduler(
    settings: SchedulerSettings = SYNC, blocks: int = 100, groups: tuple[KVGroup, ...] = FULL
) -> SchedulerBase:
    return make_scheduler(settings, KVCacheSpec(blocks + 1, 4, groups, 20))


def request(index: int, prompt: int, output: int, ids: tuple[int, ...] = ()) -> Request:
    return Request(RequestSpec(index, 0.0, prompt, output, ids, 4))


def step(engine: SchedulerBase) -> list[tuple[int, int, int]]:
    """Schedule and complete: (request, tokens, computed) of the step."""
    plan = engine.schedule()
    if plan is None:
        return []
    engine.complete(plan)
    return sorted(plan.items())


def drain(engine: SchedulerBase) -> list[list[tuple[int, int, int]]]:
    steps = []
    while rows := step(engine):
        steps.append(rows)
    return steps


def overlap(engine: SchedulerBase, depth: int = 2) -> list[list[tuple[int, int]]]:
    """Run with `depth` plans open, as the engine does: (request, tokens) of each step."""
    steps, open_plans = [], []
    while True:
        while len(open_plans) < depth and (plan := engine.schedule()):
            open_plans.append(plan)
            steps.append([row[:2] for row in plan.items()])
        if not open_plans:
            return steps
        engine.complete(open_plans.pop(0))


def test_a_long_prompt_is_chunked_by_the_budget() -> None:
    engine = scheduler()
    engine.add(request(0, 23, 2))
    assert drain(engine) == [[(0, 10, 10)], [(0, 10, 20)], [(0, 3, 23)], [(0, 1, 24)]]


def test_decodes_come_first_and_prompts_share_what_is_left() -> None:
    engine = scheduler()
    engine.add(request(0, 4, 3))
    engine.add(request(1, 12, 1))
    engine.add(request(2, 5, 1))
    assert drain(engine) == [
        [(0, 4, 4), (1, 6, 6)],
        [(0, 1, 5), (1, 6, 12), (2, 3, 3)],
        [(0, 1, 6), (2, 2, 5)],
    ]


def test_max_num_seqs_holds_requests_back() -> None:
    engine = scheduler(replace(SYNC, max_num_seqs=1))
    engine.add(request(0, 2, 2))
    engine.add(request(1, 2, 1))
    assert drain(engine) == [[(0, 2, 2)], [(0, 1, 3)], [(1, 2, 2)]]


def test_a_budget_below_the_number_of_decodes_serves_the_first_ones() -> None:
    engine = scheduler(replace(SYNC, max_num_batched_tokens=2))
    for index in range(3):
        engine.add(request(index, 1, 3))
    steps = [[row[0] for row in rows] for rows in drain(engine)]
    assert steps == [[0, 1], [0, 1], [0, 1], [2], [2], [2]]


def test_long_prompts_are_capped_where_asked() -> None:
    engine = scheduler(replace(SYNC, long_prefill_token_threshold=4))
    engine.add(request(0, 9, 1))
    engine.add(request(1, 3, 2))
    assert drain(engine) == [[(0, 4, 4), (1, 3, 3)], [(0, 4, 8), (1, 1, 4)], [(0, 1, 9)]]


def test_admission_needs_room_for_the_whole_prompt() -> None:
    engine = scheduler(blocks=5)
    engine.add(request(0, 8, 2))  # 2 blocks, then 3
    engine.add(request(1, 16, 1))  # 4 blocks: waits although its first chunk would fit
    assert drain(engine) == [[(0, 8, 8)], [(0, 1, 9)], [(1, 10, 10)], [(1, 6, 16)]]


def test_watermark_blocks_stay_free_while_something_runs() -> None:
    def steps(watermark: float) -> int:
        engine = scheduler(replace(SYNC, watermark=watermark), blocks=9)
        engine.add(request(0, 4, 1))
        engine.add(request(1, 4, 1))
        return len(drain(engine))

    assert (steps(0.0), steps(0.8)) == (1, 2)


def test_preemption_takes_the_last_and_computes_it_again() -> None:
    engine = scheduler(blocks=4)
    engine.add(request(0, 4, 8))
    engine.add(request(1, 4, 8))
    steps = drain(engine)
    # Both fill two blocks with 8 tokens; the ninth token of 0 takes the blocks of 1, which has
    # generated 4 tokens plus the first: 9 tokens to compute once 0 has finished.
    assert steps[:6] == [
        [(0, 4, 4), (1, 4, 4)],
        [(0, 1, 5), (1, 1, 5)],
        [(0, 1, 6), (1, 1, 6)],
        [(0, 1, 7), (1, 1, 7)],
        [(0, 1, 8), (1, 1, 8)],
        [(0, 1, 9)],
    ]
    assert steps[6:8] == [[(0, 1, 10)], [(0, 1, 11)]]
    assert steps[8:] == [[(1, 9, 9)], [(1, 1, 10)], [(1, 1, 11)]]
    assert engine.preemptions == 1
    assert engine.pool.free == 4


def test_a_preempted_request_finds_its_own_blocks_again() -> None:
    engine = scheduler(replace(SYNC, enable_prefix_caching=True), blocks=5)
    engine.add(request(0, 4, 6))
    engine.add(request(1, 8, 6))
    steps = drain(engine)
    again = next(rows for rows in steps if any(row[0] == 1 for row in rows[1:] or rows) and
                 all(row[0] == 1 for row in rows))  # fmt: skip
    assert engine.preemptions == 1
    assert again[0][1] < again[0][2]  # fewer tokens computed than there are


def test_a_shared_prefix_is_computed_once() -> None:
    engine = scheduler(replace(SYNC, enable_prefix_caching=True, max_num_batched_tokens=30))
    engine.add(request(0, 10, 1, (7, 8, 1)))
    assert step(engine) == [(0, 10, 10)]
    engine.add(request(1, 10, 1, (7, 8, 2)))
    assert step(engine) == [(1, 2, 10)]
    engine.add(request(2, 8, 1, (7, 8)))  # the last token is always computed, with its block
    assert step(engine) == [(2, 4, 8)]


def test_the_tail_of_what_was_used_longest_ago_is_forgotten_first() -> None:
    engine = scheduler(replace(SYNC, enable_prefix_caching=True), blocks=4)
    hits = []
    for index, content in enumerate([1, 2, 1, 3, 1]):
        latest = request(index, 9, 1, (content, content))  # two full blocks and a third
        engine.add(latest)
        drain(engine)
        hits.append(latest.hit_tokens)
    # 2 takes the two blocks that hold nothing and the second one of 1, whose first one is found
    # again; 3 takes what is left of 2 and the second one of 1 once more.
    assert hits == [0, 0, 4, 0, 4]


def test_prefill_only_steps_put_prompts_first() -> None:
    engine = scheduler(replace(SYNC, mixed_prefill=False))
    engine.add(request(0, 4, 3))
    assert step(engine) == [(0, 4, 4)]
    engine.add(request(1, 12, 2))
    assert drain(engine) == [
        [(1, 10, 10)],
        [(1, 2, 12)],
        [(0, 1, 5), (1, 1, 13)],
        [(0, 1, 6)],
    ]


def test_async_scheduling_wastes_no_row_and_frees_a_step_later() -> None:
    engine = scheduler(replace(ASYNC, max_num_seqs=1))
    engine.add(request(0, 3, 2))
    engine.add(request(1, 3, 1))
    # Step 1 samples the last token of 0; its slot is vacant only when step 1 has ended.
    assert overlap(engine) == [[(0, 3)], [(0, 1)], [(1, 3)]]


def test_async_scheduling_decodes_before_the_token_is_known() -> None:
    engine = scheduler(ASYNC)
    engine.add(request(0, 3, 3))
    first, second = engine.schedule(), engine.schedule()
    assert first is not None
    assert second is not None
    assert list(second.items()) == [(0, 1, 4)]


def test_sync_pipelines_wait_for_the_token() -> None:
    engine = scheduler(replace(SYNC, pipeline_parallel_size=2, max_num_batched_tokens=4))
    engine.add(request(0, 4, 2))
    engine.add(request(1, 4, 2))
    assert overlap(engine) == [[(0, 4)], [(1, 4)], [(0, 1)], [(1, 1)]]


def test_chunks_of_one_prompt_follow_each_other_through_a_pipeline() -> None:
    engine = scheduler(replace(SYNC, pipeline_parallel_size=2, max_num_batched_tokens=4))
    engine.add(request(0, 8, 1))
    plans: list[StepPlan | None] = [engine.schedule(), engine.schedule(), engine.schedule()]
    assert [plan and list(plan.items()) for plan in plans] == [[(0, 4, 4)], [(0, 4, 8)], None]


def test_async_pipelines_decode_once_a_round() -> None:
    engine = scheduler(replace(ASYNC, pipeline_parallel_size=2, max_num_batched_tokens=4))
    engine.add(request(0, 4, 3))
    engine.add(request(1, 4, 3))
    assert overlap(engine, depth=3) == [[(0, 4)], [(1, 4)], [(0, 1)], [(1, 1)], [(0, 1)], [(1, 1)]]


def test_recurrent_models_with_a_prefix_cache_stop_at_block_ends() -> None:
    groups = (KVGroup("full", 4), KVGroup("recurrent", 4, fixed_blocks=2))
    engine = scheduler(replace(SYNC, enable_prefix_caching=True), groups=groups)
    engine.add(request(0, 15, 1))
    assert drain(engine) == [[(0, 8, 8)], [(0, 4, 12)], [(0, 3, 15)]]


def test_windows_give_blocks_back() -> None:
    groups = (KVGroup("sliding", 4, window=5),)
    engine = scheduler(groups=groups, blocks=20)
    engine.add(request(0, 8, 20))
    held = []
    while plan := engine.schedule():
        held.append(20 - plan.free_blocks)
        engine.complete(plan)
    assert max(held) <= 3  # window of 5 spans at most 2 blocks, and the one being filled
    assert engine.pool.free == 20


def most_held(kv: KVCacheSpec) -> int:
    """Most blocks that a lone request of 8 + 20 tokens holds while steps overlap."""
    engine = make_scheduler(ASYNC, kv)
    engine.add(request(0, 8, 20))
    held, open_plans = [], [engine.schedule()]
    while open_plans:
        if plan := engine.schedule():
            held.append(kv.num_blocks - 1 - plan.free_blocks)
            open_plans.append(plan)
        engine.complete(open_plans.pop(0))
    return max(held)


def test_windows_wait_for_the_running_step_unless_told_otherwise() -> None:
    """vLLM before 0.26 gave blocks back that the running step still read."""
    late = KVCacheSpec(21, 4, (KVGroup("sliding", 4, window=5),), 20)
    assert most_held(replace(late, frees_in_flight=True)) < most_held(late)


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_num_batched_tokens", 0), ("max_num_seqs", -1), ("watermark", 1.0)],
)
def test_impossible_settings_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(InputError, match=field):
        replace(SYNC, **{field: value})
