"""Options that say what GPU time costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from moeplan.options import Options

if TYPE_CHECKING:
    from moeplan.planner.money import Pricing


class PriceOptions(Options):
    """Rent, or purchase and electricity."""

    usd_per_gpu_hour: float | None = Field(
        None, gt=0, le=1e6, allow_inf_nan=False, description="Rent.  [default: the dated price]"
    )
    purchase_usd: float | None = Field(
        None, gt=0, le=1e9, allow_inf_nan=False, description="Price of one GPU that you own."
    )
    years: float = Field(
        3.0, gt=0, le=100, allow_inf_nan=False, description="Years that a purchase is written off."
    )
    usd_per_kwh: float = Field(
        0.15, gt=0, le=100, allow_inf_nan=False, description="Electricity, for owned GPUs."
    )

    def pricing(self) -> Pricing:
        """These options as the planner takes them."""
        from moeplan.planner.money import Pricing

        return Pricing(self.usd_per_gpu_hour, self.purchase_usd, self.years, self.usd_per_kwh)
