"""Metric definitions on hand-made results, and against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeplan.simulation import SimulationResult, Workload
from moeplan.simulation import metrics as m


def result(**changes) -> SimulationResult:
    """Two rounds of two requests; ttft 1, 2, 1, 2; each of 11 and 21 tokens."""
    fields = {
        "arrival_s": np.zeros(4),
        "sent_s": np.array([0.0, 0.0, 10.0, 10.0]),
        "first_token_s": np.array([1.0, 2.0, 11.0, 12.0]),
        "finish_s": np.array([6.0, 10.0, 16.0, 20.0]),
        "input_tokens": np.array([100, 100, 100, 100]),
        "output_tokens": np.array([11, 21, 11, 21]),
        "preemptions": np.zeros(4, int),
        "prefix_hit_tokens": np.zeros(4, int),
        "replica": np.zeros(4, int),
        "gaps_s": np.array([0.5, 0.4]),
        "gap_counts": np.array([20, 40]),
        "token_times_s": np.array([0.2, 1.1, 1.9, 2.0]),
        "token_counts": np.array([3, 4, 5, 6]),
        "workload": Workload(arrivals="rounds", concurrency=2, num_prompts=4),
    }
    return SimulationResult(**(fields | changes))


def test_rates_span_first_send_to_last_token() -> None:
    assert m.duration_s(result()) == 20
    assert m.output_tok_s(result()) == 64 / 20
    assert m.total_tok_s(result()) == 464 / 20
    assert m.request_throughput(result()) == 4 / 20


def test_latencies() -> None:
    assert m.ttft(result()).mean == 1.5
    assert m.steady_ttft(result()).p50 == 1.5
    assert m.tpot(result()).mean == pytest.approx((0.5 + 0.4) / 2)
    assert m.itl(result()).mean == pytest.approx((20 * 0.5 + 40 * 0.4) / 60)
    assert m.itl(result()).p50 == pytest.approx(0.4)
    assert m.e2e(result()).mean == 8


def test_the_peak_is_the_best_second() -> None:
    assert m.peak_output_tok_s(result()) == 9


def test_goodput_counts_what_keeps_every_limit() -> None:
    assert m.goodput(result(), ttft_s=1.5) == 2 / 20
    assert m.goodput(result(), tpot_s=0.45) == 2 / 20
    assert m.goodput(result(), ttft_s=1.5, tpot_s=0.45) == 0
    assert m.goodput(result(output_tokens=np.ones(4, int)), tpot_s=1e-9) == 4 / 20


def test_llama_benchy_rates_are_per_round() -> None:
    assert m.llama_benchy_tg(result()) == pytest.approx(32 / 9)
    assert m.llama_benchy_pp(result()) == pytest.approx(200 / 2)
    assert m.llama_benchy_pp(result(), one_token_s=0.5) == pytest.approx(200 / 1.5)


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(1, 5)), min_size=1, max_size=20))
def test_weighted_percentiles_are_those_of_the_repeated_values(
    pairs: list[tuple[float, int]],
) -> None:
    values, counts = (np.array(x) for x in zip(*pairs, strict=True))
    weighted = m.distribution(values, counts)
    plain = np.repeat(values, counts)
    expected = [plain.mean(), *np.percentile(plain, [50, 90, 99])]
    np.testing.assert_allclose(
        [weighted.mean, weighted.p50, weighted.p90, weighted.p99], expected, atol=1e-12
    )


def test_nothing_has_no_distribution() -> None:
    assert np.isnan(m.distribution(np.array([np.nan])).mean)
