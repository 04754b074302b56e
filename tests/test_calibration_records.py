"""Calibration from what a client saw: only figures that one kind of step makes up count."""

from __future__ import annotations

import pytest
from support.cli import refuse, run

from moeplan.calibration import load_calibration
from moeplan.calibration.from_records import LEAST_SHARE, calibrate_records, client_steps
from moeplan.errors import InputError
from moeplan.hardware_specs import load_hardware
from moeplan.records.prediction import CachingPredictor, run_record
from moeplan.records.reader import write_records
from moeplan.records.record import RunRecord
from moeplan.records.setup import deployment_of
from moeplan.simulation import metrics

HARDWARE = load_hardware()
MOE = "kernels/h100_sxm/moe/triton-bf16/bandwidth_tb_per_s"
SLOWER = HARDWARE.with_overrides({MOE: 0.75 * HARDWARE.parameters()[MOE][0]})
"""A machine whose experts are read at three quarters of the shipped rate."""


def record(concurrency: int, tokens: tuple[int, int] = (256, 1024), hardware=SLOWER, **changes):
    """What vllm bench would have measured on that machine."""
    fields = {
        "id": f"{tokens[0]}-{tokens[1]}-c{concurrency}",
        "source": {"title": "a simulated client"},
        "engine": {"name": "vllm", "version": "0.24.0"},
        "tool": "vllm bench serve",
        "model": "Qwen/Qwen3-30B-A3B",
        "architecture": "qwen3-30b-a3b",
        "weight_format": "bf16",
        "hardware": "h100_sxm",
        "gpus": 1,
        "workload": {
            "mode": "closed_loop",
            "input_tokens": tokens[0],
            "output_tokens": tokens[1],
            "concurrency": concurrency,
            "num_prompts": 2 * concurrency,
        },
        "measured": {},
    } | changes
    bare = RunRecord.model_validate(fields)
    setup = deployment_of(bare, hardware)
    result = run_record(bare, setup, CachingPredictor(hardware)).result
    seen = {
        "ttft_ms_mean": 1e3 * metrics.ttft(result).mean,
        "tpot_ms_mean": 1e3 * metrics.tpot(result).mean,
        "itl_ms_p50": 1e3 * metrics.itl(result).p50,
    }
    return bare.model_copy(update={"measured": seen})


SWEEP = [record(concurrency) for concurrency in (1, 2, 4, 8, 16, 32)]


def batches(steps) -> set[tuple[int, int]]:
    """Sequences that decode and tokens of prompts of every step that was found."""
    return {
        (len(o.batch.decode_contexts), sum(new for new, _ in o.batch.prefill_chunks))
        for data in steps.datasets
        for o in data.observations
    }


def test_a_slower_memory_is_found_from_outside():
    found, steps = calibrate_records(SWEEP, HARDWARE)
    (parameter,) = [p for p in found.parameters if p.address == MOE]
    assert parameter.determined
    assert parameter.value / parameter.prior == pytest.approx(0.75, rel=0.07)
    assert found.after.median_error < 0.02 < found.before.median_error
    assert found.sources == steps.used == sorted(r.id for r in SWEEP)


def test_records_that_agree_change_nothing():
    agreeing = [record(concurrency, hardware=HARDWARE) for concurrency in (1, 8)]
    found, _ = calibrate_records(agreeing, HARDWARE)
    for parameter in found.parameters:
        assert parameter.value == pytest.approx(parameter.prior, rel=0.01)


def test_a_lone_long_prompt_is_a_prefill_step_and_a_short_one_is_not():
    long = record(1, (16384, 64), settings={"max_num_batched_tokens": 16384})
    steps = client_steps([long, record(1, (64, 64))], HARDWARE)
    assert batches(steps) == {(1, 0), (0, 16384)}


def test_a_prompt_beyond_the_token_budget_is_no_single_step():
    long = record(1, (8192, 64), settings={"max_num_batched_tokens": 2048})
    assert batches(client_steps([long], HARDWARE)) == {(1, 0)}


def test_crowds_whose_steps_are_mixed_say_nothing_of_one_kind():
    mixed = record(64, (4096, 32))
    steps = client_steps([mixed], HARDWARE)
    assert not steps.used
    assert f"less than {LEAST_SHARE:.0%}" in steps.unused[mixed.id]
    with pytest.raises(InputError, match="no record shows the time of a step"):
        calibrate_records([mixed], HARDWARE)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"parallelism": {"replicas": 2}, "gpus": 2}, "several engines"),
        ({"hardware": None}, "hardware not said"),
    ],
)
def test_runs_that_hide_their_steps_are_named(changes, says):
    hidden = RunRecord.model_validate(SWEEP[0].model_dump(exclude_none=True) | changes)
    assert says in client_steps([hidden], HARDWARE).unused[hidden.id]


def test_the_command_calibrates_from_records(tmp_path):
    records, out = tmp_path / "runs.jsonl", tmp_path / "calibration.json"
    write_records(records, [*SWEEP[:3], record(64, (4096, 32))])
    shown = run("calibrate", str(records), "--out", str(out))
    assert "not used: 4096-32-c64" in shown.stderr
    assert load_calibration(out).sources == [r.id for r in SWEEP[:3]]
    step = ("explain", "qwen3-30b-a3b", "--device", "h100_sxm", "--batch", "8")
    assert run(*step, "--calibration", str(out)).stdout != run(*step).stdout


def test_the_command_refuses_records_without_steps(tmp_path):
    records = tmp_path / "runs.jsonl"
    write_records(records, [record(64, (4096, 32))])
    line = refuse("calibrate", str(records), "--out", str(tmp_path / "calibration.json"))
    assert "no record shows the time of a step" in line
