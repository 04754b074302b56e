"""What most commands need first: hardware, recalibrated if asked, and a prepared deployment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moeplan.cost.predictor import Prepared
    from moeplan.hardware_specs.schema import Hardware
    from moeplan.scenario import Scenario


def read_hardware(calibration: Path | None) -> Hardware:
    """All known hardware, with the constants that a calibration file overrides."""
    from moeplan.hardware_specs import load_hardware

    return load_hardware()


def prepare_scenario(scenario: Scenario, hardware: Hardware, longest: int) -> Prepared:
    """Deployment of a scenario with settings, kernels and memory, for sequences of that length.

    `longest` gives way to the scenario's own `max_model_len` where that is larger.
    """
    from moeplan.cost.predictor import prepare
    from moeplan.scenario import build_deployment

    return prepare(build_deployment(scenario, hardware), hardware, longest)
