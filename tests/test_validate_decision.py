"""Planning for a decision: what tells no choices apart is not measured, nor what is clear."""

import math
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeplan.calibration import Dataset
from moeplan.errors import InputError
from moeplan.hardware_specs import load_hardware
from moeplan.scenario import Scenario, build_deployment
from moeplan.validate.decision import Decision, chance_of_wrong
from moeplan.validate.experiment import ExperimentOptions, plan_of
from moeplan.validate.information import Design
from moeplan.validate.planning import candidates, choose_runs
from moeplan.validate.predict import hardware_of
from moeplan.validate.workloads import ClosedLoop

HARDWARE = load_hardware()
CALIBRATIONS = Path(__file__).parents[1] / "hardware_specs" / "calibrations"
SCENARIO = Scenario(model="gpt-oss-20b", device="h100_sxm")
MARLIN = SCENARIO.model_copy(update={"kernel": "marlin"})
TARGET = ClosedLoop(concurrency=16, input_tokens=1024, output_tokens=256, num_prompts=160)


def data(**options) -> Dataset:
    scenario = Scenario(**({"model": "gpt-oss-20b", "device": "h100_sxm"} | options))
    return Dataset(build_deployment(scenario, HARDWARE), 2048, 0.8, ())


def picks(decision: Decision, margin: float, rival: Dataset | None = None, minutes: float = 10):
    found, _ = choose_runs(HARDWARE, data(), TARGET, minutes, 2, decision, rival, margin)
    return found


spreads = st.floats(0.01, 1.0)


@given(st.floats(-2, 2), spreads, spreads)
def test_measuring_never_makes_a_choice_worse(margin, one, other):
    after, before = sorted((one, other))
    now = chance_of_wrong(margin, before, before)
    assert -1e-9 <= chance_of_wrong(margin, before, after) <= now + 5e-3  # quadrature
    assert now <= 0.5


def test_the_chance_of_a_wrong_choice_is_that_of_a_gaussian():
    assert chance_of_wrong(0.0, 0.2, 0.2) == pytest.approx(0.5)
    assert chance_of_wrong(0.2, 0.2, 0.2) == pytest.approx(0.1587, abs=1e-3)
    assert chance_of_wrong(-0.2, 0.2, 0.2) == pytest.approx(0.1587, abs=1e-3)
    assert chance_of_wrong(0.3, 0.2, 0.0) == 0.0
    # margin 0, spread halved in variance: E Φ(-|Z|), Z standard normal, is a quarter
    assert chance_of_wrong(0.0, math.sqrt(2), 1.0) == pytest.approx(0.25, abs=0.01)


def test_margins_point_the_right_way():
    assert Decision("tpot", limit=20.0).log_margin(30.0) > 0
    assert Decision("throughput", limit=1000.0).log_margin(2000.0) < 0
    rival = Decision("throughput", against=SCENARIO)
    assert rival.log_margin(1000.0, 1500.0) > 0
    assert rival.log_margin(1000.0, 1500.0, gpus=0.5) < 0  # on half the GPUs


def test_a_decision_on_tpot_measures_decodes_and_one_on_ttft_prompts():
    tpot = picks(Decision("tpot", limit=8.0), margin=0.02)
    ttft = picks(Decision("ttft", limit=60.0), margin=0.02)
    assert tpot[0].load.output_tokens > 1
    assert "decide wrongly whether tpot is at most 8 ms" in tpot[0].why
    lone = [p for p in ttft if p.load.output_tokens == 1]
    assert lone
    assert lone[0].load.input_tokens >= TARGET.input_tokens / 4


def test_a_clear_decision_needs_no_run():
    assert picks(Decision("tpot", limit=1000.0), margin=-4.0) == []


def test_a_run_that_cannot_tell_the_two_apart_is_not_chosen():
    """The same deployment twice: whatever is measured, their difference stays the models' own."""
    decision = Decision("tpot", against=SCENARIO)
    loads = [*candidates(TARGET, 64), TARGET]
    design = Design(HARDWARE, data(), loads, decision, data(), 0.0)
    parameters = design.spread() ** 2
    alone = Design(HARDWARE, data(), loads, Decision("tpot")).spread() ** 2
    assert parameters < alone  # what both share cancels
    prompts = [n for n, load in enumerate(loads[:-1]) if load.output_tokens == 1]
    for load in prompts:  # say much of parameters that both share, nothing of the difference
        assert design.doubt(design.with_load(load)) == pytest.approx(design.doubt(), abs=1e-3)
    chosen = picks(decision, 0.0, data())
    assert all(p.load.output_tokens > 1 for p in chosen)


def test_what_only_one_of_two_depends_on_is_measured():
    """MXFP4 experts by Triton against Marlin: the planned one's experts decide."""
    rival = data(kernel="marlin")
    decision = Decision("tpot", against=MARLIN)
    chosen = picks(decision, 0.03, rival)
    assert chosen
    assert "which deployment has the better tpot" in chosen[0].why
    assert any("triton-mxfp4" in pick.why for pick in chosen)


def options(**values) -> ExperimentOptions:
    return ExperimentOptions(input=512, output=64, concurrency=8, minutes=4, **values)


def test_a_plan_answers_the_question_asked(tmp_path):
    path = tmp_path / "plan.toml"
    plan = plan_of(SCENARIO, options(metric="tpot", against="tp=2"), path, held_out=True)
    assert "which deployment has the better tpot" in plan.runs[-1].why
    limit = plan_of(SCENARIO, options(metric="tpot", limit=7.5), path, held_out=True)
    assert "whether tpot is at most 7.5 ms" in limit.runs[-1].why


def test_a_plan_and_its_calibration_may_travel_together(tmp_path):
    shipped = CALIBRATIONS / "h100_sxm-vllm-0.24.calibration.json"
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        (folder / "plans").mkdir(parents=True)
        shutil.copy(shipped, folder / "host.json")
    given = options(calibration=here / "host.json")
    plan = plan_of(SCENARIO, given, here / "plans" / "plan.toml", held_out=True)
    assert plan.calibration.path == "../host.json"
    assert hardware_of(plan, there / "plans") == hardware_of(plan, here / "plans")
    (there / "host.json").rename(there / "plans" / "host.json")
    assert hardware_of(plan, there / "plans") == hardware_of(plan, here / "plans")
    (there / "plans" / "host.json").unlink()
    with pytest.raises(InputError, match="not there, nor beside the plan"):
        hardware_of(plan, there / "plans")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"against": "tp"}, "no option=value"),
        ({"against": "nonsense=2"}, "no option=value"),
        ({"against": "tp=x"}, "tp is x"),
        ({"against": "tp=2", "limit": 3.0}, "one of them"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(tmp_path, given, message):
    with pytest.raises(InputError, match=message):
        plan_of(SCENARIO, options(**given), tmp_path / "plan.toml", held_out=True)
