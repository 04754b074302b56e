"""What stored runs show of the way between client and engine core: bursts, and ways back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from moeplan.calibration.front_end import Burst, FrontEndData, WayBack
from moeplan.validate.measured import MeasuredRun
from moeplan.validate.probe import StepTrace
from moeplan.validate.workloads import ClosedLoop

CALM_STEPS = 4
"""A step with a prompt and so many behind it are left out: the host is still at work on it."""
_NS = 1e-9


def front_end_data(runs: Sequence[MeasuredRun], idle_s: float) -> FrontEndData:
    """Of runs with steady concurrency; `idle_s` is the host's own time in an idle engine.

    A run's first requests are a burst that finds the engine idle, and all of one that sends one at
    a time are. The client's clock is the core's (Linux' monotonic clock, one host).
    """
    bursts: list[Burst] = []
    backs: list[WayBack] = []
    lone: list[float] = []
    for run, result, trace in _measured(runs):
        client = _Client(result, trace)
        width = run.run.load.concurrency
        bursts += [client.burst(run.key, chosen) for chosen in client.opening(width) if chosen]
        backs += client.way_back(run.key, width)
        lone += client.first_backs() if width == 1 else []
    beside = (float(np.median(lone)) if lone else 0.0) + idle_s
    return FrontEndData(tuple(bursts), tuple(backs), beside)


def _measured(
    runs: Sequence[MeasuredRun],
) -> Iterator[tuple[MeasuredRun, dict[str, Any], StepTrace]]:
    for run in runs:
        if isinstance(run.run.load, ClosedLoop):
            for repeat, trace in zip(run.repeats, run.traces, strict=False):
                yield run, repeat["result"], trace


class _Client:
    """One repeat: the benchmark's times of each request beside the core's. Seconds, one clock."""

    def __init__(self, result: dict[str, Any], trace: StepTrace):
        self._trace = trace
        self._begun = np.array(result["start_times"])
        self._first = self._begun + np.array(result["ttfts"])
        self._gaps = result["itls"]
        self._prompts = result["input_lens"]
        self._arrivals: dict[int, tuple[float, int]] = {}
        for number, step, time_ns in reversed(trace.arrivals):
            index = trace.requests[number].bench_index
            if index is not None and index < len(self._begun):
                self._arrivals[index] = (time_ns * _NS, step)

    def opening(self, width: int) -> list[list[int]]:
        """Requests by burst: the first ones, or each where one at a time is sent."""
        order = [int(i) for i in np.argsort(self._begun, kind="stable") if i in self._arrivals]
        return [order[at : at + 1] for at in range(len(order))] if width == 1 else [order[:width]]

    def burst(self, run: str, chosen: Sequence[int]) -> Burst:
        """When the core took each of these in, and last looked before."""
        begun = min(self._begun[index] for index in chosen)
        seen = sorted(self._arrivals[index] for index in chosen)
        absent = [max(min(self._looked(step), taken), begun) - begun for taken, step in seen]
        return Burst(
            run,
            self._prompts[chosen[0]],
            tuple(float(s) for s in absent),
            tuple(float(taken - begun) for taken, _ in seen),
        )

    def _looked(self, step: int) -> float:
        """When the core, before it scheduled this step, last took in what had come.

        Never before, where it waited for something to do.
        """
        idle = step == 0 or self._trace.idle_after[step - 1]
        return np.inf if idle else float(self._trace.begin_ns[step - 1]) * _NS

    def first_backs(self) -> list[float]:
        """From the result with each request's first token to the client."""
        return [float(ways[0]) for ways, _ in self._ways()]

    def way_back(self, run: str, width: int) -> list[WayBack]:
        """Median over steps in which `width` sequences decode; not of prompts, nor just behind."""
        if not len(self._trace):
            return []
        sizes = np.diff(self._trace.first)
        busy = np.convolve(self._new_tokens() != sizes, np.ones(CALM_STEPS))[: len(sizes)] > 0
        calm = (sizes == width) & ~busy
        found = [way[calm[steps]] for way, steps in self._ways()]
        times = np.concatenate(found) if found else np.empty(0)
        return [WayBack(run, width, float(np.median(times)))] if len(times) else []

    def _new_tokens(self) -> np.ndarray:
        """Tokens that each step computes."""
        before = np.concatenate(([0], np.cumsum(self._trace.new)))
        return np.diff(before[self._trace.first])

    def _ways(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Of each request: from results to client, a token each, and the steps that gave them.

        Requests whose tokens came several at a time, or twice, are left out.
        """
        trace = self._trace
        prompts = np.array([request.prompt_tokens for request in trace.requests])
        gives = trace.computed >= prompts[trace.number]
        steps = np.repeat(np.arange(len(trace)), np.diff(trace.first))[gives]
        numbers = trace.number[gives]
        order = np.argsort(numbers, kind="stable")
        cuts = np.flatnonzero(np.diff(numbers[order])) + 1
        for rows in np.split(order, cuts) if len(order) else ():
            index = trace.requests[numbers[rows[0]]].bench_index
            if index not in self._arrivals or len(rows) != len(self._gaps[index]) + 1:
                continue
            told = self._first[index] + np.concatenate(([0.0], np.cumsum(self._gaps[index])))
            yield told - trace.result_ns[steps[rows]] * _NS, steps[rows]
