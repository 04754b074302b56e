"""Prices by hand: rent, owned hardware, dollars per million tokens; limits in a user's words."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeplan.errors import InputError
from moeplan.hardware_specs import load_hardware
from moeplan.planner.money import Pricing, hourly_cost, usd_per_million_output_tokens
from moeplan.planner.slo import Limit, parse_limit

HARDWARE = load_hardware()


def test_rent_as_given():
    cost = hourly_cost(HARDWARE, "h100_sxm", Pricing(usd_per_gpu_hour=3.6))
    # 8 GPUs at 3.60 $/h are 28.80 $/h; 4,000 tok/s are 14.4 million tokens an hour.
    assert usd_per_million_output_tokens(cost, 8, 4000.0) == pytest.approx(2.0)
    assert cost.basis == "as given"


def test_owned_hardware_by_hand():
    pricing = Pricing(purchase_usd=8766.0, years=2.0, usd_per_kwh=0.5)
    power = HARDWARE.devices["gb10"].power
    watts = (power.decode_w or power.tdp_w).value
    # 8,766 $ over 2 × 8,766 hours are 0.50 $/h, and electricity on top.
    expected = 0.5 + watts / 1000 * 0.5
    assert hourly_cost(HARDWARE, "gb10", pricing).usd_per_gpu_hour == pytest.approx(expected)


def test_data_name_their_source_and_date():
    rent = hourly_cost(HARDWARE, "h100_sxm", Pricing())
    assert rent.usd_per_gpu_hour > 0
    assert "on demand" in rent.basis
    assert "20" in rent.basis
    assert "owned over" in hourly_cost(HARDWARE, "gb10", Pricing()).basis


def test_no_price_no_dollars():
    assert usd_per_million_output_tokens(None, 8, 100.0) is None


@pytest.mark.parametrize("field", ["usd_per_gpu_hour", "purchase_usd", "years", "usd_per_kwh"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, 1e12])
def test_absurd_prices_are_refused_by_name(field, value):
    with pytest.raises(InputError, match=field):
        Pricing(**{field: value})


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("2s", Limit("ttft", "mean", 2.0)),
        ("30ms", Limit("ttft", "mean", 0.03)),
        (" p99:1.5 s ", Limit("ttft", "p99", 1.5)),
        ("P90:250MS", Limit("ttft", "p90", 0.25)),
        ("mean:1e-1s", Limit("ttft", "mean", 0.1)),
    ],
)
def test_limits_in_words(text, limit):
    assert parse_limit("ttft", text) == limit


@pytest.mark.parametrize(
    "text",
    ["", "2", "2m", "-1s", "0s", "0ms", "nan", "nans", "inf s", "1e9s", "1.2.3s", "p95:2s", "s"],
)
def test_no_times_are_refused_with_the_option(text):
    with pytest.raises(InputError, match="--ttft"):
        parse_limit("ttft", text)


@given(st.floats(1e-6, 86_000.0), st.sampled_from(["mean", "p50", "p90", "p99"]))
def test_limits_read_back(seconds, statistic):
    limit = parse_limit("itl", f"{statistic}:{seconds!r}s".replace("e-0", "e-"))
    assert limit.statistic == statistic
    assert limit.seconds == pytest.approx(seconds)
    assert "ITL ≤" in str(limit)
