"""The KV pool that knows every block: prefix cache, free list in vLLM's order, block identity.

Rules of vLLM V1 (v1/core/block_pool.py, kv_cache_coordinator.py, single_type_kv_cache_manager.py):

- A full block is found again by its content and everything before it; its key is set as soon as it
  is scheduled, and stays until the block is handed out anew.
- Freed blocks without a key are reused first; those with one queue behind, the tail of a request
  first, so that the least recently used prefix goes.
- A sliding group needs only the blocks of its window; the hit is what all groups have. It gives
  keys only to the windows from which a later request may go on (retention interval 0, the default):
  before the prompt's last token, and where a prefix shared with an earlier request ends.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from moeplan.cost.kv_layout import KVCacheSpec, KVGroup
from moeplan.simulation.kv_pool import NO_HIT, KVPool, PrefixHit, skipped_tokens
from moeplan.simulation.requests import Request

_PRIVATE = 1 << 40  # keys of content that no other request shares are below -_PRIVATE


class PrefixCachePool(KVPool):
    """Blocks with identity. Models with recurrent state never hit (their state is not cached)."""

    def __init__(self, spec: KVCacheSpec, lag: int):
        super().__init__(spec, lag)
        self._free = OrderedDict.fromkeys(range(1, spec.num_blocks))
        self._key: list[tuple[int, int] | None] = [None] * spec.num_blocks
        self._users = [0] * spec.num_blocks
        self._found: dict[tuple[int, int], list[int]] = {}
        self._chains: dict[tuple[object, ...], int] = {}

    @property
    def free(self) -> int:  # type: ignore[override]
        """Blocks that nobody holds, those with reusable content included."""
        return len(self._free)

    def _group_event(self, group: KVGroup, cached_tokens: int) -> bool:
        fills = (cached_tokens + 1 - self.lag) % group.block_size == 0
        return fills or super()._group_event(group, cached_tokens)

    def key_of(self, request: Request, size: int, block: int) -> int:
        """Identity of a request's block of `size` tokens: equal for equal content up to its end."""
        keys = request.block_keys.get(size)
        if keys is None:
            keys = request.block_keys[size] = self._prompt_keys(request, size)
        return keys[block] if block < len(keys) else -(request.index + 1) * _PRIVATE - block

    def _prompt_keys(self, request: Request, size: int) -> list[int]:
        """Keys of the whole blocks of a prompt, as a chain: each stands for all before it too."""
        ids, chunk = request.spec.hash_ids, request.spec.hash_chunk_tokens
        if not ids:
            return []
        keys, parent, seen = [], 0, 0
        for block in range(request.prompt // size):
            upto = -(-(block + 1) * size // chunk)
            link = (parent, size, *ids[seen:upto])
            parent = self._chains.setdefault(link, len(self._chains) + 1)
            seen = upto
            keys.append(parent)
        return keys

    def lookup(self, request: Request) -> PrefixHit:
        """See `KVPool.lookup`; groups shorten each other's hit until all agree."""
        if self.fixed or not self._found:
            return NO_HIT
        limit = request.target - 1
        hits: list[list[int]] = [[] for _ in self.paged]
        longest = 0
        while True:
            start = limit
            for g, group in enumerate(self.paged):
                hits[g] = self._group_hit(g, group, request, limit)
                limit = min(limit, len(hits[g]) * group.block_size)
                limit -= limit % self.spec.block_size
                longest = max(longest, limit)
            if limit == start:
                break
        blocks = [hit[: limit // g.block_size] for hit, g in zip(hits, self.paged, strict=True)]
        return PrefixHit(limit, blocks, longest)

    def _group_hit(self, g: int, group: KVGroup, request: Request, limit: int) -> list[int]:
        size = group.block_size
        if group.kind == "sliding":
            return self._window_hit(g, group, request, limit // size)
        start = 0
        if group.kind == "chunked":  # blocks of earlier chunks are never read again
            start = skipped_tokens(group, limit) // size
        found = [0] * start
        for block in range(start, limit // size):
            match = self._found.get((g, self.key_of(request, size, block)))
            if match is None:
                break
            found.append(match[0])
        return found

    def _window_hit(self, g: int, group: KVGroup, request: Request, blocks: int) -> list[int]:
        """The rightmost run of cached blocks that covers a window, or the run from the start."""
        needed = _window_blocks(group)
        found, run = [0] * blocks, 0
        for block in range(blocks - 1, -1, -1):
            match = self._found.get((g, self.key_of(request, group.block_size, block)))
            if match is None:
                run = 0
                continue
            found[block] = match[0]
            run += 1
            if run >= needed:
                return found[: block + run]
        return found[:run]

    def fits(self, request: Request, hit: PrefixHit, reserve: int) -> bool:
        """See `KVPool.fits`; idle blocks of the hit count as taken."""
        whole = [self._admission_blocks(g, request.target) for g in self.paged]
        return self._need(whole, hit) <= self.free - reserve

    def admit(self, request: Request, hit: PrefixHit, total: int, reserve: int) -> bool:
        """See `KVPool.admit`; blocks of the hit leave the free list."""
        chunk = [-(-total // size) for size in self.sizes]
        if self._need(chunk, hit) > self.free or not self.fits(request, hit, reserve):
            return False
        if hit.longest > hit.tokens:
            request.junction = hit.longest
        kept, padding = self._kept(hit)
        for blocks in kept:
            self._touch(blocks)
        request.blocks = [
            [0] * pad + list(blocks) for blocks, pad in zip(kept, padding, strict=True)
        ]
        request.cached = [len(blocks) for blocks in request.blocks]
        request.blocks.append(self._take(self.fixed))
        self._grow(request, total)
        self._remember(request, total)
        return True

    def _kept(self, hit: PrefixHit) -> tuple[list[Sequence[int]], list[int]]:
        """Per group: blocks of a hit that are still read, and how many lie before them."""
        if not hit.tokens:
            return [()] * len(self.paged), [0] * len(self.paged)
        padding = [skipped_tokens(g, hit.tokens) // g.block_size for g in self.paged]
        return [b[p:] for b, p in zip(hit.blocks, padding, strict=True)], padding

    def _need(self, wanted: Sequence[int], hit: PrefixHit) -> int:
        """Free blocks that `wanted` blocks of each group take, given a hit."""
        need = self.fixed
        for want, blocks, pad in zip(wanted, *self._kept(hit), strict=True):
            need += max(want - len(blocks) - pad, 0) + sum(not self._users[b] for b in blocks)
        return need

    def extend(self, request: Request, done: int, total: int, known: int) -> bool:
        """See `KVPool.extend`."""
        if self.windowed:
            self._drop_passed(request, done)
        need = 0
        for size, blocks in zip(self.sizes, request.blocks, strict=False):
            need += max(-(-total // size) - len(blocks), 0)
        if need > len(self._free):
            return False
        if need:
            self._grow(request, total)
        self._remember(request, known)
        return True

    def _drop_passed(self, request: Request, done: int) -> None:
        for group, blocks in zip(self.paged, request.blocks, strict=False):
            passed = []
            last = min(skipped_tokens(group, done) // group.block_size, len(blocks))
            for position in range(last - 1, -1, -1):
                if not blocks[position]:
                    break
                passed.append(blocks[position])
                blocks[position] = 0
            self._give(passed)

    def _grow(self, request: Request, total: int) -> None:
        for size, blocks in zip(self.sizes, request.blocks, strict=False):
            blocks.extend(self._take(-(-total // size) - len(blocks)))

    def _remember(self, request: Request, known: int) -> None:
        """Give keys to the full blocks of the first `known` tokens."""
        for g, (group, size) in enumerate(zip(self.paged, self.sizes, strict=True)):
            full = known // size
            for position in range(request.cached[g], full):
                block = request.blocks[g][position]
                if block and self._key[block] is None and self._keeps(group, request, position):
                    key = self._key[block] = (g, self.key_of(request, size, position))
                    self._found.setdefault(key, []).append(block)
            request.cached[g] = max(full, request.cached[g])

    def _keeps(self, group: KVGroup, request: Request, position: int) -> bool:
        """Whether a group gives a full block a key: always, unless its window slides."""
        if group.kind != "sliding":
            return True
        for boundary in (request.prompt - 1, request.junction):
            end = boundary // self.spec.block_size * self.spec.block_size // group.block_size
            if end - _window_blocks(group) <= position < end:
                return True
        return False

    def release(self, request: Request) -> None:
        """See `KVPool.release`."""
        held = [b for blocks in request.blocks for b in blocks if b]
        self._give(held[::-1])
        request.blocks = []

    def advance(self, requests: Sequence[Request], clock: int, steps: int) -> None:
        """See `KVPool.advance`: every event in the order of single steps."""
        turns: dict[int, list[Request]] = {}
        for request in requests:
            turns.setdefault(request.computed % self.cycle, []).append(request)
        order = {id(r): i for i, r in enumerate(requests)}
        for now in range(clock, clock + steps):
            due = [r for x in self.residues for r in turns.get((x - now) % self.cycle, ())]
            for request in sorted(due, key=lambda r: order[id(r)]):
                cached = request.computed + now
                done = cached - self.lag
                self.extend(request, done, cached + 1, done + 1)

    def _take(self, count: int) -> list[int]:
        taken = []
        for _ in range(count):
            block, _none = self._free.popitem(last=False)
            key = self._key[block]
            if key is not None:
                self._forget(block, key)
            self._users[block] = 1
            taken.append(block)
        return taken

    def _forget(self, block: int, key: tuple[int, int]) -> None:
        self._key[block] = None
        twins = self._found[key]
        twins.remove(block)
        if not twins:
            del self._found[key]

    def _touch(self, blocks: Iterable[int]) -> None:
        for block in blocks:
            if not self._users[block]:
                del self._free[block]
            self._users[block] += 1

    def _give(self, blocks: Iterable[int]) -> None:
        nameless = []
        for block in blocks:
            self._users[block] -= 1
            if self._users[block]:
                continue
            if self._key[block] is None:
                nameless.append(block)
            else:
                self._free[block] = None
        for block in reversed(nameless):
            self._free[block] = None
            self._free.move_to_end(block, last=False)


def _window_blocks(group: KVGroup) -> int:
    """Contiguous blocks that a sliding group needs before the next token."""
    assert group.window is not None
    return -(-(group.window - 1) // group.block_size)
