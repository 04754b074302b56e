"""`Estimate`: a predicted figure together with how far to trust it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Basis = Literal["measured here", "measured elsewhere", "interpolated", "first principles"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """One predicted figure.

    `low` and `high` bound it once intervals are calibrated; until then they are None and the figure
    is printed as uncalibrated. `basis` says what the kernel constants behind it rest on: a
    measurement of this device and kernel ("measured elsewhere" when somebody else made it),
    a fit between measurements, or nominal figures and analogy.
    """

    value: float
    basis: Basis
    low: float | None = None
    high: float | None = None

    @property
    def calibrated(self) -> bool:
        """Whether an interval stands behind the value."""
        return self.low is not None and self.high is not None
