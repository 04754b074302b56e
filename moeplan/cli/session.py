"""What most commands need first: hardware, and a prepared deployment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from moeplan.errors import DoesNotFitError

if TYPE_CHECKING:
    from moeplan.cost.predictor import Prepared
    from moeplan.deployment import Deployment
    from moeplan.hardware_specs.schema import Hardware
    from moeplan.models import ModelEntry
    from moeplan.scenario import Scenario


def read_hardware(calibration: Path | None) -> Hardware:
    """All known hardware, with the constants that a calibration file overrides.

    Raises `RecordError` where the file is no calibration.
    """
    from moeplan.hardware_specs import load_hardware

    if calibration is None:
        return load_hardware()
    from moeplan.calibration import load_calibration

    return load_calibration(calibration).applied_to(load_hardware())


def prepare_scenario(
    scenario: Scenario, hardware: Hardware, longest: int, sigma: float | None = None
) -> Prepared:
    """Deployment of a scenario with settings, kernels and memory, for sequences of that length.

    `sigma` is the spread of expert popularity of the traffic, None for that of mixed traffic.
    Raises `DoesNotFitError` with the smallest deployment that would do.
    """
    from moeplan.cost.predictor import prepare
    from moeplan.models import load_model
    from moeplan.scenario import build_deployment

    deployment = build_deployment(scenario, hardware)
    try:
        return prepare(deployment, hardware, longest, **({} if sigma is None else {"sigma": sigma}))
    except DoesNotFitError as error:
        model = load_model(scenario.model)
        raise with_smallest_fit(error, deployment, model, hardware, longest) from None


def with_smallest_fit(
    error: DoesNotFitError,
    deployment: Deployment,
    model: ModelEntry,
    hardware: Hardware,
    longest: int,
) -> DoesNotFitError:
    """The error, completed by the smallest deployment that would hold the model."""
    from moeplan.planner.smallest import MOST_GPUS, smallest_fit

    own = deployment.checkpoint
    others = [form for form in model.checkpoints if form != own]
    found = smallest_fit(deployment, [own, *others], hardware, longest)
    if found is None:
        hint = f"no deployment of up to {MOST_GPUS} {deployment.device} would hold it"
    else:
        placement = found.deployment.placement
        hint = (
            f"the smallest that fits: {found.deployment.checkpoint.name} on {placement.gpus}× "
            f"{deployment.device} with {placement}"
        )
    return DoesNotFitError(f"{error}; {hint}", error.missing_gib)
