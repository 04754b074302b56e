"""Runs predicted anew and summed up by engine; the served evidence that the repository holds."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from moeplan.calibration import load_calibration
from moeplan.hardware_specs import load_hardware
from moeplan.validate.again import KV, Again, Figure, predict_again, shares
from moeplan.validate.archive import unpack
from moeplan.validate.compare import compare
from moeplan.validate.engines import engine_name, summarise
from moeplan.validate.measured import read_store
from moeplan.validate.routing import Touched, counted_sigma

ROOT = Path(__file__).parents[1]


class Campaign(NamedTuple):
    """Served runs of one host."""

    folder: str
    calibration: str
    usable: int
    spoilt: int
    """Runs of which each repeat had a kernel compiled."""


CAMPAIGNS = (
    Campaign("2026-11-27-served", "h100_sxm-vllm-0.24.calibration.json", 50, 3),
    Campaign("2026-11-27-h200", "h200-vllm-0.24.calibration.json", 67, 1),
)


@pytest.fixture(scope="module", params=CAMPAIGNS, ids=lambda campaign: campaign.folder)
def evidence(request, tmp_path_factory):
    """The campaign, its stored runs, and the folder that their plans are relative to."""
    folder = tmp_path_factory.mktemp("served")
    archive = ROOT / "validate" / "evidence" / request.param.folder / "runs.tar.xz"
    unpack(archive, folder / "runs")
    return request.param, read_store(folder / "runs"), folder


def test_errors_are_those_of_the_role_and_the_cache_counts_once_an_engine():
    def run(key, role, before, anew):
        figures = {"tpot_ms_mean": Figure("tpot_ms_mean", before, anew, 10.0)}
        return Again(key, role, figures | {KV: Figure(KV, 90.0, 99.0, 100.0)})

    found = shares([run("a", "fit", 12.0, 10.0), run("b", "held-out", 8.0, 11.0)])
    by = {(share.role, share.name): share for share in found}
    assert by["fit", "tpot_ms_mean"].median_before == pytest.approx(0.2)
    assert by["held-out", "tpot_ms_mean"].p90_anew == pytest.approx(0.1)
    assert by["engines", KV].runs == 1


@pytest.mark.parametrize(("distinct", "sigma"), [(51.0, 0.0), (45.3, 0.8), (8.0, 4.0)])
def test_the_spread_counted_is_the_one_that_touches_as_many_experts(distinct, sigma):
    about = {"num_experts": 128, "experts_per_token": 4}
    touched = [Touched(1, 10, 4.0, 4.0), Touched(16, 10, distinct, 45.3)]
    assert counted_sigma(touched, about) == pytest.approx(sigma, abs=0.02)
    assert counted_sigma(touched[:1], about) is None


@pytest.mark.slow
def test_the_served_evidence_holds_what_the_page_says_of_it(evidence):
    campaign, found, _ = evidence
    assert len(found.runs) == campaign.usable
    assert len(found.problems) == campaign.spoilt
    assert all("JIT compilation" in problem for problem in found.problems)
    assert {run.facts.version for run in found.runs} == {"0.24.0"}
    for run in found.runs:
        assert run.repeats[0]["result"]["completed"] == run.run.load.num_prompts
        assert run.plan.written < run.engine["started"]


@pytest.mark.slow
def test_the_simulated_schedule_is_the_recorded_one(evidence):
    _, found, folder = evidence
    hardware = load_hardware()
    runs = [(run, folder) for run in found.runs if "c8-" in run.key or "full-" in run.key]
    for engine in summarise(runs, hardware, hardware):
        assert engine.preemptions_simulated == engine.preemptions
        assert engine.steps_equal == engine.steps


@pytest.mark.slow
def test_held_out_runs_are_within_the_goals_after_calibration(evidence):
    campaign, found, folder = evidence
    file = ROOT / "hardware_specs" / "calibrations" / campaign.calibration
    hardware = load_calibration(file).applied_to(load_hardware())
    held = [run for run in found.runs if run.run.role == "held-out"]
    again = [predict_again(run, folder, hardware) for run in held]
    assert {engine_name(run.plan) for run in held} == {engine_name(r.plan) for r in found.runs}
    for name in ("output_tok_s", "tpot_ms_mean"):
        errors = np.abs([run.figures[name].error_anew for run in again])
        assert np.median(errors) <= 0.04
        assert np.quantile(errors, 0.9) <= 0.12
    assert max(abs(run.figures[KV].error_anew) for run in again) <= 0.02


@pytest.mark.slow
def test_runs_are_priced_with_the_calibration_beside_their_plan_or_say_that_it_is_missing(
    evidence, tmp_path
):
    campaign, found, _ = evidence
    planned = next((run for run in found.runs if run.plan.calibration), None)
    if planned is None:
        assert campaign.folder == "2026-11-27-served"  # predicted with shipped constants
        return
    plans = ROOT / "validate" / "evidence" / campaign.folder / "plans"
    beside, astray = compare(planned, plans), compare(planned, tmp_path)
    assert not any("priced" in note for note in beside.notes)
    assert any("without a calibration" in note for note in astray.notes)
    assert beside.step_errors != astray.step_errors
