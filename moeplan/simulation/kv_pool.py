"""How many KV blocks every request holds: the interface, and the pool that only counts.

Semantics of vLLM V1 (v1/core/kv_cache_manager.py, single_type_kv_cache_manager.py): one pool of
blocks serves all groups of layers; block 0 is never usable; a group whose window has moved past a
block gives it back before it takes new ones; admission asks for the whole sequence, where a group
with a window asks for no more than its window plus the tokens in flight.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from moeplan.cost.kv_layout import KVCacheSpec, KVGroup
from moeplan.simulation.requests import Request


@dataclass(frozen=True, slots=True)
class PrefixHit:
    """What the prefix cache holds of a prompt: `tokens`, and the blocks of each group."""

    tokens: int = 0
    blocks: Sequence[Sequence[int]] = field(default_factory=tuple)
    longest: int = 0
    """Tokens that at least one group holds: a prefix shared with an earlier request."""


NO_HIT = PrefixHit()


def skipped_tokens(group: KVGroup, computed: int) -> int:
    """Leading tokens that a group's attention no longer reads once `computed` are done."""
    if group.kind == "sliding":
        return max(0, computed - _window(group) + 1)
    if group.kind == "chunked":
        return computed // _window(group) * _window(group)
    return 0


def _window(group: KVGroup) -> int:
    if group.window is None:
        raise ValueError(f"a {group.kind} KV group needs a window")
    return group.window


