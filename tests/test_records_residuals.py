"""Intervals from published errors hold what they promise, of sources they have not seen too."""

import math

import pytest
from typer.testing import CliRunner

from moeplan.cli import app
from moeplan.records import residuals as module
from moeplan.records.residuals import Residual, coverage, published_interval, residuals


def made(count: int, source: str = "a", spread: float = 0.1, **other) -> list[Residual]:
    """Residuals evenly spread from -spread to spread."""
    fields = {"device": "h100_sxm", "engine": "vllm", "model": "m", "family": "tpot"} | other
    return [
        Residual(source, log_ratio=spread * (2 * i / (count - 1) - 1), **fields)
        for i in range(count)
    ]


@pytest.fixture
def known(monkeypatch):
    def use(*groups: list[Residual]) -> None:
        rows = tuple(row for group in groups for row in group)
        monkeypatch.setattr(module, "residuals", lambda: rows)

    return use


def of(device: str = "h100_sxm", unseen: str | None = None):
    return published_interval("tpot", device, "vllm", "m", unseen)


def test_intervals_hold_what_they_promise_of_unseen_sources():
    found = {c.family: c for c in coverage()}
    assert {"tpot", "ttft", "throughput"} <= set(found)
    assert found["ttft"].rows > 200
    for family in found.values():
        assert 0.7 <= family.inside <= 0.9, family
    rows = sum(c.rows for c in found.values())
    assert sum(c.inside * c.rows for c in found.values()) / rows == pytest.approx(0.8, abs=0.05)


def test_what_ships_is_of_many_sources_and_finite():
    assert len({r.source for r in residuals()}) >= 15
    assert all(abs(r.log_ratio) < math.log(5) for r in residuals())


def test_the_middle_of_the_errors_is_the_interval(known):
    known(made(21, "a"), made(21, "b"), made(21, "c"))
    found = of()
    assert found.high == pytest.approx(0.08 * (1 + 1 / 3), rel=0.05)
    assert found.low == pytest.approx(-found.high)
    assert (found.rows, found.sources) == (63, 3)


def test_a_source_with_more_rows_weighs_no_more(known):
    known(made(9, "a"), made(9, "b"), made(9, "c", 1.0))
    few = of().high
    known(made(9, "a"), made(9, "b"), made(9 * 20, "c", 1.0))
    assert of().high == pytest.approx(few, rel=0.2)


def test_too_few_sources_widen_the_group(known):
    other = [made(9, name, 0.5, device="b200") for name in "xyz"]
    known(made(30, "a"), *other)
    assert "h100_sxm" not in of().group
    known(made(30, "a"), made(30, "b"), made(30, "c"), *other)
    assert "h100_sxm" in of().group
    assert "h100_sxm" not in of(unseen="a").group


def test_nothing_like_it_means_no_interval(known):
    known(made(30, "a", family="ttft"))
    assert of() is None


def test_the_command_prints_the_coverage():
    ran = CliRunner().invoke(app, ["score", "--intervals"])
    assert ran.exit_code == 0, ran.output
    assert "sources that they have not seen" in ran.output
    assert "ttft" in ran.output
