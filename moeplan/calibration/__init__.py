"""Calibration: fit the hardware parameters that measured steps identify, and keep the rest.

observations ──► fit_steps ──► Calibration (a JSON file) ──► Hardware.with_overrides
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moeplan.calibration.file import Calibration, load_calibration, save_calibration
    from moeplan.calibration.fit import fit_steps
    from moeplan.calibration.observations import Dataset, StepObservation

__all__ = [
    "Calibration",
    "Dataset",
    "StepObservation",
    "fit_steps",
    "load_calibration",
    "save_calibration",
]

_HOMES = {
    "Calibration": "file",
    "Dataset": "observations",
    "StepObservation": "observations",
    "fit_steps": "fit",
    "load_calibration": "file",
    "save_calibration": "file",
}


def __getattr__(name: str) -> Any:
    """Import on first use: fitting needs SciPy, applying a calibration does not."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
