"""Constants outside of the engine core, fitted to arrivals and ways back of known ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from moeplan.calibration import load_calibration
from moeplan.calibration.front_end import Burst, FrontEndData, WayBack, fit_front_end
from moeplan.cost.predictor import prepare
from moeplan.cost.used_tables import used_tables
from moeplan.hardware_specs import load_hardware
from moeplan.scenario import Scenario, build_deployment
from moeplan.simulation.front_end import STREAM_LOOPS, FrontEndCosts, burst_arrivals_s

HARDWARE = load_hardware()
SHIPPED = (
    Path(__file__).parents[1] / "hardware_specs/calibrations/h100_sxm-vllm-0.24.calibration.json"
)
TRUE = FrontEndCosts(fixed_s=9e-3, turn_s=6.5e-4, prompt_token_s=2.6e-6)
TOKEN_S, BESIDE_S = 90e-6, 4e-3


@pytest.fixture(scope="module")
def tables():
    scenario = Scenario(model="gpt-oss-20b", device="h100_sxm")
    return used_tables(prepare(build_deployment(scenario, HARDWARE), HARDWARE, 8192))


def burst(count: int, tokens: int, looks_ms: float = 0.0) -> Burst:
    """Arrivals in a core that looks so often; at once where it waits for them."""
    arrived = np.array(burst_arrivals_s(TRUE, count, tokens)) - BESIDE_S
    if not looks_ms:
        return Burst(f"{count}x{tokens}", tokens, tuple(arrived), tuple(arrived))
    looks = np.ceil(arrived / (looks_ms * 1e-3)) * looks_ms * 1e-3
    absent, taken = looks - looks_ms * 1e-3, looks
    absent[0] = taken[0] = arrived[0]
    return Burst(f"{count}x{tokens}", tokens, tuple(absent), tuple(taken))


def ways(*counts: int) -> tuple[WayBack, ...]:
    return tuple(WayBack(f"c{n}", n, 1.2e-3 + TOKEN_S * n) for n in counts)


def fields(fit) -> dict:
    return {p.address.rsplit("/", 1)[-1]: p for p in fit.parameters}


def test_known_constants_are_found_again_from_what_a_busy_core_saw(tables):
    bursts = (burst(1, 1024), burst(4, 8192), burst(32, 1024, 8), burst(128, 128, 20))
    found = fields(
        fit_front_end(HARDWARE, tables, FrontEndData(bursts, ways(1, 32, 128), BESIDE_S))
    )
    assert all(p.determined for p in found.values())
    assert found["ttft_us"].value == pytest.approx(9000, rel=0.1)
    assert found["request_us"].value == pytest.approx(650, rel=0.1)
    assert found["prompt_token_us"].value == pytest.approx(2.6, rel=0.2)
    assert found["stream_us_per_token"].value == pytest.approx(90 / STREAM_LOOPS, rel=0.1)


def test_what_the_runs_do_not_show_keeps_its_prior_and_says_so(tables):
    fit = fit_front_end(HARDWARE, tables, FrontEndData((burst(1, 512),), (), BESIDE_S))
    found = fields(fit)
    assert found["ttft_us"].determined
    for name in ("request_us", "stream_us_per_token"):
        assert not found[name].determined
        assert found[name].value == found[name].prior
    assert len(fit.covariance) == len(fit.overrides)


def test_an_arrival_between_two_looks_is_no_error():
    costs = replace(TRUE, turn_s=TRUE.turn_s * 1.02)
    seen = burst(64, 128, looks_ms=200)
    assert not seen.errors(costs, BESIDE_S)[1:].any()
    assert burst(64, 128).errors(costs, BESIDE_S)[1:].all()


def test_ways_back_alone_determine_what_a_streamed_token_takes(tables):
    found = fields(fit_front_end(HARDWARE, tables, FrontEndData((), ways(1, 32, 128), BESIDE_S)))
    assert found["stream_us_per_token"].determined
    assert found["stream_us_per_token"].value == pytest.approx(90 / STREAM_LOOPS, rel=0.1)
    for name in ("ttft_us", "request_us", "prompt_token_us"):
        assert not found[name].determined
        assert found[name].value == found[name].prior


def test_nothing_is_fitted_to_nothing(tables):
    fit = fit_front_end(HARDWARE, tables, FrontEndData((), (), 0.0))
    assert not fit.parameters
    assert not fit.overrides


def test_a_calibration_written_before_there_was_such_a_fit_still_loads():
    found = load_calibration(SHIPPED)
    assert any(address.endswith("/ttft_us") for address in found.overrides)
    HARDWARE.with_overrides(found.overrides)
