"""Steps that the host launches kernel by kernel overlap, and block an engine of one process."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from moeplan.cost.batch import StepBatch
from moeplan.cost.kv_layout import KVCacheSpec, KVGroup
from moeplan.cost.predictor import prepare
from moeplan.hardware_specs import load_hardware
from moeplan.scenario import Scenario, build_deployment
from moeplan.simulation import ReplicaSpec, SchedulerSettings, Workload, run
from moeplan.simulation.front_end import FrontEndCosts

LIMITS = SchedulerSettings(max_num_batched_tokens=1000, max_num_seqs=64, async_scheduling=True)
GPU, LAUNCH, DECODE = 3.0, 2.0, 1.0
HALF_MS = FrontEndCosts(turn_s=0.0005)


class Timer:
    """Prompts compute `GPU` seconds a step and are launched in `LAUNCH`; decodes take `DECODE`."""

    stages = 1

    def __init__(self, gpu: float = GPU, launch: float = LAUNCH):
        self.gpu, self.launch = gpu, launch

    def launched(self, _batch: StepBatch) -> tuple[float, float]:
        return self.gpu, self.launch

    def step_seconds(self, batch: StepBatch) -> float:
        return max(self.gpu, self.launch) if batch.prefill_chunks else DECODE

    def stage_seconds(self, batch: StepBatch) -> tuple[float, ...]:
        return (self.step_seconds(batch),)

    def decode_seconds(self, contexts: np.ndarray, steps: int) -> np.ndarray:  # noqa: ARG002
        return np.full(steps, DECODE)

    def decode_stage_seconds(self, contexts: np.ndarray, steps: int) -> np.ndarray:  # noqa: ARG002
        return np.full((1, steps), DECODE)


def spec(timer: Timer, **more) -> ReplicaSpec:
    kv = KVCacheSpec(1001, 4, (KVGroup("full", 4),))
    return ReplicaSpec(timer, kv, LIMITS, launch=timer.launched, **more)


def played(replica: ReplicaSpec, requests: int, tokens: int = 600, output: int = 2):
    load = Workload(
        arrivals="closed", num_prompts=requests, concurrency=requests,
        input_tokens=tokens, output_tokens=output,
    )  # fmt: skip
    return run([replica], "round-robin", load, record_steps=True)


def test_a_step_is_launched_while_the_one_before_computes():
    """Two prompts of a step each: the second's launching hides behind the first's computing."""
    found = played(spec(Timer()), 2)
    assert sorted(found.first_token_s) == pytest.approx([GPU, 2 * GPU])


def test_launches_of_a_slow_host_follow_each_other():
    found = played(spec(Timer(gpu=0.5, launch=4.0)), 2)
    assert sorted(found.first_token_s) == pytest.approx([4.0, 8.0])


def test_a_host_that_launches_takes_tokens_in_late():
    """The first prompt's token is there at 4 s, and the core that launches the second until 8 s."""
    found = played(spec(Timer(gpu=0.5, launch=4.0), launches_block=True), 2)
    assert sorted(found.first_token_s) == pytest.approx([8.0, 8.0])


def test_of_a_burst_the_first_comes_alone():
    """Half a millisecond between requests: the engine has begun before the others are there."""
    together = played(spec(Timer(), launches_block=True), 4, tokens=200)
    assert [step for step in together.steps.prefill_tokens if step] == [800]
    apart = played(spec(Timer(), launches_block=True, front_end=HALF_MS), 4, tokens=200)
    assert [step for step in apart.steps.prefill_tokens if step] == [200, 600]


def test_a_sequence_of_requests_is_admitted_one_by_one():
    costs = FrontEndCosts(fixed_s=1.0, turn_s=0.1)
    found = played(spec(Timer(), front_end=costs), 3)
    assert min(found.first_token_s) == pytest.approx(0.2 + 1.0 + GPU)
    assert sorted(found.sent_s) == pytest.approx([0.0, 0.1, 0.2])


def test_every_token_comes_and_none_before_its_prompt():
    found = played(
        spec(Timer(), launches_block=True, front_end=FrontEndCosts(turn_s=0.01)), 12, 300, 5
    )
    assert (found.finish_s >= found.first_token_s + 4 * 0.999 * min(DECODE, GPU)).all()
    assert found.token_counts.sum() == 12 * 5


def test_gpu_and_launch_make_up_the_step():
    hardware = load_hardware()
    scenario = Scenario(model="gpt-oss-20b", device="h100_sxm")
    timer = prepare(build_deployment(scenario, hardware), hardware, 8192).timer
    for batch in (
        StepBatch((), [(700, 0)], 1),
        StepBatch((), [(8000, 0)], 1),
        StepBatch([100] * 32, [(512, 0)], 33),
        StepBatch([100] * 32, (), 32),
    ):
        assert max(timer.launched_seconds(batch)) == pytest.approx(timer.step_seconds(batch))
    assert timer.launched_seconds(replace(batch, decode_contexts=[100] * 8))[1] == 0.0


def test_gaps_lie_between_the_first_token_and_the_last():
    """Also where a blocked host takes tokens in after the GPU sampled them."""
    for requests in (1, 2, 5):
        found = played(spec(Timer(gpu=0.5, launch=4.0), launches_block=True), requests, 600, 30)
        lived = (found.finish_s - found.first_token_s).sum()
        assert (found.gaps_s * found.gap_counts).sum() == pytest.approx(lived)
