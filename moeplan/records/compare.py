"""Each metric of a record beside what the simulation says, by the tool's own definition."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from moeplan.estimate import Estimate
from moeplan.records.prediction import Outcome, Predict
from moeplan.records.record import LATENCY_METRICS, STATISTICS, RunRecord
from moeplan.records.setup import Setup
from moeplan.simulation import metrics
from moeplan.simulation.workload import Workload

_SHORT_PROMPT = 16
"""Tokens of the request that tools time to take the fixed cost off a prompt rate."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric, measured and predicted, in the unit that its name says."""

    measured: float
    predicted: Estimate

    @property
    def log_ratio(self) -> float:
        """ln(predicted / measured)."""
        return math.log(self.predicted.value / self.measured)

    @property
    def error(self) -> float:
        """|predicted / measured - 1|."""
        return abs(self.predicted.value / self.measured - 1)

    @property
    def inside(self) -> bool | None:
        """Whether the interval holds the measurement; None without an interval."""
        low, high = self.predicted.low, self.predicted.high
        return None if low is None or high is None else low <= self.measured <= high


@dataclass(frozen=True, slots=True)
class Compared:
    """A record's metrics: those compared, and the names of those that nothing predicts."""

    metrics: dict[str, Comparison]
    not_compared: list[str]


@dataclass(frozen=True)
class _Run:
    """What the metric functions look at."""

    record: RunRecord
    setup: Setup
    outcome: Outcome
    predict: Predict
    cache: dict[str, float] = field(default_factory=dict)

    @property
    def concurrency(self) -> int:
        workload = self.setup.workload
        return workload.concurrency or workload.num_prompts

    def short_request_s(self) -> float:
        """Seconds of a lone request with a short prompt and one output token.

        The front end's share of a TTFT is left out: what published rows take off (TTFT less
        prompt / rate) is 11 to 34 ms, a step, while TTFTs of long prompts hold 50 ms and more.
        """
        if "short" not in self.cache:
            lone = Workload(arrivals="offline", input_tokens=_SHORT_PROMPT, output_tokens=1)
            outcome = self.predict(self.setup.deployment, lone)
            self.cache["short"] = float(np.mean(outcome.result.ttft_s)) - outcome.front_end_s
        return self.cache["short"]


def compare(record: RunRecord, setup: Setup, outcome: Outcome, predict: Predict) -> Compared:
    """Every measured metric against the simulated run.

    `predict` serves metrics that need a run of their own (a prompt rate takes off the time of a
    one-token request).
    """
    run = _Run(record, setup, outcome, predict)
    found: dict[str, Comparison] = {}
    left: list[str] = []
    for name, measured in record.measured.items():
        value = _value(run, name)
        if value is None or not math.isfinite(value) or value <= 0 or measured <= 0:
            left.append(name)
        else:
            found[name] = Comparison(measured, Estimate(value, outcome.basis))
    return Compared(found, left)


def _value(run: _Run, name: str) -> float | None:
    """Predicted value of a metric by name, None where nothing predicts it."""
    if name in _RATES:
        return _RATES[name](run)
    base, statistic = split_statistic(name)
    if base not in LATENCY_METRICS:
        return None
    function, scale = _LATENCIES[base]
    return scale * getattr(function(run.outcome.result), statistic or "mean")


def split_statistic(name: str) -> tuple[str, str | None]:
    """("ttft_ms", "p50") of "ttft_ms_p50"; no statistic where the source does not say which."""
    base, _, last = name.rpartition("_")
    return (base, last) if last in STATISTICS else (name, None)


def _per_gpu(function: Callable[[_Run], float | None]) -> Callable[[_Run], float | None]:
    """Divided by the record's GPUs, a host's idle ones included if the record counts them."""

    def divided(run: _Run) -> float | None:
        whole = function(run)
        gpus = run.record.gpus or run.setup.deployment.placement.gpus
        return None if whole is None else whole / gpus

    return divided


def _output(run: _Run) -> float:
    return metrics.output_tok_s(run.outcome.result)


def _total(run: _Run) -> float:
    return metrics.total_tok_s(run.outcome.result)


def _duration(run: _Run) -> float | None:
    """Only where the number of prompts is known; it is proportional to it."""
    if run.record.workload.num_prompts is None:
        return None
    return metrics.duration_s(run.outcome.result)


def _decode(run: _Run) -> float | None:
    """The tool's own decode rate over all clients."""
    result = run.outcome.result
    if run.record.tool == "llm_decode_bench":
        return metrics.output_tok_s(result)
    if run.record.tool == "llama-benchy" and run.concurrency > 1:
        return metrics.llama_benchy_tg(result)
    user = _decode_per_user(run)
    return None if user is None else user * run.concurrency


def _decode_per_user(run: _Run) -> float | None:
    """Mean over requests of tokens after the first / time after the first."""
    rates = 1 / run.outcome.result.tpot_s
    return float(np.nanmean(rates)) if np.isfinite(rates).any() else None


def _prefill(run: _Run) -> float | None:
    """The tool's own prompt rate."""
    result, tool = run.outcome.result, run.record.tool
    if tool == "llama-benchy":
        single = run.concurrency == 1
        return metrics.llama_benchy_pp(result, run.short_request_s() if single else 0.0)
    if tool == "llm_decode_bench":
        return _nominal_prompt_rate(run)
    if tool == "vllm bench serve":
        return float(result.input_tokens.sum()) / metrics.duration_s(result)
    return float(np.mean(result.input_tokens / result.ttft_s))


def _nominal_prompt_rate(run: _Run) -> float | None:
    """Nominal prompt tokens / (TTFT less that of an empty prompt)."""
    span = float(np.mean(run.outcome.result.ttft_s)) - run.short_request_s()
    return run.record.workload.input_tokens / span if span > 0 else None


_RATES: dict[str, Callable[[_Run], float | None]] = {
    "output_tok_s": _output,
    "total_tok_s": _total,
    "request_throughput": lambda run: metrics.request_throughput(run.outcome.result),
    "duration_s": _duration,
    "output_tok_s_per_gpu": _per_gpu(_output),
    "total_tok_s_per_gpu": _per_gpu(_total),
    "decode_tok_s": _decode,
    "decode_tok_s_per_user": _decode_per_user,
    "prefill_tok_s": _prefill,
    "peak_output_tok_s": lambda run: metrics.peak_output_tok_s(run.outcome.result),
    "kv_cache_tokens": lambda run: run.outcome.kv_cache_tokens,
    "kv_pool_gib": lambda run: run.outcome.kv_pool_gib,
    "weights_gib": lambda run: run.outcome.weights_gib,
}
_LATENCIES = {
    "ttft_ms": (metrics.ttft, 1e3),
    "tpot_ms": (metrics.tpot, 1e3),
    "itl_ms": (metrics.itl, 1e3),
    "e2e_s": (metrics.e2e, 1.0),
}
