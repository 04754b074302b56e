"""What a deployment costs: dollars per million output tokens, watts, joules per token."""

from __future__ import annotations

from dataclasses import dataclass

from moeplan.errors import InputError
from moeplan.hardware_specs.schema import Hardware, Price

HOURS_PER_YEAR = 8766.0
SECONDS_PER_HOUR = 3600.0
TOKENS = 1e6
WATTS_PER_KILOWATT = 1000.0


@dataclass(frozen=True, slots=True)
class Pricing:
    """How GPU time is paid for.

    Either an hourly price, or a purchase written off over `years` of continuous use plus the
    electricity of `watts` at `usd_per_kwh`. None takes the dated price of the data files.
    """

    usd_per_gpu_hour: float | None = None
    purchase_usd: float | None = None
    years: float = 3.0
    usd_per_kwh: float = 0.15

    def __post_init__(self) -> None:
        for name in ("usd_per_gpu_hour", "purchase_usd", "years", "usd_per_kwh"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1e9:
                raise InputError(f"{name} is {value}; give a positive number of dollars or years")


@dataclass(frozen=True, slots=True)
class HourlyCost:
    """Dollars of one GPU for an hour, and where the figure comes from."""

    usd_per_gpu_hour: float
    basis: str


def hourly_cost(hardware: Hardware, device: str, pricing: Pricing) -> HourlyCost | None:
    """Price of one GPU-hour; None where neither the user nor the data name one."""
    if pricing.usd_per_gpu_hour is not None:
        return HourlyCost(pricing.usd_per_gpu_hour, "as given")
    if pricing.purchase_usd is None:
        rent = _price(hardware, device, "on_demand_usd_per_hour")
        if rent:
            return HourlyCost(rent.value, f"on demand, {rent.source}, {rent.date}")
        bought = _price(hardware, device, "purchase_usd")
        if not bought:
            return None
        return _owned(hardware, device, bought.value, pricing, f"{bought.source}, {bought.date}")
    return _owned(hardware, device, pricing.purchase_usd, pricing, "as given")


def _owned(
    hardware: Hardware, device: str, purchase_usd: float, pricing: Pricing, basis: str
) -> HourlyCost:
    kilowatts = serving_watts(hardware, device) / WATTS_PER_KILOWATT
    hourly = purchase_usd / (pricing.years * HOURS_PER_YEAR) + kilowatts * pricing.usd_per_kwh
    years = f"owned over {pricing.years:g} years at {pricing.usd_per_kwh:g} $/kWh"
    return HourlyCost(hourly, f"{years}; {basis}")


def _price(hardware: Hardware, device: str, kind: str) -> Price | None:
    return next((p for p in hardware.prices if p.device == device and p.kind == kind), None)


def serving_watts(hardware: Hardware, device: str) -> float:
    """Watts of one GPU under load: measured in decode where known, else its power limit."""
    power = hardware.devices[device].power
    return (power.decode_w or power.tdp_w).value


def usd_per_million_output_tokens(
    cost: HourlyCost | None, gpus: int, output_tokens_per_second: float
) -> float | None:
    """Dollars of a million output tokens, prompt tokens included in the bill."""
    if cost is None or output_tokens_per_second <= 0:
        return None
    tokens_per_hour = output_tokens_per_second * SECONDS_PER_HOUR
    return cost.usd_per_gpu_hour * gpus / tokens_per_hour * TOKENS
