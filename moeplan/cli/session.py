"""What most commands need first: hardware, recalibrated if asked, and a prepared deployment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from moeplan.errors import DoesNotFitError

if TYPE_CHECKING:
    from moeplan.cost.predictor import Prepared
    from moeplan.deployment import Deployment
    from moeplan.hardware_specs.schema import Hardware
    from moeplan.scenario import Scenario


def read_hardware(calibration: Path | None) -> Hardware:
    """All known hardware, with the constants that a calibration file overrides."""
    from moeplan.hardware_specs import load_hardware

    return load_hardware()


def prepare_scenario(scenario: Scenario, hardware: Hardware, longest: int) -> Prepared:
    """Deployment of a scenario with settings, kernels and memory, for sequences of that length.

    Raises `DoesNotFitError` with the smallest deployment that would do.
    """
    from moeplan.cost.predictor import prepare
    from moeplan.scenario import build_deployment

    deployment = build_deployment(scenario, hardware)
    try:
        return prepare(deployment, hardware, longest)
    except DoesNotFitError as error:
        hint = _what_would_fit(deployment, scenario.model, hardware, longest)
        raise DoesNotFitError(f"{error}; {hint}", error.missing_gib) from None


def _what_would_fit(deployment: Deployment, model: str, hardware: Hardware, longest: int) -> str:
    from moeplan.models import load_model
    from moeplan.planner.smallest import MOST_GPUS, smallest_fit

    own = deployment.checkpoint
    published = [c for c in load_model(model).checkpoints if c != own]
    found = smallest_fit(deployment, [own, *published], hardware, longest)
    if found is None:
        return f"no deployment of up to {MOST_GPUS} {deployment.device} would hold it"
    placement = found.deployment.placement
    return (
        f"the smallest that fits: {found.deployment.checkpoint.name} on {placement.gpus}× "
        f"{deployment.device} with {placement}"
    )
