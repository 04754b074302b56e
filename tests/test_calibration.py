"""Calibration: known parameters come back, unknown ones stay, held-out steps are never seen."""

import json
import math

import pytest

from moeplan.calibration import (
    Dataset,
    StepObservation,
    fit_steps,
    load_calibration,
    save_calibration,
)
from moeplan.calibration.file import calibration_of
from moeplan.calibration.front_end import FrontEndFit
from moeplan.calibration.observations import group_steps
from moeplan.calibration.parameters import prepared, relevant_parameters
from moeplan.calibration.summary import FittedParameter
from moeplan.cost.batch import StepBatch
from moeplan.errors import InputError, RecordError, UnknownNameError
from moeplan.hardware_specs import load_hardware
from moeplan.scenario import Scenario, build_deployment

HARDWARE = load_hardware()
DEPLOYMENT = build_deployment(Scenario(model="qwen3-30b-a3b", device="h100_sxm"), HARDWARE)
MOE = "kernels/h100_sxm/moe/triton-bf16/bandwidth_tb_per_s"
TURN, TOKEN = (f"engines/vllm-0.33/host/{name}" for name in ("request_us", "prompt_token_us"))
HOST = FrontEndFit(
    tuple(
        FittedParameter(address=address, prior=1.0, prior_spread=1.0, prior_source="fit: x",
                        value=2.0, spread=0.1, determined=address == TURN)
        for address in (TURN, TOKEN)
    ),
    ((0.01,),),
)  # fmt: skip
DECODES = [
    StepBatch([context] * batch, (), batch)
    for batch in (1, 2, 4, 8, 16, 32, 64, 128)
    for context in (128, 2048)
]
PREFILLS = [StepBatch((), [(tokens, 0)], 1) for tokens in (256, 1024, 4096)]


def dataset(batches, truth, held_out=(), noise=()):
    """Steps of a machine whose parameters are `truth` times the priors."""
    known = HARDWARE.parameters()
    real = HARDWARE.with_overrides({a: known[a][0] * factor for a, factor in truth.items()})
    timer = prepared(real, Dataset(DEPLOYMENT, 8192, 0.8, ())).timer
    factors = dict(noise)
    observations = [
        StepObservation(
            batch,
            timer.step_seconds(batch) * factors.get(i, 1.0),
            steps=8,
            run="held" if i in held_out else "fit",
            held_out=i in held_out,
        )
        for i, batch in enumerate(batches)
    ]
    return Dataset(DEPLOYMENT, 8192, 0.8, tuple(observations))


def by_address(fit):
    return {parameter.address: parameter for parameter in fit.parameters}


@pytest.fixture(scope="module")
def recovered():
    return fit_steps(HARDWARE, [dataset(DECODES, {MOE: 0.75})])


def test_a_slower_memory_is_found(recovered):
    parameter = by_address(recovered)[MOE]
    assert parameter.determined
    assert parameter.value / parameter.prior == pytest.approx(0.75, rel=0.05)
    assert parameter.spread < parameter.prior_spread
    assert recovered.after.median_error < 0.01 < recovered.before.median_error


def test_what_the_steps_do_not_show_keeps_its_prior(recovered):
    """No step carried a prompt: nothing is known of prefill rates."""
    rates = [p for a, p in by_address(recovered).items() if "attention_prefill" in a]
    assert rates
    assert all(p.value == p.prior and not p.determined for p in rates)
    assert all(p.address not in recovered.overrides for p in rates)


def test_the_covariance_is_that_of_the_determined_parameters(recovered):
    determined = [p for p in recovered.parameters if p.determined]
    assert recovered.covariance.shape == (len(determined), len(determined))
    for place, parameter in enumerate(determined):
        assert math.sqrt(recovered.covariance[place, place]) == pytest.approx(parameter.spread)


def test_held_out_steps_are_compared_but_never_fitted():
    batches = DECODES + PREFILLS
    held = set(range(len(DECODES), len(batches)))
    honest = fit_steps(HARDWARE, [dataset(batches, {MOE: 0.75}, held)])
    absurd = dataset(batches, {MOE: 0.75}, held, [(i, 10.0) for i in held])
    other = fit_steps(HARDWARE, [absurd])
    assert other.overrides == honest.overrides
    assert other.held_out_after.cells == len(PREFILLS)
    assert other.held_out_after.median_error > 0.8


def test_a_few_wild_steps_do_not_carry_the_fit_away():
    wild = fit_steps(HARDWARE, [dataset(DECODES, {MOE: 0.75}, noise=[(3, 20.0), (11, 20.0)])])
    parameter = by_address(wild)[MOE]
    assert parameter.value / parameter.prior == pytest.approx(0.75, rel=0.1)


def test_steps_that_agree_with_the_priors_change_nothing():
    found = fit_steps(HARDWARE, [dataset(DECODES, {})])
    for parameter in found.parameters:
        assert parameter.value == pytest.approx(parameter.prior, rel=0.01)


