"""Schedules recorded from vLLM, replayed step by step by the scheduler that simulations use."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from moeplan.cost.kv_layout import KVCacheSpec, KVGroup
from moeplan.simulation.requests import Request, RequestSpec
from moeplan.simulation.scheduler import Scheduler, SchedulerSettings

TRACES = Path(__file__).parent / "data" / "golden_steps"
FULL = (KVGroup("full", 32),)
HYBRID = (KVGroup("full", 32), KVGroup("sliding", 32, window=128))


def load(name: str) -> tuple[dict, list]:
    with gzip.open(TRACES / f"{name}.jsonl.gz", "rt") as lines:
        head, *steps = map(json.loads, lines)
    return head, steps


def arrival_order(steps: list) -> list[int]:
    """Requests in the order in which the engine first scheduled them."""
    seen: dict[int, None] = {}
    for step in steps:
        seen.update((row[0], None) for row in step[5])
    return list(seen)


def request_of(head: dict, index: int) -> Request:
    ids = head.get("hash_ids")
    return Request(
        RequestSpec(
            index,
            0.0,
            head["input_lens"][index],
            head["output_lens"][index],
            tuple(ids[index]) if ids else (),
            head.get("hash_chunk_tokens", 0),
        )
    )


def differences(name: str, groups: tuple[KVGroup, ...]) -> tuple[list[int], Scheduler]:
    """Steps in which requests, tokens, computed lengths or free blocks differ from the record."""
    head, steps = load(name)
    budget = head["max_num_batched_tokens"]
    settings = SchedulerSettings(
        max_num_batched_tokens=budget,
        max_num_seqs=head["max_num_seqs"],
        enable_prefix_caching=head["enable_prefix_caching"],
        async_scheduling=False,
    )
    kv = KVCacheSpec(head["num_gpu_blocks"], head["block_size"], groups, budget)
    scheduler = Scheduler(settings, kv)
    order = iter(arrival_order(steps))
    known = finished = 0
    different = []
    for number, (_t, _ms, running, waiting, free, rows) in enumerate(steps):
        while known < running + waiting + finished:
            scheduler.add(request_of(head, next(order)))
            known += 1
        plan = scheduler.schedule()
        assert plan is not None
        ours = (sorted(plan.items()), plan.free_blocks)
        if ours != (sorted(map(tuple, rows)), free):
            different.append(number)
        scheduler.complete(plan)
        finished += len(plan.last)
    assert finished == len(head["input_lens"])
    assert scheduler.pool.free == scheduler.pool.usable
    return different, scheduler


@pytest.mark.parametrize(
    ("name", "preemptions"),
    [("qwen3moe_preempt", 23), ("qwen3moe_prefix_chunk_preempt", 10)],
)
def test_single_group_schedules_are_those_of_vllm(name: str, preemptions: int) -> None:
    different, scheduler = differences(name, FULL)
    assert different == []
    assert scheduler.preemptions == preemptions


def test_hybrid_schedule_is_that_of_vllm() -> None:
    different, scheduler = differences("gptoss_sliding_hybrid", HYBRID)
    assert different == []
    assert scheduler.preemptions == 6
