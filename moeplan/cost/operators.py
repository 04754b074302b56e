"""Operators of one step: what each moves and computes, and how long it takes on one GPU.

Every operator is priced as a floor plus a soft maximum of bytes / bandwidth and FLOPs / rate. The
soft maximum (a³ + b³)^(1/3) stands for the imperfect overlap of loads and arithmetic: a plain
maximum is up to 20 % too low where both terms are alike (fit to kernel tables). Arguments may be
arrays: the same code prices one step for `explain` and a whole table for the simulation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from moeplan.cost.constants import (
    DRAFT_NOVELTY,
    LEAST_PADDING,
    PADDING_SHARE,
    REFERENCE_WIDTH,
    WINDOW_RATE,
)
from moeplan.cost.routing import distinct_experts
from moeplan.hardware_specs.schema import (
    AttentionDecode,
    AttentionPrefill,
    Linear,
    MoE,
    Provenance,
    RecurrentKernel,
)

Array = np.ndarray | float
MICRO = 1e-6
TERA = 1e12


@dataclass(frozen=True, slots=True)
class Load:
    """What the token-dependent operators of a step see; scalars or arrays of one shape."""

    tokens: Array
    """Tokens that the step computes."""
    padded_tokens: Array
    """The same, padded to the CUDA-graph size that runs them."""
    decodes: Array
    """Sequences that compute one token each."""
    prefill_tokens: Array
    rows: Array
    """Rows that the LM head computes."""
    novelty: float = 1.0
    """Share of the tokens that choose experts independently; drafts choose much as the token
    before them."""


@dataclass(frozen=True, slots=True)
class Cost:
    """One operator's work in one layer on one GPU, and the seconds that it takes."""

    seconds: Array
    bytes: Array = 0.0
    flops: Array = 0.0
    floor_seconds: Array = 0.0
    bytes_seconds: Array = 0.0
    flops_seconds: Array = 0.0

    @property
    def bound(self) -> str:
        """Which limit binds: "floor", "bandwidth", "compute" (scalars only)."""
        limits = {
            "floor": float(self.floor_seconds),
            "bandwidth": float(self.bytes_seconds),
            "compute": float(self.flops_seconds),
        }
        return max(limits, key=limits.__getitem__)


class Operator(Protocol):
    """Something that a step does `count` times on one GPU."""

    name: str
    count: float
    family: str
    provenance: Provenance

    def cost(self, load: Load) -> Cost:
        """Work and time of one execution."""


def draft_novelty(tokens_a_decode: int) -> float:
    """Share of a sequence's tokens in a step that choose experts independently."""
    return (1 + DRAFT_NOVELTY * (tokens_a_decode - 1)) / tokens_a_decode


def states_a_decode(tokens_a_decode: int) -> float:
    """Recurrent states that a sequence moves in a step, as multiples of one read and one write.

    A state is read once and written after each token: a rejected draft goes back to one of them.
    """
    return (1 + tokens_a_decode) / 2


def soft_maximum(a: Array, b: Array) -> Array:
    """(a³ + b³)^(1/3)."""
    return np.cbrt(np.power(a, 3) + np.power(b, 3))


def _priced(floor: Array, nbytes: Array, flops: Array, bandwidth: float, rate: Array) -> Cost:
    bytes_seconds, flops_seconds = nbytes / bandwidth, flops / rate
    return Cost(
        seconds=floor + soft_maximum(bytes_seconds, flops_seconds),
        bytes=nbytes,
        flops=flops,
        floor_seconds=floor,
        bytes_seconds=bytes_seconds,
        flops_seconds=flops_seconds,
    )


class _Tabled:
    """An operator whose constants stand in one kernel table."""

    __slots__ = ()
    table: Linear | MoE | AttentionDecode | AttentionPrefill | RecurrentKernel

    @property
    def family(self) -> str:
        """Kernel family that runs it."""
        return self.table.family

    @property
    def provenance(self) -> Provenance:
        """Where its constants come from."""
        return self.table


@dataclass(frozen=True, slots=True)
class LinearOperator(_Tabled):
    """One dense GEMM: `params` = n × k weights on this GPU, in one storage format."""

    name: str
    count: float
    table: Linear
    params: float
    weight_bytes: float
    smallest_width: int
    """The smaller of n and k after the tensor-parallel cut."""
    per_row: bool = False
    """Computes sampled rows (the LM head) instead of all tokens."""
    beside_tokens: int = 0
    """Up to so many tokens it runs on a second stream beside a longer kernel, without a floor."""

    def cost(self, load: Load) -> Cost:
        tokens = load.rows if self.per_row else load.padded_tokens
        alone = np.asarray(tokens) > self.beside_tokens
        shape = min(1.0, self.smallest_width / REFERENCE_WIDTH) ** self.table.shape_exponent
        rate = self.table.rate_tflops * TERA * self.table.serving_rate_fraction * shape
        present = np.minimum(tokens, 1.0)
        return _priced(
            present * alone * self.table.floor_us * MICRO,
            present * self.weight_bytes,
            2.0 * self.params * tokens,
            self.table.bandwidth_tb_per_s * TERA,
            rate,
        )


