"""Seconds of attention in one pipeline stage, as fast to ask as a simulation needs it.

Decode attention is linear in the summed context above its floor; prefill attention is arithmetic at
a rate that depends on the length.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from moeplan.cost.constants import WINDOW_RATE
from moeplan.cost.operators import (
    MICRO,
    TERA,
    DecodeAttentionOperator,
    PrefillAttentionOperator,
    attended_tokens,
    soft_maximum,
)


@dataclass(frozen=True, slots=True)
class DecodeAttentionTime:
    """count × max(floor, t0 + slope × summed context)."""

    count: float
    floor: float
    t0: float
    slope: float
    cap: int | None
    queries: int = 1
    """Tokens that a sequence computes in a step; its last one attends to all before it."""

    @classmethod
    def of(cls, op: DecodeAttentionOperator, queries: int = 1) -> DecodeAttentionTime:
        """All executions of an operator in one step; queries of a sequence share what is read."""
        rate = op.table.rate_tflops
        slope = soft_maximum(
            op.bytes_per_context_token / (op.table.bandwidth_tb_per_s * TERA),
            queries * op.flops_per_context_token / (rate * TERA) if rate else 0.0,
        )
        floor, t0 = op.table.floor_us * MICRO, op.table.t0_us * MICRO
        return cls(op.count, floor, t0, float(slope), op.cap, queries)

    def equal_seconds(self, batches: np.ndarray, attended: float) -> np.ndarray:
        """Seconds for batches of sequences whose queries attend to `attended` tokens each."""
        return self.count * np.maximum(self.floor, self.t0 + self.slope * batches * attended)

    def line_seconds(self, batches: np.ndarray, attended: float, usual: float) -> np.ndarray:
        """A line below the seconds of every batch, tangent at `usual` sequences.

        Being a line, it prices a whole run by the mean of what queries attend to.
        """
        if self.t0 + self.slope * usual * attended < self.floor:
            return np.full(len(batches), self.count * self.floor)
        return self.count * (self.t0 + self.slope * batches * attended)

    def seconds(self, contexts: Sequence[int]) -> float:
        """Seconds of a step of these sequences."""
        cap, own = self.cap, self.queries
        if cap is None:  # the query attends to its own token too
            total = sum(contexts) + own * len(contexts)
        else:
            total = sum([c + own if c < cap else cap for c in contexts])  # a list is faster
        return self.count * max(self.floor, self.t0 + self.slope * total)

    def stretch_seconds(self, contexts: np.ndarray) -> np.ndarray:
        """`seconds` of many steps of the same sequences, contexts of shape (steps, sequences)."""
        cap, own = self.cap, self.queries
        attended = contexts + own if cap is None else np.where(contexts < cap, contexts + own, cap)
        total = attended.sum(axis=1)
        return self.count * np.maximum(self.floor, self.t0 + self.slope * total)

    def run_seconds(self, contexts: np.ndarray, steps: int) -> np.ndarray:
        """Seconds of each of the next `steps` steps, in which every context grows by one."""
        ahead = np.arange(1, steps + 1)
        if self.cap is None:
            total = contexts.sum() + len(contexts) * ahead
        elif contexts.min() + 1 >= self.cap:
            total = np.full(steps, float(len(contexts) * self.cap))
        else:
            total = _windowed_sums(np.sort(contexts), self.cap, steps)
        return self.count * np.maximum(self.floor, self.t0 + self.slope * total)


def _windowed_sums(contexts: np.ndarray, cap: int, steps: int) -> np.ndarray:
    """Σ min(context + j, cap) for j = 1..steps; `contexts` sorted."""
    ahead = np.arange(1, steps + 1)
    growing = np.searchsorted(contexts, cap - ahead, side="left")
    prefix = np.concatenate([[0], np.cumsum(contexts)])
    return prefix[growing] + growing * ahead + (len(contexts) - growing) * float(cap)


@dataclass(frozen=True, slots=True)
class PrefillAttentionTime:
    """count × (floor + FLOPs / rate), the rate of each chunk by its length."""

    count: float
    floor: float
    flops: float
    window: int | None
    log_length: list[float]
    log_rate: list[float]
    rates: dict[int, float] = field(default_factory=dict, compare=False)
    """Rates by length that were asked for: prompts end at few lengths, again and again."""

    @classmethod
    def of(cls, op: PrefillAttentionOperator) -> PrefillAttentionTime:
        """All executions of an operator in one step."""
        table = op.table
        scale = TERA * table.serving_rate_fraction * (WINDOW_RATE if op.window else 1.0)
        return cls(
            op.count,
            op.floor_us * MICRO,
            op.flops_per_context_token,
            op.window,
            [math.log(x) for x, _ in table.tflops_by_context],
            [math.log(y * scale) for _, y in table.tflops_by_context],
        )

    def least_seconds(self, prompts: np.ndarray, before: np.ndarray) -> float:
        """Least seconds for prompts of these lengths, each without its first `before` tokens.

        Floors left out; however they are cut into chunks, at the best rate of any length.
        """
        pairs = attended_tokens(prompts - before, before, self.window).sum()
        return self.count * self.flops * float(pairs) / self._best_rate(int(prompts.max()))

    def _best_rate(self, longest: int) -> float:
        within = (x <= math.log(longest) for x in self.log_length)
        knots = [math.exp(y) for y, inside in zip(self.log_rate, within, strict=True) if inside]
        return max(self._rate(1), self._rate(longest), *knots)

    def seconds(self, chunks: Sequence[tuple[int, int]]) -> float:
        """Seconds of a step of these (new tokens, tokens before)."""
        work, rates = 0.0, self.rates
        for new, before in chunks:
            length = before + new
            rate = rates.get(length)
            if rate is None:
                rate = rates[length] = self._rate(length)
            work += self._pairs(new, before) / rate
        return self.count * (self.floor + self.flops * work)

    def _pairs(self, new: int, before: int) -> float:
        """`attended_tokens` of one chunk, without the price of an array."""
        window = self.window
        growing = new if window is None else min(max(window - before, 0), new)
        whole = 0 if window is None else (new - growing) * window
        return growing * (before + (growing + 1) / 2) + whole

    def _rate(self, length: int) -> float:
        x, xs, ys = math.log(max(length, 1)), self.log_length, self.log_rate
        if x <= xs[0]:
            return math.exp(ys[0])
        if x >= xs[-1]:
            return math.exp(ys[-1])
        i = bisect_right(xs, x)
        share = (x - xs[i - 1]) / (xs[i] - xs[i - 1])
        return math.exp(ys[i - 1] + share * (ys[i] - ys[i - 1]))
