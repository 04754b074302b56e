"""When requests reach the engine core: turns in event loops, the tokeniser, streaming."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simpy import Environment

from moeplan.simulation.front_end import (
    TOKENISER_SHARE,
    FrontEnd,
    FrontEndCosts,
    burst_arrivals_s,
)
from moeplan.simulation.requests import Request, RequestSpec

COSTS = FrontEndCosts(fixed_s=5.0, turn_s=1.0, prompt_token_s=0.1)


def arrivals(
    costs: FrontEndCosts, sends: list[tuple[float, int]], streaming: float = 0.0
) -> tuple[list[float], list[float]]:
    """When the client begins requests (time sent, prompt tokens), and the core has each."""
    env, reached = Environment(), {}
    front = FrontEnd(env, costs, lambda r: reached.setdefault(r.index, env.now), lambda: streaming)
    requests = [Request(RequestSpec(i, at, tokens, 1)) for i, (at, tokens) in enumerate(sends)]
    for request in requests:
        env.timeout(request.spec.arrival_s).callbacks.append(
            lambda _now, request=request: front.send(request)
        )
    env.run()
    return [r.sent_s for r in requests], [reached[i] for i in range(len(sends))]


@given(
    st.integers(1, 40),
    st.integers(1, 5000),
    st.floats(0, 0.1),
    st.floats(0, 0.01),
    st.floats(0, 1e-5),
)
def test_a_burst_arrives_as_the_closed_form_says(
    count: int, tokens: int, fixed_s: float, turn_s: float, prompt_token_s: float
):
    costs = FrontEndCosts(fixed_s, turn_s, prompt_token_s)
    _, reached = arrivals(costs, [(0.0, tokens)] * count)
    assert sorted(reached) == pytest.approx(burst_arrivals_s(costs, count, tokens))


def test_a_lone_request_takes_the_fixed_time_and_that_of_its_prompt():
    _, reached = arrivals(COSTS, [(0.0, 7), (100.0, 20)])
    assert reached == pytest.approx([5.7, 107.0])


def test_the_first_of_a_burst_passes_and_the_second_waits_until_all_are_read():
    sent, reached = arrivals(COSTS, [(0.0, 0)] * 4)
    assert sent == pytest.approx([0.0, 1.0, 2.0, 3.0])
    assert reached == pytest.approx([3 + 5, 3 + 5 + 3 + 1, 3 + 5 + 3 + 2, 3 + 5 + 3 + 3])


def test_none_passes_while_answers_are_streamed():
    """A token a second that takes half of the server's time: all there is twice as slow."""
    costs = FrontEndCosts(fixed_s=5.0, turn_s=1.0, streamed_token_s=0.5)
    _, reached = arrivals(costs, [(0.0, 0)] * 4, streaming=1.0)
    read, rest, handed = 3 + 4 * 2, 3 * 2, 2
    assert reached == pytest.approx([read + rest + handed * (i + 1) for i in range(4)])


def test_who_comes_later_is_read_before_earlier_ones_are_handed_over():
    later = [(4.0 + i, 0) for i in range(20)]
    _, alone = arrivals(COSTS, [(0.0, 0)] * 4, streaming=1e-9)
    _, beside = arrivals(COSTS, [(0.0, 0)] * 4 + later, streaming=1e-9)
    assert beside[3] > alone[3] + 10
    assert beside[:4] == sorted(beside[:4])


def test_long_prompts_of_a_burst_follow_each_other_as_the_tokeniser_is_done():
    _, reached = arrivals(COSTS, [(0.0, 100)] * 3)
    assert reached[2] - reached[1] == pytest.approx(1.0 + TOKENISER_SHARE * 10)


def test_answers_that_end_are_closed_before_new_requests_are_read():
    env, reached = Environment(), []
    front = FrontEnd(env, COSTS, lambda _request: reached.append(env.now), lambda: 0.0)
    for _ in range(3):
        front.end()
    front.send(Request(RequestSpec(0, 0.0, 0, 1)))
    env.run()
    assert reached == pytest.approx([3 + 5])