@dataclass(frozen=True, slots=True)
class ExpertsOperator(_Tabled):
    """Routed experts of one layer.

    seconds = floor + per_expert n + softmax(n bytes / bandwidth, (T k + n pad) 2 params / rate)
    with n distinct experts on this GPU and pad = min(block, 4 + T k / 4 n) padded rows an expert.
    """

    name: str
    count: float
    table: MoE
    num_experts: int
    experts_per_token: int
    sigma: float
    expert_params: float
    """Weights of one expert on this GPU."""
    expert_bytes: float
    width: float
    """Intermediate width on this GPU."""
    expert_share: float = 1.0
    """Share of the experts that this GPU holds (1 / ranks under expert parallelism)."""

    def distinct(self, tokens: Array) -> Array:
        """Distinct experts touched on this GPU."""
        touched = distinct_experts(self.num_experts, self.experts_per_token, self.sigma, tokens)
        return touched * self.expert_share

    def cost(self, load: Load) -> Cost:
        experts = self.distinct(np.asarray(load.tokens) * load.novelty)
        copies = np.asarray(load.tokens) * self.experts_per_token * self.expert_share
        rows = copies / np.maximum(experts, 1e-9)
        pad = np.minimum(self.table.block_tokens, LEAST_PADDING + PADDING_SHARE * rows)
        narrow = min(1.0, self.width / self.table.full_width) ** self.table.width_exponent
        rate = self.table.rate_tflops * TERA * self.table.serving_rate_fraction * narrow
        floor = self.table.floor_us + self.table.per_expert_us * experts
        return _priced(
            np.minimum(load.tokens, 1.0) * floor * MICRO,
            experts * self.expert_bytes,
            (copies + experts * pad) * 2.0 * self.expert_params,
            self.table.bandwidth_tb_per_s * TERA,
            rate,
        )


@dataclass(frozen=True, slots=True)
class DecodeAttentionOperator(_Tabled):
    """Attention of the decoding sequences over their cache, one layer.

    max(floor, t0 + softmax(KV bytes / bandwidth, FLOPs / rate)); the FLOP term only for MLA, whose
    heads share one latent and so re-use each loaded byte many times.
    """

    name: str
    count: float
    table: AttentionDecode
    bytes_per_context_token: float
    flops_per_context_token: float
    cap: int | None
    """Tokens that a sequence's query reads at most (window, or top-k of a sparse indexer)."""
    part: str = "attention"
    """What it is in the table of launches."""

    def cost(self, context_tokens: Array) -> Cost:
        """Cost for the summed (and capped) context of the decoding sequences."""
        nbytes = self.bytes_per_context_token * np.asarray(context_tokens, dtype=float)
        flops = self.flops_per_context_token * np.asarray(context_tokens, dtype=float)
        bytes_seconds = nbytes / (self.table.bandwidth_tb_per_s * TERA)
        rate = self.table.rate_tflops
        flops_seconds = flops / (rate * TERA) if rate else 0.0 * flops
        work = self.table.t0_us * MICRO + soft_maximum(bytes_seconds, flops_seconds)
        floor = self.table.floor_us * MICRO
        seconds = np.where(nbytes > 0, np.maximum(floor, work), 0.0)
        return Cost(seconds, nbytes, flops, floor, bytes_seconds, flops_seconds)


@dataclass(frozen=True, slots=True)
class PrefillAttentionOperator(_Tabled):
    """Causal attention of prefill chunks, one layer."""

    name: str
    count: float
    table: AttentionPrefill
    flops_per_context_token: float
    window: int | None
    floor_us: float

    def cost(self, new_tokens: Array, computed_before: Array) -> Cost:
        """Cost of one chunk of `new_tokens` after `computed_before` tokens."""
        attended = attended_tokens(new_tokens, computed_before, self.window)
        length = np.asarray(computed_before) + np.asarray(new_tokens)
        rate = interpolate_curve(self.table.tflops_by_context, length) * TERA
        rate = rate * self.table.serving_rate_fraction * (WINDOW_RATE if self.window else 1.0)
        flops = attended * self.flops_per_context_token
        floor = self.floor_us * MICRO
        return Cost(floor + flops / rate, 0.0, flops, floor, 0.0, flops / rate)


def attended_tokens(new: Array, before: Array, window: int | None) -> Array:
    """Query-key pairs of a causal chunk of `new` tokens after `before`, cut at the window."""
    new, before = np.asarray(new, dtype=float), np.asarray(before, dtype=float)
    if window is None:
        return new * (before + (new + 1) / 2)
    growing = np.clip(window - before, 0, new)
    return growing * (before + (growing + 1) / 2) + (new - growing) * window


def interpolate_curve(curve: list[tuple[float, float]], x: Array) -> Array:
    """Log-log interpolation of (x, y) points, constant beyond the ends."""
    points = np.log(np.asarray(curve, dtype=float))
    return np.exp(np.interp(np.log(np.maximum(x, 1e-9)), points[:, 0], points[:, 1]))


@dataclass(frozen=True, slots=True)
class RecurrentOperator(_Tabled):
    """State update of a linear-attention or state-space layer: the state is read and written."""

    name: str
    count: float
    table: RecurrentKernel
    state_bytes: float
    """State of one sequence on this GPU."""
    flops_per_token: float

    def cost(self, load: Load) -> Cost:
        nbytes = 2.0 * self.state_bytes * np.asarray(load.decodes, dtype=float)
        flops = 2.0 * self.flops_per_token * np.asarray(load.prefill_tokens, dtype=float)
        bytes_seconds = nbytes / (self.table.bandwidth_tb_per_s * TERA)
        flops_seconds = flops / (self.table.rate_tflops * TERA)
        floor = np.minimum(load.tokens, 1.0) * self.table.floor_us * MICRO
        return Cost(
            floor + bytes_seconds + flops_seconds,
            nbytes,
            flops,
            floor,
            bytes_seconds,
            flops_seconds,
        )
