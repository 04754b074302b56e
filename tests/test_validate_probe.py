"""Recorded steps: reading the probe's file, durations, batches, replaying a schedule."""

import json
from array import array
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from moeplan.cost.kv_layout import KVCacheSpec, KVGroup
from moeplan.errors import RecordError
from moeplan.simulation.requests import Request, RequestSpec
from moeplan.simulation.scheduler import Scheduler
from moeplan.simulation.step_plan import SchedulerSettings
from moeplan.validate.front_end import front_end_data
from moeplan.validate.probe import read_probe, trace_from_bytes
from moeplan.validate.schedule import compare_schedule, requests_of
from moeplan.validate.workloads import ClosedLoop

SETTINGS = SchedulerSettings(32, 4, enable_prefix_caching=True, async_scheduling=False)
KV = KVCacheSpec(12, 16, (KVGroup("full", 16),), 32)
SPECS = [RequestSpec(i, 0.0, 40 + i, 20) for i in range(4)]
STEP_NS = 1_000_000


def events_of_a_simulation():
    """What the probe would have written of moeplan's own scheduler, one step a millisecond."""
    scheduler = Scheduler(SETTINGS, KV)
    events = array("q")
    for number, spec in enumerate(SPECS):
        scheduler.add(Request(spec))
        events.extend((3, 500 + number, number))
    step, time = 0, 1000
    while (plan := scheduler.schedule()) is not None:
        for request in plan.preempted:
            events.extend((5, time, request.index))
        rows = list(plan.items())
        events.extend((1, time + 100, 100, step, plan.waiting, plan.running, plan.free_blocks))
        events.append(len(rows))
        for row in rows:
            events.extend((row[0], row[1], row[2]))
        scheduler.complete(plan)
        events.extend((2, time + STEP_NS - 200, step))
        step, time = step + 1, time + STEP_NS
    events.extend((4, time))
    return events, step, scheduler.preemptions


