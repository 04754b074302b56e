"""How step times respond to parameters: derivatives of log(seconds) by log(value)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from moeplan.calibration.observations import Dataset
from moeplan.calibration.parameters import prepared
from moeplan.cost.batch import StepBatch
from moeplan.hardware_specs.schema import Hardware

_NUDGE = 0.02


def log_responses(
    hardware: Hardware, data: Dataset, values: Mapping[str, float], batches: Sequence[StepBatch]
) -> np.ndarray:
    """d log(step seconds) / d log(parameter), shape (batches, parameters).

    `values` are what the parameters stand at, by address. One-sided differences: a step that waits
    for its host responds to nothing that makes the GPU a little slower.
    """
    usual = step_seconds(hardware, data, batches)
    columns = []
    for address, value in values.items():
        nudged = hardware.with_overrides({address: value * math.exp(_NUDGE)})
        columns.append(np.log(step_seconds(nudged, data, batches) / usual) / _NUDGE)
    return np.array(columns).T.reshape(len(batches), len(values))


def step_seconds(hardware: Hardware, data: Dataset, batches: Sequence[StepBatch]) -> np.ndarray:
    """Seconds of these steps, shape (batches,)."""
    timer = prepared(hardware, data).timer
    return np.array([timer.step_seconds(batch) for batch in batches])
