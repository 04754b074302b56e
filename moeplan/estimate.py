"""`Estimate`: a predicted figure together with how far to trust it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Basis = Literal["measured here", "measured elsewhere", "interpolated", "first principles"]

COVERED = 0.8
"""Share of measurements that an interval is meant to hold."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """One predicted figure.

    `low` and `high` hold it with a probability of `COVERED`; None where nothing says how far off it
    may be. `basis` says what the kernel constants behind it rest on: a measurement of this device
    and kernel ("measured here" for the user's own calibration, "measured elsewhere" when somebody
    else made it), a fit between measurements, or nominal figures and analogy.
    """

    value: float
    basis: Basis
    low: float | None = None
    high: float | None = None
    interval_from: str | None = None
    """What the interval rests on, in words: a calibration, or the errors of published runs."""
    caveat: str | None = None
    """Why a calibration that the prediction uses does not speak for it; None where there is none,
    or it does."""

    @property
    def bounded(self) -> bool:
        """Whether an interval stands beside the value."""
        return self.low is not None and self.high is not None

    @property
    def calibrated(self) -> bool:
        """Whether the interval is that of a calibration to measured steps."""
        return self.bounded and self.basis == "measured here"