@pytest.fixture
def folder(tmp_path):
    facts = {"async": False, "num_gpu_blocks": 12, "block_size": 16}
    lines = [json.dumps(facts)]
    lines += [json.dumps([i, f"cmpl-bench-ab12-{i}-0", s.input_tokens, 20])
              for i, s in enumerate(SPECS)]  # fmt: skip
    (tmp_path / "7.meta.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "7.steps.i64").write_bytes(events_of_a_simulation()[0].tobytes())
    return tmp_path


def test_steps_read_back(folder):
    trace = read_probe(folder)
    _, steps, preemptions = events_of_a_simulation()
    assert len(trace) == steps
    assert len(trace.preemptions) == preemptions > 0
    assert [request.bench_index for request in trace.requests] == [0, 1, 2, 3]
    assert list(trace.rows(0)) == [(0, 32, 32)]


def test_a_schedule_replays_without_a_difference(folder):
    trace = read_probe(folder)
    found = compare_schedule(trace, requests_of(trace, (), 0), SETTINGS, KV)
    assert found.exact
    assert found.preemptions == found.recorded_preemptions
    assert found.hit_tokens == found.recorded_hit_tokens
    assert found.chunked_prefills > 0


def test_another_budget_shows_as_a_difference(folder):
    trace = read_probe(folder)
    other = SchedulerSettings(16, 4, enable_prefix_caching=True, async_scheduling=False)
    found = compare_schedule(trace, requests_of(trace, (), 0), other, KV)
    assert not found.exact
    assert found.differing[0] == 0
    assert "step 0: recorded [(0, 32, 32)], simulated [(0, 16, 16)]" in found.first_difference


def test_a_smaller_pool_shows_as_free_blocks(folder):
    trace = read_probe(folder)
    larger = KVCacheSpec(64, 16, (KVGroup("full", 16),), 32)
    found = compare_schedule(trace, requests_of(trace, (), 0), SETTINGS, larger)
    assert 0 in found.blocks_differing
    assert 0 not in found.differing


def test_durations_run_from_schedule_to_schedule(folder):
    seconds = read_probe(folder).seconds()
    assert seconds[:-1] == pytest.approx(STEP_NS * 1e-9)
    assert seconds[-1] == pytest.approx((STEP_NS - 200) * 1e-9)  # nothing follows: to its result


def test_asynchronous_durations_run_from_result_to_result(folder):
    meta = folder / "7.meta.jsonl"
    meta.write_text(meta.read_text().replace('"async": false', '"async": true'))
    seconds = read_probe(folder).seconds()
    assert seconds[0] == pytest.approx((STEP_NS - 200) * 1e-9)
    assert seconds[1:] == pytest.approx(STEP_NS * 1e-9)


def test_batches_tell_decodes_from_prefills(folder):
    trace = read_probe(folder)
    first = trace.batch(0)
    assert (first.prefill_chunks, first.decode_contexts) == ([(32, 0)], [])
    assert first.sampled_rows == 0
    last = trace.batch(len(trace) - 1)
    assert last.prefill_chunks == []
    assert last.sampled_rows == len(last.decode_contexts)


def test_a_span_of_steps_stands_by_itself(folder):
    trace = read_probe(folder)
    whole = trace.between(0, 10**15)
    assert len(whole) == len(trace)
    assert whole.arrivals == trace.arrivals
    with pytest.raises(RecordError, match="no step was recorded"):
        trace.between(10**15, 10**16)
    with pytest.raises(RecordError, match="arrived before"):
        trace.between(10 * STEP_NS, 10**15)


def test_traces_survive_a_file(folder):
    trace = read_probe(folder)
    again = trace_from_bytes(trace.to_bytes())
    assert again.requests == trace.requests
    assert again.arrivals == trace.arrivals
    assert np.array_equal(again.computed, trace.computed)
    with pytest.raises(RecordError, match="not a recorded step trace"):
        trace_from_bytes(b"PK other")


@pytest.mark.parametrize("cut", [1, 8, 17, 40])
def test_an_engine_killed_while_it_wrote_loses_the_last_event(folder, cut):
    file = folder / "7.steps.i64"
    whole = len(read_probe(folder))
    file.write_bytes(file.read_bytes()[:-cut])
    assert whole - 1 <= len(read_probe(folder)) <= whole


def test_two_engines_in_one_folder_are_refused(folder):
    (folder / "8.steps.i64").write_bytes(b"")
    with pytest.raises(RecordError, match="2 engine processes"):
        read_probe(folder)


def measured(trace, concurrency):
    """A run whose client had each token 0.2 ms after the core, and began all requests at 0."""
    told = {request.number: [] for request in trace.requests}
    for step in range(len(trace)):
        for number, _, computed in trace.rows(step):
            if computed >= trace.requests[number].prompt_tokens:
                told[number].append(trace.result_ns[step] * 1e-9 + 2e-4)
    result = {
        "start_times": [0.0] * len(told),
        "ttfts": [times[0] for times in told.values()],
        "itls": [np.diff(times).tolist() for times in told.values()],
        "input_lens": [request.prompt_tokens for request in trace.requests],
    }
    load = ClosedLoop(concurrency=concurrency, input_tokens=40, output_tokens=20, num_prompts=4)
    return SimpleNamespace(
        key="r", run=SimpleNamespace(load=load), repeats=[{"result": result}], traces=[trace]
    )


def test_a_burst_is_what_the_idle_core_took_in_and_when(folder):
    trace = read_probe(folder)
    (burst,) = front_end_data([measured(trace, 4)], 0.0).bursts
    assert burst.taken_s == pytest.approx([5.00e-7, 5.01e-7, 5.02e-7, 5.03e-7])
    assert burst.absent_s == burst.taken_s
    assert burst.prompt_tokens == 40


def test_who_comes_while_the_core_is_busy_came_between_two_looks(folder):
    trace = read_probe(folder)
    late = [(n, s + 3 * (n == 3), t + 3 * STEP_NS * (n == 3)) for n, s, t in trace.arrivals]
    (burst,) = front_end_data([measured(replace(trace, arrivals=late), 4)], 0.0).bursts
    assert burst.absent_s[3] == pytest.approx(trace.begin_ns[2] * 1e-9)
    assert burst.absent_s[3] < burst.taken_s[3]


def test_ways_back_are_those_from_the_core_to_the_client(folder):
    data = front_end_data([measured(read_probe(folder), 1)], 1e-3)
    assert len(data.bursts) == 4
    assert data.beside_s == pytest.approx(1e-3 + 2e-4)
    together = front_end_data([measured(read_probe(folder), 2)], 0.0).ways_back
    assert [way.tokens for way in together] == [2]
    assert together[0].seconds == pytest.approx(2e-4)


PER_STEP = ("begin_ns", "scheduled_ns", "result_ns", "waiting", "running", "free", "idle_after")


def test_steps_without_rows_hide_no_way_back(folder):
    """One behind every step, the last as well: such a step has computed nothing, no prompt."""
    trace = read_probe(folder)
    twice = {name: np.repeat(getattr(trace, name), 2) for name in PER_STEP}
    ends = np.repeat(trace.first[1:], 2)
    sparse = replace(trace, first=np.concatenate(([0], ends)), **twice)
    usual = front_end_data([measured(trace, 2)], 0.0).ways_back
    assert len(usual) == 1
    assert front_end_data([measured(sparse, 2)], 0.0).ways_back == usual


def test_a_run_without_recorded_steps_shows_nothing(folder):
    trace = read_probe(folder)
    none = {name: getattr(trace, name)[:0] for name in (*PER_STEP, "number", "new", "computed")}
    empty = replace(trace, first=trace.first[:1], arrivals=[], preemptions=[], **none)
    client = measured(trace, 1)
    client.traces = [empty]
    data = front_end_data([client], 1e-3)
    assert (data.bursts, data.ways_back, data.beside_s) == ((), (), 1e-3)
