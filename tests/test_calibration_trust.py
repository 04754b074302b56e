"""Intervals: of a calibration where it speaks for the deployment, else of published runs."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from moeplan.calibration import load_calibration
from moeplan.calibration.trust import Trust, step_trust, trust_of, usual_steps
from moeplan.cost.batch import StepBatch
from moeplan.cost.predictor import prepare
from moeplan.estimate import Estimate
from moeplan.hardware_specs import load_hardware
from moeplan.hardware_specs.schema import Uncertainty
from moeplan.scenario import Scenario, build_deployment
from moeplan.simulation.workload import Workload

HARDWARE = load_hardware()
LOAD = Workload(concurrency=16, input_tokens=1024, output_tokens=256, num_prompts=160)
MOE = "kernels/h100_sxm/moe/triton-bf16/bandwidth_tb_per_s"
LINEAR = "kernels/h100_sxm/linear/cublas-bf16/bandwidth_tb_per_s"
LAUNCH = "engines/vllm-0.33/host/launch_us"
BATCH = StepBatch([1000] * 16, (), 16)


def uncertain(spread: float = 0.05, step: float = 0.05, **errors: float) -> Uncertainty:
    return Uncertainty(
        source="calibration of a test",
        addresses=(MOE, LINEAR, LAUNCH),
        covariance=tuple(map(tuple, (np.eye(3) * spread**2).tolist())),
        errors={"step": step, **errors},
    )


def ready(known: Uncertainty | None, model: str = "qwen3-30b-a3b", device: str = "h100_sxm"):
    hardware = HARDWARE.model_copy(update={"uncertainty": known})
    deployment = build_deployment(Scenario(model=model, device=device), hardware)
    return prepare(deployment, hardware, 4096)


def half(estimate: Estimate) -> float:
    return math.log(estimate.high / estimate.low) / 2


def test_a_calibration_gives_intervals_and_says_so():
    found = trust_of(ready(uncertain(tpot=0.06)), LOAD).estimate(10.0, "tpot")
    assert found.calibrated
    assert found.low < 10.0 < found.high
    assert half(found) > 0.06  # what runs missed, and what the parameters leave
    assert found.interval_from == "the calibration of a test"


def test_less_sure_parameters_and_larger_errors_widen():
    usual = half(trust_of(ready(uncertain(0.05, 0.05)), LOAD).estimate(1.0, "tpot"))
    assert half(trust_of(ready(uncertain(0.2, 0.05)), LOAD).estimate(1.0, "tpot")) > usual
    assert half(trust_of(ready(uncertain(0.05, 0.2)), LOAD).estimate(1.0, "tpot")) > usual


def test_a_certain_parameter_leaves_the_errors_of_runs():
    found = trust_of(ready(uncertain(1e-9, 0.05, throughput=0.07)), LOAD)
    assert half(found.estimate(1.0, "throughput")) == pytest.approx(0.07, rel=1e-3)
    assert half(found.estimate(1.0, "tpot")) == pytest.approx(0.05, rel=1e-3)


def test_an_inverse_figure_has_the_inverse_interval():
    trust = Trust("interpolated", {"tpot": (-0.1, 0.3)}, "runs")
    time, rate = trust.estimate(10.0, "tpot"), trust.estimate(0.1, "tpot", inverse=True)
    assert rate.low == pytest.approx(1 / time.high)
    assert rate.high == pytest.approx(1 / time.low)


def test_a_calibration_of_another_device_says_nothing_here():
    found = trust_of(ready(uncertain(tpot=0.06), device="b200"), LOAD).estimate(1.0, "tpot")
    assert not found.calibrated


def test_the_host_alone_measures_no_kernel_of_another_device():
    """Launches alone account for most of a prompt's variance; nothing of the GPU was measured."""
    known = replace(uncertain(), devices=("h100_sxm",))
    found = ready(known, device="h200")
    trusts = trust_of(found, LOAD), trust_of(found), step_trust(found, BATCH)
    for trust in trusts:
        assert trust.basis == found.basis
        assert trust.caveat == (
            "calibration is of h100_sxm; of it only the host's constants apply here"
        )
    assert trusts[0].shifts == trust_of(ready(None, device="h200"), LOAD).shifts


