"""Workloads: what they contain, that seeds decide, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from moeplan.errors import InputError, RecordError
from moeplan.simulation import Workload, read_trace
from moeplan.simulation.workload import requests


def test_the_same_seed_gives_the_same_requests() -> None:
    def lengths(seed: int) -> list[int]:
        workload = Workload(arrivals="offline", num_prompts=20, input_range=(0.5, 1.5), seed=seed)
        return [spec.input_tokens for spec in requests(workload)]

    assert lengths(1) == lengths(1) != lengths(2)


def test_lengths_are_uniform_within_their_range() -> None:
    workload = Workload(
        arrivals="offline", num_prompts=4000, input_tokens=100, input_range=(0.8, 1.2),
        output_tokens=3, output_range=(0, 1),
    )  # fmt: skip
    specs = requests(workload)
    inputs = np.array([spec.input_tokens for spec in specs])
    assert (inputs.min(), inputs.max()) == (80, 120)
    assert inputs.mean() == pytest.approx(100, rel=0.02)
    assert {spec.output_tokens for spec in specs} == {1, 2, 3}
    assert workload.longest_tokens == 123


@pytest.mark.parametrize("arrivals", ["poisson", "gamma"])
def test_the_last_request_leaves_at_n_over_rate(arrivals: str) -> None:
    burstiness = 1.0 if arrivals == "poisson" else 4.0
    workload = Workload(
        arrivals=arrivals, request_rate=8.0, num_prompts=2000, burstiness=burstiness
    )
    times = np.array([spec.arrival_s for spec in requests(workload)])
    assert times[-1] == pytest.approx(250.0)
    gaps = np.diff(times)
    assert (gaps >= 0).all()
    assert gaps.std() / gaps.mean() == pytest.approx(burstiness**-0.5, rel=0.1)


def test_shared_prefixes_have_one_identity() -> None:
    workload = Workload(arrivals="offline", num_prompts=3, shared_prefix_tokens=64)
    assert {(spec.hash_ids, spec.hash_chunk_tokens) for spec in requests(workload)} == {((0,), 64)}


def test_a_trace_is_read_and_sent_in_order_of_time(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(
        '{"timestamp": 2.0, "input_length": 30, "output_length": 4, "hash_ids": [1, 2]}\n\n'
        '{"timestamp": 1.0, "input_length": 20, "output_length": 5, "other": true}\n'
    )
    workload = Workload(arrivals="trace", trace=read_trace(path))
    first, second = requests(workload)
    assert (first.arrival_s, first.input_tokens, first.hash_ids) == (1.0, 20, ())
    assert (second.arrival_s, second.input_tokens, second.hash_ids) == (2.0, 30, (1, 2))
    at_once = Workload(arrivals="closed", concurrency=1, trace=read_trace(path))
    assert [spec.input_tokens for spec in requests(at_once)] == [30, 20]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: expected an object"),
        ('{"timestamp": 1, "input_length": 5}', "line 2: output_length is missing"),
        ('{"timestamp": 1, "input_length": 0, "output_length": 5}', "line 2: input_length is 0"),
        ('{"timestamp": NaN, "input_length": 1, "output_length": 5}', "line 2: timestamp is nan"),
        ('{"timestamp": 1, "input_length": 1.5, "output_length": 5}', "input_length is 1.5"),
        ('{"timestamp": 1, "input_length": 1, "output_length": 5, "hash_ids": ["x"]}', "hash_ids"),
    ],
)
def test_malformed_traces_are_refused_by_line_and_field(
    tmp_path: Path, line: str, complaint: str
) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text('{"timestamp": 0, "input_length": 1, "output_length": 1}\n' + line + "\n")
    with pytest.raises(RecordError, match=complaint):
        read_trace(path)


def test_missing_and_empty_traces_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot read"):
        read_trace(tmp_path / "none.jsonl")
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    with pytest.raises(RecordError, match="no request"):
        read_trace(empty)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_prompts", 0),
        ("num_prompts", 10**9),
        ("input_tokens", -5),
        ("input_tokens", 10**12),
        ("output_tokens", 1.5),
        ("concurrency", 0),
        ("request_rate", float("nan")),
        ("request_rate", float("inf")),
        ("request_rate", -1.0),
        ("burstiness", 0.0),
        ("input_range", (1.2, 0.8)),
        ("output_range", (float("nan"), 1.0)),
        ("shared_prefix_tokens", -1),
        ("arrivals", "sometimes"),
        ("routing", "weird"),
        ("seed", -1),
        ("colour", "red"),
    ],
)
def test_nonsense_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(InputError, match=field):
        Workload(**({"arrivals": "gamma", "request_rate": 1.0} | {field: value}))


@pytest.mark.parametrize("arrivals", ["closed", "rounds", "poisson", "trace"])
def test_what_an_arrival_process_needs_is_asked_for(arrivals: str) -> None:
    with pytest.raises(InputError, match=r"missing|empty"):
        Workload(arrivals=arrivals)
