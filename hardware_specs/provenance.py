"""What every figure of the hardware data carries: a grade and a source."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Grade = Literal["measured", "nominal", "fit", "derived", "estimate", "general knowledge"]
WeightFormat = Literal["bf16", "fp8", "fp8_block", "nvfp4", "nvfp4_a16", "mxfp4", "int4"]
KVFormat = Literal["bf16", "fp8"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _rising(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    if not points or any(b[0] <= a[0] for a, b in pairwise(points)):
        raise ValueError("a curve needs points (x, y) whose x rises from one to the next")
    return points


Curve = Annotated[list[tuple[Positive, Positive]], AfterValidator(_rising)]
"""Points (x, y) with rising x, interpolated in log-log, constant beyond the ends."""


class Strict(BaseModel):
    """Unknown keys are errors: a typo in a data file must not become a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Provenance(Strict):
    """Where the numbers of a table come from."""

    grade: Grade
    source: str
    date: str | None = None
    samples: int | None = None
    """Measurements behind a fit."""
    error_median: float | None = None
    """Median absolute relative error of the fit on its own samples."""
    error_p90: float | None = None
    note: str | None = None


class Figure(Provenance):
    """One number with its provenance."""

    value: NonNegative