def test_host_constants_of_other_versions_apply_not_and_say_so():
    known = replace(
        uncertain(),
        addresses=(MOE, LINEAR, LAUNCH.replace("0.33", "0.14")),
        versions=("0.24.0",),
    )
    found = trust_of(ready(known), LOAD)
    assert not found.estimate(1.0, "tpot").calibrated
    assert found.estimate(1.0, "tpot").caveat == (
        "calibration applies in part: its host constants are of vLLM 0.14 to 0.25; "
        "give --engine-version 0.24.0"
    )


def test_one_step_and_runs_agree_on_whether_a_calibration_speaks():
    """Of a lone long prompt no launch binds, but the deployment is the same."""
    found = ready(uncertain())
    prompt = StepBatch((), [(4096, 0)], 1)
    bases = {step_trust(found, batch).basis for batch in (BATCH, prompt)}
    assert bases == {trust_of(found, LOAD).basis} == {trust_of(found).basis}
    little = ready(replace(uncertain(), addresses=(LINEAR,), covariance=((0.0025,),)))
    assert "determines only" in trust_of(little).caveat
    assert step_trust(little, prompt).caveat == trust_of(little, LOAD).caveat


def test_a_shipped_calibration_speaks_for_its_own_device_and_version_alone():
    folder = Path(__file__).parents[1] / "hardware_specs/calibrations"
    file = load_calibration(folder / "h200-vllm-0.24.calibration.json")
    hardware = file.applied_to(HARDWARE)

    def trust(device: str, version: str) -> Trust:
        scenario = Scenario(model="gpt-oss-120b", device=device, engine_version=version)
        return trust_of(prepare(build_deployment(scenario, hardware), hardware, 4096))

    assert trust("h200", "0.24.0").basis == "measured here"
    assert trust("h200", "0.24.0").caveat is None
    assert "is of h200" in trust("h100_sxm", "0.24.0").caveat
    assert "give --engine-version 0.24.0" in trust("h200", "0.33.0").caveat


def test_ttft_that_no_run_judged_is_not_the_calibrations():
    judged = trust_of(ready(uncertain(ttft=0.3)), LOAD).shifts
    other = trust_of(ready(uncertain()), LOAD).shifts
    assert half(Trust("interpolated", judged).estimate(1.0, "ttft")) >= 0.3
    assert other.get("ttft") == trust_of(ready(None), LOAD).shifts.get("ttft")


def test_one_step_has_an_interval_by_its_own_response():
    decode = step_trust(ready(uncertain(0.3)), BATCH).estimate(1.0, "step")
    assert half(decode) > 0.1
    assert not step_trust(ready(None), BATCH).estimate(1.0, "step").bounded


def test_steps_with_a_prompt_have_an_error_of_their_own():
    found = ready(uncertain(1e-9, 0.03, prompt=0.2))
    with_prompt = StepBatch([1000] * 16, [(512, 0)], 17)
    assert half(step_trust(found, BATCH).estimate(1.0, "step")) == pytest.approx(0.03, rel=1e-3)
    assert half(step_trust(found, with_prompt).estimate(1.0, "step")) == pytest.approx(
        0.2, rel=1e-3
    )


def test_the_usual_steps_are_those_of_the_workload():
    found = ready(None)
    decode, prompt = usual_steps(found, LOAD)
    assert len(decode.decode_contexts) == 16
    assert decode.decode_contexts[0] == 1024 + 128
    assert prompt.prefill_chunks == [(1024, 0)]
    many = usual_steps(found, LOAD.model_copy(update={"concurrency": 5000, "num_prompts": 9000}))
    assert len(many[0].decode_contexts) <= found.engine.max_num_seqs


def test_without_anything_known_there_is_no_interval():
    assert Trust("first principles").estimate(3.0, "tpot") == Estimate(3.0, "first principles")
    assert replace(Trust("interpolated"), source="x").estimate(3.0) == Estimate(3.0, "interpolated")
