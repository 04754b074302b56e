"""Predicted against measured steps of the H100 evidence: what agrees stays in agreement."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import pytest

from moeplan.cost.routing import distinct_experts
from moeplan.hardware_specs import load_hardware
from moeplan.validate.gpu.compare_steps import (
    StepComparison,
    checked_sigma,
    compare_memory,
    compare_steps,
    main,
    prepare_engine,
)
from moeplan.validate.gpu.tables import load

EVIDENCE = Path(__file__).parents[1] / "validate" / "evidence" / "2026-11-27-h100"
HARDWARE = load_hardware()
LARGEST_GRAPH = 256


@pytest.fixture(scope="module")
def steps() -> list[StepComparison]:
    return compare_steps(EVIDENCE, HARDWARE)


def errors(steps: list[StepComparison]) -> list[float]:
    return [abs(step.ratio - 1) for step in steps]


def test_every_recorded_step_is_compared(steps: list[StepComparison]) -> None:
    assert len(steps) == len(load(EVIDENCE / "steps.jsonl"))
    assert all(step.predicted_s > 0 for step in steps)


def test_decode_steps_agree_under_the_routing_that_was_counted(steps: list[StepComparison]) -> None:
    for routing, median, p90 in (("uniform", 0.03, 0.08), ("skewed", 0.06, 0.12)):
        found = errors([s for s in steps if s.kind == "decode" and s.routing == routing])
        assert len(found) >= 28
        assert statistics.median(found) < median
        assert np.percentile(found, 90) < p90


def test_long_prompts_agree_and_short_ones_take_their_launches(
    steps: list[StepComparison],
) -> None:
    alone = [step for step in steps if step.kind == "prefill"]
    assert statistics.median(errors([s for s in alone if not s.launch_bound])) < 0.05
    launched = errors([s for s in alone if s.launch_bound and s.prefill_tokens > LARGEST_GRAPH])
    assert len(launched) == 18
    assert statistics.median(launched) < 0.1
    in_graphs = [s for s in alone if s.prefill_tokens <= LARGEST_GRAPH]
    assert all(s.ratio < 1 for s in in_graphs)  # the host's start in an idle engine is not theirs


def test_a_prompt_in_chunks_is_the_sum_of_its_steps(steps: list[StepComparison]) -> None:
    whole = {s.engine: s for s in steps if s.kind == "prompt_in_chunks"}
    first = {s.engine: s for s in steps if s.kind == "prefill" and s.prefill_tokens == 8192}
    for engine, step in whole.items():
        assert step.prefill_tokens == 32_000
        assert step.predicted_s > 3.5 * first[engine].predicted_s


def test_kv_tokens_agree_with_the_log() -> None:
    found = compare_memory(EVIDENCE, HARDWARE)
    assert len(found) == 6
    for engine in found:
        measured, predicted = engine.kv_tokens
        assert predicted == pytest.approx(measured, rel=0.08), engine.engine


def test_skew_is_that_of_the_count() -> None:
    checks = load(EVIDENCE / "routing.jsonl")
    assert checked_sigma(checks, "qwen3-30b-a3b", "bf16", "uniform") == 0
    sigma = checked_sigma(checks, "qwen3-30b-a3b", "bf16", "skewed")
    assert float(distinct_experts(128, 8, sigma, 16)) == pytest.approx(48.3, rel=0.06)


def test_graphs_are_those_of_the_engine() -> None:
    engine = load(EVIDENCE / "engines.jsonl")[0]
    prepared = prepare_engine(engine, HARDWARE, 0.0)
    assert prepared.engine.padded_tokens(12) == 16
    assert prepared.engine.padded_tokens(96) == 128


def test_the_command_prints_every_table(capsys: pytest.CaptureFixture[str]) -> None:
    main([str(EVIDENCE)])
    printed = capsys.readouterr().out
    for title in ("Steps", "Errors by kind of step", "Decode steps by engine", "Memory"):
        assert f"### {title}\n" in printed
    assert "| gpt-oss-120b mxfp4 | uniform | decode | 64 | 152 | 0 | 25.16 |" in printed


def test_a_folder_without_steps_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main([str(tmp_path)])
    assert left.value.code == 2
    assert str(tmp_path) in capsys.readouterr().err