class KVPool(ABC):
    """The blocks of one engine. `lag` is 1 where a step is scheduled while another runs.

    Between two events a request that gains one token a step needs no attention: an event is a step
    that starts with c cached tokens where c mod `cycle` is one of `residues`.
    """

    free: int
    """Blocks that nobody holds."""
    ordered = False
    """Whether it matters in which order requests take blocks."""

    def __init__(self, spec: KVCacheSpec, lag: int):
        self.spec = spec
        self.lag = lag
        self.window_lag = 0 if spec.frees_in_flight else lag
        """Steps that windows stay behind what is scheduled."""
        self.usable = spec.num_blocks - 1
        """Blocks in all; block 0 stands for "none"."""
        self.paged = tuple(g for g in spec.groups if g.kind != "recurrent")
        self.fixed = sum(g.fixed_blocks for g in spec.groups if g.kind == "recurrent")
        self.sizes = tuple(g.block_size for g in self.paged)
        self._groups_by_size = tuple(Counter(self.sizes).items())
        self.windowed = any(g.kind != "full" for g in self.paged)
        chunks = [_window(g) for g in self.paged if g.kind == "chunked"]
        self.cycle = math.lcm(*self.sizes, *chunks)
        self.residues = tuple(x for x in range(self.cycle) if self._is_event(x))

    def _is_event(self, cached_tokens: int) -> bool:
        return any(self._group_event(g, cached_tokens) for g in self.paged)

    def _group_event(self, group: KVGroup, cached_tokens: int) -> bool:
        """Whether a one-token step from `cached_tokens` (mod cycle) takes or frees a block."""
        done = cached_tokens - self.window_lag
        return (
            cached_tokens % group.block_size == 0
            or (group.kind == "chunked" and done % _window(group) == 0)
            or (group.kind == "sliding" and (done - _window(group) + 1) % group.block_size == 0)
        )

    def due(self, cached_tokens: np.ndarray) -> list[int]:
        """Indices of sequences for which a one-token step takes, frees or fills a block.

        All of them where windows move. For sequences that came here one token a step.
        """
        if self.windowed:
            return list(range(len(cached_tokens)))
        changes = np.zeros(len(cached_tokens), dtype=bool)
        for size in self.sizes:
            changes |= (cached_tokens % size == 0) | ((cached_tokens + 1 - self.lag) % size == 0)
        return np.flatnonzero(changes).tolist()

    def blocks_to_admit(self, tokens: int) -> int:
        """Blocks that admission reserves for a sequence of that many tokens."""
        return self.fixed + sum(self._admission_blocks(g, tokens) for g in self.paged)

    def _admission_blocks(self, group: KVGroup, tokens: int) -> int:
        """A group's share of `blocks_to_admit` (vLLM: max_admission_blocks_per_request)."""
        size, in_flight = group.block_size, self.spec.max_in_flight_tokens
        blocks = -(-tokens // size)
        if group.kind == "sliding":
            return min(blocks, -(-min(_window(group) - 1 + in_flight, tokens) // size) + 1)
        if group.kind == "chunked":
            return min(blocks, -(-min(_window(group) + in_flight, tokens) // size))
        return blocks

    def steps_within(self, cached_tokens: np.ndarray, limit: int) -> int:
        """Decode steps, at most `limit`, that surely find blocks (freed ones are not counted on).

        `cached_tokens` are those of every decoding sequence now.
        """
        if self._growth(cached_tokens, limit) <= self.free:
            return limit
        low, high = 0, limit
        while high - low > 1:
            middle = (low + high) // 2
            if self._growth(cached_tokens, middle) <= self.free:
                low = middle
            else:
                high = middle
        return low

    def _growth(self, cached_tokens: np.ndarray, steps: int) -> int:
        return sum(
            groups * int((-(-(cached_tokens + steps) // s) + (-cached_tokens // s)).sum())
            for s, groups in self._groups_by_size
        )

    @abstractmethod
    def lookup(self, request: Request) -> PrefixHit:
        """The longest cached prefix of the request, short of its last token. Changes nothing."""

    @abstractmethod
    def fits(self, request: Request, hit: PrefixHit, reserve: int) -> bool:
        """Whether the request's `target` tokens fit in the free blocks less `reserve`."""

    @abstractmethod
    def admit(self, request: Request, hit: PrefixHit, total: int, reserve: int) -> bool:
        """Take blocks for a first chunk that ends at `total` tokens.

        False, and nothing is taken, unless `fits` allows it.
        """

    @abstractmethod
    def extend(self, request: Request, before: int, total: int, done: int, known: int) -> bool:
        """Take blocks for tokens `before` to `total`; False, and none taken, if too few are free.

        `done` tokens are computed for sure, so that windows past them give blocks back; the first
        `known` have known content, so that full blocks of them can be found again.
        """

    @abstractmethod
    def release(self, request: Request, *, again: bool) -> None:
        """Give back all blocks; `again` if the request was preempted and will come back.

        The request's `computed` is absolute.
        """

    @abstractmethod
    def advance(self, requests: Sequence[Request], cached_tokens: np.ndarray, steps: int) -> None:
        """`extend` for `steps` decode steps of requests that hold so many cached tokens now.

        Only for a count of steps that `steps_within` allows.
        """


class CountingPool(KVPool):
    """Counts blocks; no prefix is ever found. Exact as long as none could be.

    Blocks of groups without windows follow from the tokens; for the others each request keeps the
    range of positions that it holds.
    """

    def __init__(self, spec: KVCacheSpec, lag: int):
        super().__init__(spec, lag)
        self.free = self.usable
        self._windows = tuple(
            (index, g.block_size, _window(g), g.kind == "chunked")
            for index, g in enumerate(self.paged)
            if g.kind != "full"
        )

    def lookup(self, request: Request) -> PrefixHit:  # noqa: ARG002
        """Nothing is ever found."""
        return NO_HIT

    def fits(self, request: Request, hit: PrefixHit, reserve: int) -> bool:  # noqa: ARG002
        """See `KVPool.fits`."""
        return self.blocks_to_admit(request.target) <= self.free - reserve

    def admit(self, request: Request, hit: PrefixHit, total: int, reserve: int) -> bool:
        """See `KVPool.admit`."""
        ends = [-(-total // size) for size in self.sizes]
        need = sum(ends) + self.fixed
        if need > self.free or not self.fits(request, hit, reserve):
            return False
        self.free -= need
        request.blocks = [[0, end] for end in ends]
        return True

    def extend(self, request: Request, before: int, total: int, done: int, known: int) -> bool:  # noqa: ARG002
        """See `KVPool.extend`."""
        if self.windowed:
            self._slide(request, done)
        need = 0
        for size in self.sizes:
            need += (-before // size) - (-total // size)
        if need > self.free:
            return False
        self.free -= need
        return True

    def _slide(self, request: Request, done: int) -> None:
        """Give back the blocks that windows have passed: `skipped_tokens` without its calls."""
        for index, size, window, chunked in self._windows:
            skipped = done // window * window if chunked else done - window + 1
            passed, span = skipped // size, request.blocks[index]
            if passed > span[0]:
                self.free += passed - span[0]
                span[0] = passed

    def release(self, request: Request, *, again: bool) -> None:  # noqa: ARG002
        """See `KVPool.release`."""
        self.free += self.fixed
        for size, span in zip(self.sizes, request.blocks, strict=True):
            self.free += -(-request.computed // size) - span[0]
        request.blocks = []

    def advance(self, requests: Sequence[Request], cached_tokens: np.ndarray, steps: int) -> None:
        """See `KVPool.advance`: what is held depends on the last step alone."""
        self.free -= self._growth(cached_tokens, steps)
        if self.windowed:
            for request, cached in zip(requests, cached_tokens.tolist(), strict=True):
                self._slide(request, cached + steps - 1 - self.window_lag)
