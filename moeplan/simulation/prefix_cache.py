"""The KV pool that knows every block, and finds the prefixes that it holds.

Rules of vLLM V1 (v1/core/kv_cache_coordinator.py, single_type_kv_cache_manager.py):

- A full block is found again by its content and everything before it; it is named as soon as it is
  scheduled, and stays so until the block is handed out anew.
- A sliding group needs only the blocks of its window; the hit is what all groups have. It names
  only the windows from which a later request may go on (retention interval 0, the default):
  before the prompt's last token, and where a prefix shared with an earlier request ends.

Most blocks hold content of one request alone: nobody finds them but that request after a
preemption. They are only marked as named, and get their names when it is preempted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moeplan.cost.kv_layout import KVCacheSpec, KVGroup
from moeplan.simulation.block_list import OWN, BlockList
from moeplan.simulation.kv_pool import NO_HIT, KVPool, PrefixHit, skipped_tokens
from moeplan.simulation.requests import Request


class PrefixCachePool(KVPool):
    """Blocks with identity. Models with recurrent state never hit (their state is not kept)."""

    ordered = True

    def __init__(self, spec: KVCacheSpec, lag: int):
        super().__init__(spec, lag)
        self._list = BlockList(spec.num_blocks)
        self._links: dict[tuple[int, ...], int] = {}
        self._chains: dict[tuple[tuple[int, ...], int, int], list[int]] = {}
        self._last_asked: tuple[Request, int, int] | None = None
        self._last_hit = NO_HIT

    @property
    def free(self) -> int:  # type: ignore[override]
        """Blocks that nobody holds, those with reusable content included."""
        return self._list.free

    def _group_event(self, group: KVGroup, cached_tokens: int) -> bool:
        fills = (cached_tokens + 1 - self.lag) % group.block_size == 0
        return fills or super()._group_event(group, cached_tokens)

    # Names

    def _shared_keys(self, request: Request, size: int) -> list[int]:
        """Keys of the prompt's leading blocks that others may share, each for all before it too."""
        keys = request.block_keys.get(size)
        if keys is None:
            ids, chunk = request.spec.hash_ids, request.spec.hash_chunk_tokens
            chain = self._chains.get((ids, chunk, size))
            if chain is None:
                chain = self._chains[ids, chunk, size] = self._chain(ids, chunk, size)
            keys = request.block_keys[size] = chain[: request.prompt // size]
        return keys

    def _chain(self, ids: tuple[int, ...], chunk: int, size: int) -> list[int]:
        """Keys of the whole blocks that `ids` cover."""
        keys: list[int] = []
        parent = seen = 0
        for block in range(len(ids) * chunk // size):
            upto = -(-(block + 1) * size // chunk)
            link = (parent, size, *ids[seen:upto])
            parent = self._links.setdefault(link, len(self._links) + 1)
            seen = upto
            keys.append(parent)
        return keys

    def _own_key(self, request: Request, block: int) -> int:
        """Key of a block that only this request can find again: below 0, unlike shared ones."""
        return -(request.index + 1 << 40) - block

    def _findable(self, request: Request, size: int, limit: int) -> int:
        """Leading blocks, of those that end within `limit` tokens, that may have been named."""
        blocks = limit // size
        return blocks if request.preemptions else min(blocks, len(self._shared_keys(request, size)))

    # Hits

    def lookup(self, request: Request) -> PrefixHit:
        """See `KVPool.lookup`; groups shorten each other's hit until all agree."""
        if self.fixed or not self._list.found:
            return NO_HIT
        asked = (request, request.target, self._list.changes)
        if self._last_asked != asked:  # a blocked request asks at every step
            self._last_asked, self._last_hit = asked, self._common_hit(request)
        return self._last_hit

    def _common_hit(self, request: Request) -> PrefixHit:
        limit = request.target - 1
        hits: list[list[int]] = [[] for _ in self.paged]
        longest = 0
        while True:
            start = limit
            for g, group in enumerate(self.paged):
                if start == request.target - 1 or group.kind != "full":  # a full one only shrinks
                    hits[g] = self._group_hit(g, group, request, limit)
                limit = min(limit, len(hits[g]) * group.block_size)
                limit -= limit % self.spec.block_size
                longest = max(longest, limit)
            if limit == start or len(hits) == 1:
                break
        blocks = [hit[: limit // g.block_size] for hit, g in zip(hits, self.paged, strict=True)]
        return PrefixHit(limit, blocks, longest)

    def _group_hit(self, g: int, group: KVGroup, request: Request, limit: int) -> list[int]:
        size = group.block_size
        blocks = self._findable(request, size, limit)
        if group.kind == "sliding":
            return self._window_hit(g, group, request, blocks)
        start = 0
        if group.kind == "chunked":  # blocks of earlier chunks are never read again
            start = min(skipped_tokens(group, limit) // size, blocks)
        hit = [0] * start
        found, keys = self._list.found, self._shared_keys(request, size)
        for block in range(start, blocks):
            key = keys[block] if block < len(keys) else self._own_key(request, block)
            match = found.get((g, key))
            if match is None:
                break
            hit.append(match[0])
        return hit

    def _window_hit(self, g: int, group: KVGroup, request: Request, blocks: int) -> list[int]:
        """The rightmost run of named blocks that covers a window, or the run from the start."""
        needed = _window_blocks(group)
        named, keys = self._list.found, self._shared_keys(request, group.block_size)
        shared, own = len(keys), self._own_key(request, 0)
        found, run = [0] * blocks, 0
        for block in range(blocks - 1, -1, -1):
            match = named.get((g, keys[block] if block < shared else own - block))
            if match is None:
                run = 0
                continue
            found[block] = match[0]
            run += 1
            if run >= needed:
                return found[: block + run]
        return found[:run]

    # Taking and giving

    def fits(self, request: Request, hit: PrefixHit, reserve: int) -> bool:
        """See `KVPool.fits`; idle blocks of the hit count as taken."""
        whole = [self._admission_blocks(g, request.target) for g in self.paged]
        return self._need(whole, hit) <= self.free - reserve

    def admit(self, request: Request, hit: PrefixHit, total: int, reserve: int) -> bool:
        """See `KVPool.admit`; blocks of the hit leave the free list."""
        chunk = [-(-total // size) for size in self.sizes]
        if not self.fits(request, hit, reserve) or self._need(chunk, hit) > self.free:
            return False
        if hit.longest > hit.tokens:
            request.junction = hit.longest
        kept, padding = self._kept(hit)
        for blocks in kept:
            self._list.touch(blocks)
        request.blocks = [
            [0] * pad + list(blocks) for blocks, pad in zip(kept, padding, strict=True)
        ]
        request.cached = [len(blocks) for blocks in request.blocks]
        request.blocks.append(self._list.take(self.fixed))
        self._grow(request, total)
        self._name(request, total)
        return True

    def _kept(self, hit: PrefixHit) -> tuple[list[Sequence[int]], list[int]]:
        """Per group: blocks of a hit that are still read, and how many lie before them."""
        if not hit.tokens:
            return [()] * len(self.paged), [0] * len(self.paged)
        padding = [skipped_tokens(g, hit.tokens) // g.block_size for g in self.paged]
        return [b[p:] for b, p in zip(hit.blocks, padding, strict=True)], padding

    def _need(self, wanted: Sequence[int], hit: PrefixHit) -> int:
        """Free blocks that `wanted` blocks of each group take, given a hit."""
        need, users = self.fixed, self._list.users
        for want, blocks, pad in zip(wanted, *self._kept(hit), strict=True):
            idle = [users[b] for b in blocks].count(0)
            need += max(want - len(blocks) - pad, 0) + idle
        return need

    def extend(self, request: Request, before: int, total: int, done: int, known: int) -> bool:  # noqa: ARG002
        """See `KVPool.extend`."""
        if self.windowed:
            self._drop_passed(request, done)
        need, held = 0, request.blocks
        for g, size in enumerate(self.sizes):
            missing = -(-total // size) - len(held[g])
            if missing > 0:
                need += missing
        if need:
            if need > self._list.free:
                return False
            self._grow(request, total)
        self._name(request, known)
        return True

    def _drop_passed(self, request: Request, done: int) -> None:
        for group, blocks in zip(self.paged, request.blocks, strict=False):
            last = min(skipped_tokens(group, done) // group.block_size, len(blocks))
            if not last or not blocks[last - 1]:
                continue
            passed = []
            for position in range(last - 1, -1, -1):
                if not blocks[position]:
                    break
                passed.append(blocks[position])
                blocks[position] = 0
            self._list.give(passed)

    def _grow(self, request: Request, total: int) -> None:
        for size, blocks in zip(self.sizes, request.blocks, strict=False):
            blocks += self._list.take(-(-total // size) - len(blocks))

    def _name(self, request: Request, known: int) -> None:
        """Name the full blocks of the first `known` tokens."""
        cached = request.cached
        for g, size in enumerate(self.sizes):
            start, full = cached[g], known // size
            if full > start:
                cached[g] = full
                self._name_range(g, request, start, full)

    def _name_range(self, g: int, request: Request, start: int, end: int) -> None:
        group, names, blocks = self.paged[g], self._list.names, request.blocks[g]
        keys = self._shared_keys(request, group.block_size)
        for position in self._kept_places(group, request, start, end):
            block = blocks[position]
            if names[block] is not None or not block:
                continue
            if position < len(keys):
                self._list.register(block, (g, keys[position]))
            else:
                names[block] = OWN

    def _kept_places(self, group: KVGroup, request: Request, start: int, end: int) -> Sequence[int]:
        """Positions to name: of a sliding group those of windows from which a prefix may go on."""
        if group.kind != "sliding":
            return range(start, end)
        kept: set[int] = set()
        for boundary in (request.prompt - 1, request.junction):
            stop = boundary // self.spec.block_size * self.spec.block_size // group.block_size
            kept.update(range(max(start, stop - _window_blocks(group)), min(end, stop)))
        return sorted(kept)

    def release(self, request: Request, *, again: bool) -> None:
        """See `KVPool.release`."""
        if again:
            self._name_own(request)
        held = [b for blocks in request.blocks for b in blocks if b]
        self._list.give(held[::-1])
        request.blocks = []

    def _name_own(self, request: Request) -> None:
        """Let a preempted request find its own blocks again."""
        for g, blocks in enumerate(request.blocks[: len(self.paged)]):
            for position, block in enumerate(blocks):
                if self._list.names[block] is OWN:
                    self._list.register(block, (g, self._own_key(request, position)))

    def advance(self, requests: Sequence[Request], cached_tokens: np.ndarray, steps: int) -> None:
        """See `KVPool.advance`: every event in the order of single steps."""
        turns: list[list[tuple[int, Request, int]]] = [[] for _ in range(self.cycle)]
        for order, (request, cached) in enumerate(
            zip(requests, cached_tokens.tolist(), strict=True)
        ):
            turns[cached % self.cycle].append((order, request, cached))
        for now in range(steps):
            due = [entry for x in self.residues for entry in turns[(x - now) % self.cycle]]
            if len(due) > 1:
                due.sort(key=lambda entry: entry[0])
            for _order, request, cached in due:
                total = cached + now + 1
                self.extend(
                    request, total - 1, total, total - 1 - self.window_lag, total - self.lag
                )


def _window_blocks(group: KVGroup) -> int:
    """Contiguous blocks that a sliding group needs before the next token."""
    assert group.window is not None
    return -(-(group.window - 1) // group.block_size)
