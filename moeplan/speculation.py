"""`Speculation`: drafts that an engine verifies, and how many of them it accepts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from moeplan.errors import InputError

Method = Literal["mtp", "eagle3", "ngram"]

DRAFT_TOKENS: dict[Method, int] = {"mtp": 1, "eagle3": 3, "ngram": 3}
"""Drafts a step where nobody says: what vLLM's recipes use."""
USUAL_FIRST: dict[Method, float] = {"mtp": 0.82, "eagle3": 0.7}
USUAL_FURTHER: dict[Method, float] = {"mtp": 0.6, "eagle3": 0.65}
"""Chance that the first draft is accepted, and that a further one is if those before it were.

MTP: counted were 0.866 of one draft on natural prompts (Nemotron-3-Super, luisefigueroa/pulsar) and
0.908 (Qwen3.6-35B, card of Infatoshi's NVFP4 checkpoint); with three drafts 2.50 to 2.62 tokens a
step on random text and ShareGPT (Nemotron-3-Super, djangodevreng/dgx-spark-benchmarks, ten runs),
3.47 in reasoning. EAGLE-3: general knowledge. N-gram drafts depend on how much of its prompt an
answer repeats: nothing is usual.
"""
LONGEST_DRAFT = 16


@dataclass(frozen=True, slots=True)
class Speculation:
    """Drafting as vLLM's `--speculative-config` has it, with the acceptance that it meets."""

    method: Method
    draft_tokens: int
    acceptance: tuple[float, ...]
    """Chance that the draft at each position is accepted, those before it included; falling."""

    def __post_init__(self) -> None:
        rates = self.acceptance
        if not 1 <= self.draft_tokens <= LONGEST_DRAFT:
            raise InputError(
                f"num_speculative_tokens is {self.draft_tokens}; it must be 1 to {LONGEST_DRAFT}"
            )
        if len(rates) != self.draft_tokens:
            raise InputError(
                f"acceptance has {len(rates)} rates for {self.draft_tokens} draft tokens; give one "
                "a position, or the mean tokens a step"
            )
        falling = all(a >= b for a, b in pairwise(rates))
        if not falling or not all(0 <= rate <= 1 for rate in rates):
            raise InputError(
                f"acceptance is {', '.join(f'{r:g}' for r in rates)}; rates must be between 0 and "
                "1 and fall from one position to the next"
            )

    @property
    def tokens_a_step(self) -> int:
        """Tokens that a step computes for one decoding sequence: its drafts and one more."""
        return 1 + self.draft_tokens

    @property
    def mean_tokens(self) -> float:
        """Tokens that a sequence gains in a step on average: the accepted drafts and one more."""
        return 1 + math.fsum(self.acceptance)

    @property
    def lookahead(self) -> int:
        """Cache slots beyond a step's tokens that the drafter writes (vLLM: num_lookahead)."""
        return 0 if self.method == "ngram" else self.draft_tokens

    def __str__(self) -> str:
        return f"{self.method} {self.draft_tokens} ({self.mean_tokens:.3g} tokens a step)"


def speculation(method: Method, draft_tokens: int | None, mean: float | None) -> Speculation:
    """Drafting with `mean` tokens a step, each draft as likely accepted as the one before it.

    None stands for what is usual. Raises `InputError` where a mean is out of reach or unknown.
    """
    drafts = draft_tokens or DRAFT_TOKENS[method]
    if mean is not None:
        return Speculation(method, drafts, rates_of_mean(mean, drafts))
    if method not in USUAL_FIRST:
        raise InputError(
            f"acceptance of {method} drafts depends on the text; give the mean tokens a step, such "
            "as 1.5, or the rate of each position"
        )
    first, further = USUAL_FIRST[method], USUAL_FURTHER[method]
    return Speculation(method, drafts, tuple(first * further**i for i in range(drafts)))


def rates_of_mean(mean: float, drafts: int) -> tuple[float, ...]:
    """Chances r, r², … that add up to `mean` tokens a step; raises `InputError` out of reach."""
    if not 1 <= mean <= 1 + drafts:
        raise InputError(
            f"acceptance of {mean:g} tokens a step is out of reach of {drafts} draft tokens; it "
            f"must be 1 to {1 + drafts}"
        )
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if sum(middle ** (i + 1) for i in range(drafts)) < mean - 1:
            low = middle
        else:
            high = middle
    return tuple(high ** (i + 1) for i in range(drafts))
