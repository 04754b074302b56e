"""Operators: closed forms, published figures and directions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeplan.cost.operators import (
    DecodeAttentionOperator,
    ExpertsOperator,
    LinearOperator,
    Load,
    attended_tokens,
    interpolate_curve,
    soft_maximum,
)
from moeplan.cost.routing import distinct_experts, inclusion_probabilities
from moeplan.hardware_specs.schema import AttentionDecode, Linear, MoE

SOURCE = {"grade": "fit", "source": "test"}


def load(tokens: float, padded: float | None = None) -> Load:
    return Load(tokens, padded or tokens, tokens, 0.0, tokens)


def linear(**changes) -> LinearOperator:
    table = Linear(
        family="f",
        formats=["bf16"],
        floor_us=4,
        bandwidth_tb_per_s=3,
        rate_tflops=800,
        shape_exponent=0.12,
        **SOURCE,
    )
    fields = {
        "name": "l",
        "count": 1.0,
        "table": table,
        "params": 4096 * 8192,
        "weight_bytes": 2.0 * 4096 * 8192,
        "smallest_width": 4096,
    }
    return LinearOperator(**{**fields, **changes})


def experts(**changes) -> ExpertsOperator:
    """Qwen3-30B-A3B's layer on an H100 in BF16, by the Triton kernel line of the AIC tables."""
    table = MoE(
        family="triton-bf16",
        formats=["bf16"],
        floor_us=27.8,
        per_expert_us=0.187,
        bandwidth_tb_per_s=3.17,
        rate_tflops=426,
        **SOURCE,
    )
    fields = {
        "name": "e",
        "count": 1.0,
        "table": table,
        "num_experts": 128,
        "experts_per_token": 8,
        "sigma": 0.0,
        "expert_params": 3 * 2048 * 768,
        "expert_bytes": 2 * 3 * 2048 * 768,
        "width": 768,
    }
    return ExpertsOperator(**{**fields, **changes})


def test_soft_maximum_of_equal_terms_is_cube_root_of_two_larger():
    assert soft_maximum(1.0, 1.0) == pytest.approx(2 ** (1 / 3))
    assert soft_maximum(1.0, 0.0) == 1.0


def test_uniform_routing_follows_the_closed_form():
    tokens = np.array([1, 2, 4, 8, 16, 32, 64])
    expected = 128 * (1 - (1 - 8 / 128) ** tokens)
    assert distinct_experts(128, 8, 0.0, tokens) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("sigma", "expected"),
    [
        (1.16, [14.7, 25.6, 41.4, 61.4, 82.8, 101.8, 115.4, 123.1]),
        (1.42, [14.3, 24.0, 37.7, 55.0, 74.1, 92.3, 107.2, 117.4]),
    ],
)
def test_skewed_routing_reproduces_the_published_table(sigma, expected):
    tokens = np.array([2, 4, 8, 16, 32, 64, 128, 256])
    assert distinct_experts(128, 8, sigma, tokens) == pytest.approx(expected, rel=0.01)


@given(
    experts=st.integers(2, 512),
    share=st.floats(0.01, 1.0),
    sigma=st.floats(0.0, 2.5),
)
def test_inclusion_probabilities_sum_to_the_experts_a_token_picks(experts, share, sigma):
    per_token = max(1, int(experts * share))
    picked = inclusion_probabilities(experts, per_token, sigma)
    assert picked.sum() == pytest.approx(per_token, rel=1e-6)
    assert (picked <= 1).all()


@given(st.integers(1, 4000), st.floats(0, 2.5))
def test_more_tokens_touch_more_experts_and_skew_touches_fewer(tokens, sigma):
    here = distinct_experts(128, 8, sigma, tokens)
    assert 8 - 1e-6 <= here <= 128 + 1e-9
    assert here <= distinct_experts(128, 8, sigma, tokens + 100) + 1e-9
    assert here <= distinct_experts(128, 8, 0.0, tokens) + 0.05


def test_measured_layer_time_of_qwen3_30b_on_h100():
    """arXiv 2511.02237, table 4: 175.7 µs at a mean of 48.8 distinct experts."""
    line = experts()
    tokens = 7.43  # uniform tokens that touch 48.8 experts
    assert line.distinct(tokens) == pytest.approx(48.8, rel=0.01)
    assert line.cost(load(tokens)).seconds * 1e6 == pytest.approx(175.7, rel=0.05)


def test_decode_gemm_is_floor_plus_bytes_over_bandwidth():
    cost = linear().cost(load(1))
    assert cost.seconds * 1e6 == pytest.approx(4 + 2 * 4096 * 8192 / 3e6, rel=0.001)
    assert cost.bound == "bandwidth"


def test_large_gemm_is_bound_by_its_rate():
    cost = linear().cost(load(16384))
    assert cost.bound == "compute"
    assert cost.flops / cost.seconds == pytest.approx(800e12, rel=0.02)


def test_padding_costs_dense_gemms_but_not_experts():
    assert linear().cost(load(250, 256)).seconds == linear().cost(load(256)).seconds
    assert experts().cost(load(250, 256)).seconds == experts().cost(load(250)).seconds


@given(st.integers(1, 8192), st.integers(1, 8192))
def test_more_tokens_are_never_faster(a, b):
    low, high = sorted((a, b))
    for operator in (linear(), experts()):
        fewer, more = operator.cost(load(low)).seconds, operator.cost(load(high)).seconds
        assert fewer <= more * (1 + 1e-9)


@given(st.integers(1, 3000), st.integers(0, 3000), st.integers(1, 2000))
def test_attended_tokens_count_query_key_pairs(new, before, window):
    positions = np.arange(before + 1, before + new + 1)
    assert attended_tokens(new, before, None) == pytest.approx(positions.sum())
    assert attended_tokens(new, before, window) == pytest.approx(
        np.minimum(positions, window).sum()
    )


def test_decode_attention_has_a_floor_and_then_follows_the_bytes():
    table = AttentionDecode(
        family="fa3",
        kv_formats=["bf16"],
        kind="gqa",
        floor_us=12,
        t0_us=20.9,
        bandwidth_tb_per_s=3.14,
        **SOURCE,
    )
    op = DecodeAttentionOperator("a", 1.0, table, 2048.0, 0.0, None)
    assert op.cost(0).seconds == 0
    assert op.cost(1).seconds * 1e6 == pytest.approx(20.9, rel=0.001)
    assert op.cost(1e6).seconds * 1e6 == pytest.approx(20.9 + 2048 / 3.14, rel=0.001)


def test_curves_are_interpolated_in_log_log_and_flat_beyond_their_ends():
    curve = [(1.0, 10.0), (100.0, 1000.0)]
    assert interpolate_curve(curve, 10.0) == pytest.approx(100.0)
    assert interpolate_curve(curve, 0.1) == pytest.approx(10.0)
    assert interpolate_curve(curve, 1e6) == pytest.approx(1000.0)
