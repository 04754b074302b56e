"""Which steps with prefill can occur, as far as the greedy chunks of the scheduler tell.

A step that leaves budget over ends every prompt that it touches. So a step with fewer prefill
tokens than the shortest prompt ends one that an earlier step cut short because its budget was
exhausted; and such a step cuts one prompt only. Where a model's recurrent state is cached in
blocks, chunks stop at ends of blocks: tails of prompts are then left out of the count, a step is
exhausted up to a block, and it may cut two.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moeplan.cost.predictor import Prepared

_DENSE = 1024
_FINE, _COARSE = 16, 64
"""Strides of the sizes looked at: step-time tables are exact up to `_DENSE` tokens and straight
between every `_COARSE`-th above."""
_SHORT_POINTS = 24


@dataclass(frozen=True, eq=False)
class ChunkSteps:
    """Prefill tokens of steps that can occur."""

    sizes: np.ndarray
    """Short steps first, then those that need no partner; rising in each part."""
    tokens: np.ndarray
    """Most tokens of a step that is priced by the size at the same place."""
    shorts: int
    """How many sizes are short steps."""
    full: int
    """Least tokens of a step that exhausts its budget."""
    cuts: int
    """Prompts that such a step cuts at most: short steps that follow it."""
    block: int
    """Tokens to whose multiples chunks are cut; 1 where they are not."""

    most_ends: np.ndarray
    """Prompts that may end in a step of each size (or of one up to the next)."""
    alone: int
    """Place of a size that some step of every prompt reaches."""
    greedy: bool
    """Whether chunks are as long as the budget allows, without regard to blocks."""

    def counted(self, prompts: np.ndarray, before: np.ndarray) -> np.ndarray:
        """Tokens of each prompt that the count takes in, those after `before`, tails left out."""
        return np.maximum(prompts // self.block * self.block - before, 0)

    def least_per_token(self, costs: np.ndarray) -> np.ndarray:
        """Least cost of a counted prompt token; `costs` of steps by size along the last axis."""
        shorts, tokens = self.shorts, self.tokens
        whole = (costs[..., shorts:] / tokens[shorts:]).min(axis=-1)
        if not shorts:
            return whole
        full = tokens[shorts:] >= self.full
        together = costs[..., shorts:][..., full, None] + self.cuts * costs[..., None, :shorts]
        size = tokens[shorts:][full, None] + self.cuts * tokens[None, :shorts]
        return np.minimum(whole, (together / size).min(axis=(-2, -1)))


def chunk_steps(
    prepared: Prepared, prompts: np.ndarray, before: np.ndarray, largest: int
) -> ChunkSteps:
    """Steps that can occur for these prompts, whose first `before` tokens may be cached.

    `largest` is the most decodes that ride in a step.
    """
    engine, given = prepared.engine, prepared.deployment.engine
    budget = engine.max_num_batched_tokens
    recurrent = [g.block_size for g in prepared.kv.groups if g.kind == "recurrent"]
    block = max(recurrent, default=1) if engine.prefix_caching else 1
    full = budget - largest * engine.tokens_a_decode - (block if block > 1 else 0)
    greedy = not given.long_prefill_token_threshold and full > 1
    if not greedy:
        full = 1  # chunks of any size
    counted = prompts // block * block - before
    shortest = int(counted[counted > 0].min(initial=budget))
    least = min(full, shortest)
    sizes, tokens = _whole_sizes(least, budget)
    short, short_tokens = _short_sizes(least)
    sizes_of_all = np.concatenate([short, sizes])
    largest_chunk = min(full, int(np.where(counted > 0, counted, prompts - before).min()))
    return ChunkSteps(
        sizes=sizes_of_all,
        alone=int(np.searchsorted(sizes_of_all, largest_chunk, side="right")) - 1,
        tokens=np.concatenate([short_tokens, tokens]),
        shorts=len(short),
        full=full,
        cuts=2 if block > 1 else 1,
        block=block,
        most_ends=np.concatenate([np.ones(len(short)), _most_ends(sizes, shortest)]),
        greedy=greedy and block == 1,
    )


def _most_ends(sizes: np.ndarray, shortest: int) -> np.ndarray:
    """Whole prompts of at least `shortest` tokens, and the rest of one that was cut before."""
    following = np.append(sizes[1:], sizes[-1])
    return (following - 1) // shortest + 1.0


def _whole_sizes(least: int, budget: int) -> tuple[np.ndarray, np.ndarray]:
    """Sizes from `least` to `budget`, and the most tokens that each of them prices.

    Up to `_DENSE` times rise by stairs: a size prices all up to the next. Above they are straight
    between sizes, so that cost per token is least at one of them.
    """
    fine = np.arange(least, min(budget, _DENSE), _FINE)
    coarse = np.arange(-(-max(least, _DENSE) // _COARSE) * _COARSE, budget, _COARSE)
    ends = [least, budget] if least >= _DENSE else [min(budget, _DENSE), budget]
    straight = np.unique(np.concatenate([coarse, ends]))
    straight = straight[straight <= budget]
    upper = np.minimum(fine + _FINE - 1, budget)
    return np.concatenate([fine, straight]), np.concatenate([upper, straight])


def _short_sizes(least: int) -> tuple[np.ndarray, np.ndarray]:
    """Sizes from 1 to below `least`, each for all up to the next."""
    if least <= 1:
        return np.empty(0, int), np.empty(0, int)
    sizes = np.unique(np.geomspace(1, least - 1, _SHORT_POINTS).astype(int))
    return sizes, np.append(sizes[1:] - 1, least - 1)
