"""Planning by information: what is measured narrows what is decided, and costs time."""

import pytest

from moeplan.calibration import Dataset
from moeplan.errors import InputError
from moeplan.hardware_specs import load_hardware
from moeplan.scenario import Scenario, build_deployment
from moeplan.validate.information import Design
from moeplan.validate.planning import candidates, choose_runs
from moeplan.validate.workloads import ClosedLoop

HARDWARE = load_hardware()
DATA = Dataset(
    build_deployment(Scenario(model="gpt-oss-20b", device="h100_sxm"), HARDWARE), 2048, 0.8, ()
)
TARGET = ClosedLoop(concurrency=16, input_tokens=1024, output_tokens=256, num_prompts=160)


@pytest.fixture(scope="module")
def chosen():
    return choose_runs(HARDWARE, DATA, TARGET, minutes=10, repeats=2)


def test_runs_fit_into_the_time_and_the_workload_is_held_out(chosen):
    picks, held = chosen
    assert sum(p.minutes for p in picks) + held.minutes <= 10
    assert held.load == TARGET
    assert TARGET not in [p.load for p in picks]


def test_the_best_a_minute_comes_first_and_says_why(chosen):
    picks, _ = chosen
    assert "narrows your workload's throughput" in picks[0].why
    assert any("kernels/" in p.why for p in picks)


def test_batches_around_that_of_the_workload_are_measured(chosen):
    picks, _ = chosen
    batches = {p.load.concurrency for p in picks}
    assert min(batches) < TARGET.concurrency <= max(batches)


def test_less_time_means_fewer_runs(chosen):
    picks, held = chosen
    fewer, _ = choose_runs(HARDWARE, DATA, TARGET, minutes=held.minutes + 0.4, repeats=2)
    assert len(fewer) < len(picks)


def test_no_time_for_the_workload_is_refused():
    with pytest.raises(InputError, match="the workload alone takes"):
        choose_runs(HARDWARE, DATA, TARGET, minutes=0.1, repeats=2)


def test_every_measurement_narrows():
    loads = [*candidates(TARGET, 64), TARGET]
    design = Design(HARDWARE, DATA, loads)
    before = design.spread()
    for load in range(len(loads) - 1):
        assert design.spread(design.with_load(load)) <= before + 1e-12
    design.take(0)
    again = design.spread(design.with_load(0))
    first_gain, second_gain = before - design.spread(), design.spread() - again
    assert second_gain <= first_gain + 1e-12
