"""A fit to some recorded H100 steps predicts others: batches and engines that it has not seen."""

from pathlib import Path

import numpy as np
import pytest

from moeplan.calibration import Dataset
from moeplan.hardware_specs import load_hardware
from moeplan.validate.gpu.fit_check import (
    Checked,
    check_fit,
    errors_table,
    evidence_datasets,
)

EVIDENCE = Path(__file__).parents[1] / "validate" / "evidence" / "2026-11-27-h100"
HARDWARE = load_hardware()


@pytest.fixture(scope="module")
def datasets() -> list[Dataset]:
    return evidence_datasets(EVIDENCE, HARDWARE)


def of(datasets: list[Dataset], *runs: str) -> list[Dataset]:
    return [data for data in datasets if data.observations[0].run in runs]


def errors(checked: list[Checked], side: str) -> np.ndarray:
    return np.abs(np.expm1([getattr(item, side) for item in checked]))


def test_every_engine_and_routing_is_a_dataset(datasets: list[Dataset]) -> None:
    assert len(datasets) == 10
    assert {o.idle for data in datasets for o in data.observations} == {False, True}
    assert all(o.seconds > 0 for data in datasets for o in data.observations)


def test_shapes_left_out_are_predicted(datasets: list[Dataset]) -> None:
    some = of(datasets, "qwen3-30b-a3b bf16", "llama-3.1-8b bf16")
    checked = check_fit(HARDWARE, some, lambda _, place: place % 3 == 1)
    assert len(checked) > 15
    assert np.median(errors(checked, "after")) < 0.04
    assert np.quantile(errors(checked, "after"), 0.9) < 0.15
    assert np.quantile(errors(checked, "after"), 0.9) < np.quantile(errors(checked, "before"), 0.9)
    held = [item.inside for item in checked if item.inside is not None]
    assert len(held) > 15
    assert 0.65 <= np.mean(held) <= 1


def test_an_engine_left_out_is_predicted_by_others(datasets: list[Dataset]) -> None:
    """The smaller gpt-oss and a dense model know the larger gpt-oss."""
    some = of(datasets, "gpt-oss-20b mxfp4", "llama-3.1-8b bf16", "gpt-oss-120b mxfp4")
    checked = check_fit(HARDWARE, some, lambda run, _: run == "gpt-oss-120b mxfp4")
    assert {item.engine for item in checked} == {"gpt-oss-120b mxfp4"}
    assert np.median(errors(checked, "after")) < 0.05
    assert np.quantile(errors(checked, "after"), 0.9) < 0.2
    held = [item.inside for item in checked if item.inside is not None]
    assert 0.6 <= np.mean(held) <= 1


def test_the_table_names_engines_kinds_and_all() -> None:
    seen = [Checked("a", "decode", 0.1, 0.0, True), Checked("b", "a lone prompt", 0.2, 0.1)]
    text = errors_table(seen)
    assert "| all | 2 |" in text
    assert "100% of 1 |" in text
    assert "| decode | 1 | 10.5% |" in text
