"""Replay a recorded schedule through moeplan's scheduler and find the steps that differ.

The replay is driven by the recorded arrivals (a request comes before the same step as it did), so
that timing plays no part: what is compared are the rules alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moeplan.cost.kv_layout import KVCacheSpec
from moeplan.simulation.requests import Request, RequestSpec
from moeplan.simulation.scheduler import Scheduler
from moeplan.simulation.step_plan import SchedulerSettings, StepPlan
from moeplan.simulation.workload import TraceRow
from moeplan.validate.probe import StepTrace


@dataclass(frozen=True, slots=True)
class ScheduleComparison:
    """How a simulated schedule agrees with a recorded one."""

    steps: int
    differing: tuple[int, ...]
    """Steps whose requests, tokens or computed lengths are not the same."""
    blocks_differing: tuple[int, ...]
    """Steps after which another number of blocks is free."""
    preemptions: int
    """Simulated; `recorded_preemptions` beside it."""
    recorded_preemptions: int
    chunked_prefills: int
    hit_tokens: int
    recorded_hit_tokens: int
    first_difference: str | None = None

    @property
    def exact(self) -> bool:
        """Whether every step agrees, free blocks included."""
        return not self.differing and not self.blocks_differing


def requests_of(trace: StepTrace, rows: Sequence[TraceRow], chunk_tokens: int) -> list[RequestSpec]:
    """What the simulator needs to know of each recorded request, by request number.

    `rows` are those of the timed trace that was sent (empty for unshared prompts); the benchmark's
    index in a request's id says which row it is.
    """
    specs = []
    for request in trace.requests:
        index = request.bench_index
        row = rows[index] if rows and index is not None else None
        specs.append(
            RequestSpec(
                index=request.number,
                arrival_s=0.0,
                input_tokens=request.prompt_tokens,
                output_tokens=request.max_tokens,
                hash_ids=tuple(row.hash_ids) if row else (),
                hash_chunk_tokens=chunk_tokens if row else 0,
            )
        )
    return specs


def compare_schedule(
    trace: StepTrace, specs: Sequence[RequestSpec], settings: SchedulerSettings, kv: KVCacheSpec
) -> ScheduleComparison:
    """Replay `specs` with the recorded arrivals; compare every step."""
    scheduler = Scheduler(settings, kv)
    requests = [Request(spec) for spec in specs]
    arrivals: dict[int, list[int]] = {}
    for number, step, _ in trace.arrivals:
        arrivals.setdefault(step, []).append(number)
    differing, blocks, first = [], [], None
    open_plans: list[StepPlan] = []
    for step in range(len(trace)):
        for number in arrivals.get(step, ()):
            scheduler.add(requests[number])
        plan = scheduler.schedule()
        if problem := _other_batch(trace, step, plan):
            differing.append(step)
        elif problem := _other_blocks(trace, step, plan):
            blocks.append(step)
        first = first or problem
        if plan is not None:
            open_plans.append(plan)
        while len(open_plans) > int(settings.async_scheduling):
            scheduler.complete(open_plans.pop(0))
    return ScheduleComparison(
        steps=len(trace),
        differing=tuple(differing),
        blocks_differing=tuple(blocks),
        preemptions=scheduler.preemptions,
        recorded_preemptions=len(trace.preemptions),
        chunked_prefills=trace.chunked(),
        hit_tokens=sum(request.hit_tokens for request in requests),
        recorded_hit_tokens=trace.hit_tokens(),
        first_difference=first,
    )


def _other_batch(trace: StepTrace, step: int, plan: StepPlan | None) -> str | None:
    recorded = sorted(trace.rows(step))
    simulated = sorted(plan.items()) if plan else []
    if recorded == simulated:
        return None
    only = [row for row in recorded if row not in simulated][:3]
    other = [row for row in simulated if row not in recorded][:3]
    return f"step {step}: recorded {only}, simulated {other} (request, new, computed)"


def _other_blocks(trace: StepTrace, step: int, plan: StepPlan | None) -> str | None:
    if plan is not None and plan.free_blocks != trace.free[step]:
        return f"step {step}: {trace.free[step]} free blocks recorded, {plan.free_blocks} simulated"
    return None