def test_two_deployments_are_fitted_together():
    single = dataset(DECODES, {MOE: 0.75})
    cut = build_deployment(Scenario(model="gpt-oss-20b", device="h100_sxm"), HARDWARE)
    addresses = {p.address for p in relevant_parameters(HARDWARE, [single])}
    both = relevant_parameters(HARDWARE, [single, Dataset(cut, 8192, 0.8, ())])
    assert addresses < {p.address for p in both}
    assert any("triton-mxfp4" in p.address for p in both)


def test_nothing_to_fit_is_refused():
    with pytest.raises(InputError, match="no measured steps"):
        fit_steps(HARDWARE, [Dataset(DEPLOYMENT, 8192, 0.8, ())])


def test_like_steps_are_gathered_and_the_median_counts():
    batches = [StepBatch([1000 + i, 1000], (), 2) for i in range(5)] + [StepBatch([9000], (), 1)]
    seconds = [0.010, 0.011, 0.012, 0.013, 0.5, 0.02]
    found = {o.steps: o for o in group_steps(batches, seconds, run="r")}
    assert found[5].seconds == 0.012
    assert found[5].spread == pytest.approx(1.4826 * math.log(0.012 / 0.011), rel=0.1)
    assert found[1].batch.decode_contexts == [9000]


def test_steps_without_a_duration_are_left_out():
    batches = [StepBatch([10], (), 1)] * 3
    assert len(group_steps(batches, [float("nan"), 0.0, 0.01])) == 1


def test_a_calibration_survives_its_file(recovered, tmp_path):
    path = tmp_path / "h100.calibration.json"
    written = calibration_of(recovered, setups=["a"], sources=["run"], front_end=HOST)
    save_calibration(path, written)
    read = load_calibration(path)
    assert read == written
    assert read.sha256 == json.loads(path.read_text())["sha256"]
    assert read.overrides[TURN] == 2.0
    assert TOKEN not in read.overrides
    HARDWARE.with_overrides(read.overrides)


def test_a_changed_file_is_refused(recovered, tmp_path):
    path = tmp_path / "c.json"
    save_calibration(path, calibration_of(recovered, setups=[], sources=[]))
    path.write_text(path.read_text().replace('"format": 1', '"format": 1 ').replace("0.75", "0.7"))
    content = json.loads(path.read_text())
    content["parameters"][0]["value"] *= 2
    path.write_text(json.dumps(content))
    with pytest.raises(RecordError, match="hash"):
        load_calibration(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 9}'])
def test_what_is_no_calibration_is_refused(tmp_path, text):
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(RecordError):
        load_calibration(path)


def test_an_address_that_does_not_exist_is_named():
    with pytest.raises(UnknownNameError):
        HARDWARE.with_overrides({"kernels/h100_sxm/moe/nope/floor_us": 1.0})


LAUNCH = "engines/vllm-0.33/host/launch_us"
STEP = "engines/vllm-0.33/host/step_us"


def test_a_slow_host_is_found_by_prompts_that_no_graph_holds():
    prompts = [StepBatch((), [(tokens, 0)], 1) for tokens in (600, 700, 800)]
    fit = fit_steps(HARDWARE, [dataset(prompts + DECODES, {LAUNCH: 3.0})])
    launch = by_address(fit)[LAUNCH]
    counts = [p for a, p in by_address(fit).items() if a.startswith("launches/")]
    assert launch.determined
    assert launch.value > 1.5 * launch.prior
    assert all(p.value / p.prior < launch.value / launch.prior for p in counts)
    assert fit.after.median_error < 0.02


def test_steps_of_an_idle_engine_show_the_host_that_others_hide():
    slow = HARDWARE.with_overrides({STEP: 2500.0})
    timer = prepared(slow, Dataset(DEPLOYMENT, 8192, 0.8, ())).timer
    batches = [StepBatch((), [(tokens, 0)], 1) for tokens in (64, 128, 256)] + DECODES[6:]
    observations = tuple(
        StepObservation(b, timer.idle_seconds(b) if b.prefill_chunks else timer.step_seconds(b),
                        steps=8, run="r", idle=bool(b.prefill_chunks))
        for b in batches
    )  # fmt: skip
    fit = fit_steps(HARDWARE, [Dataset(DEPLOYMENT, 8192, 0.8, observations)])
    assert by_address(fit)[STEP].value == pytest.approx(2500, rel=0.35)


def test_steps_of_an_idle_engine_are_a_cell_of_their_own():
    batches = [StepBatch((), [(100, 0)], 1)] * 4
    found = group_steps(batches, [0.01, 0.01, 0.02, 0.02], idle=[False, False, True, True])
    assert [(o.idle, o.seconds) for o in found] == [(False, 0.01), (True, 0.02)]


def test_more_cells_of_one_run_do_not_make_it_surer():
    """Like steps share the cost model's error: sixty of them know no more than twelve."""
    spreads = []
    for cells in (12, 60):
        batches = [StepBatch([2048] * 16, (), 16)] * cells
        spreads.append(by_address(fit_steps(HARDWARE, [dataset(batches, {MOE: 0.8})]))[MOE].spread)
    assert spreads[1] == pytest.approx(spreads[0], rel=0.02)
