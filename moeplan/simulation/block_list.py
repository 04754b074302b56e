"""The blocks of one cache: who uses them, what they hold, and in which order they are reused.

Rules of vLLM V1 (v1/core/block_pool.py): freed blocks without a name are handed out first; named
ones queue behind, in the order in which they became free, so that what was used longest ago goes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from itertools import islice

Name = tuple[int, int]
"""KV group, and identity of the content up to the block's end."""

OWN: Name = (-1, -1)
"""Name of a block that nobody can ask for (yet)."""


class BlockList:
    """Blocks 1 to `num_blocks` - 1; 0 stands for "none"."""

    def __init__(self, num_blocks: int):
        self.free = num_blocks - 1
        """Blocks without users: those without names, the untouched, then the named."""
        self._nameless: list[int] = []  # the last is handed out first
        self._untouched = iter(range(1, num_blocks))
        self._named: OrderedDict[int, None] = OrderedDict()
        self.names: list[Name | None] = [None] * num_blocks
        self.users = [0] * num_blocks
        self.found: dict[Name, list[int]] = {}
        """Blocks by name, one at least; several can hold the same content, the first is used."""
        self.changes = 0
        """How often that has changed."""

    def register(self, block: int, name: Name) -> None:
        """Give a block a name by which it can be found."""
        self.names[block] = name
        self.found.setdefault(name, []).append(block)
        self.changes += 1

    def take(self, count: int) -> list[int]:
        """Hand out free blocks; they lose their names."""
        names, users, nameless = self.names, self.users, self._nameless
        count = max(count, 0)
        self.free -= count
        taken = [nameless.pop() for _ in range(min(count, len(nameless)))]
        taken += islice(self._untouched, count - len(taken))
        for _ in range(count - len(taken)):
            block = self._named.popitem(last=False)[0]
            name, names[block] = names[block], None
            if name is not OWN:
                self._forget(block, name)
            taken.append(block)
        for block in taken:
            users[block] = 1
        return taken

    def _forget(self, block: int, name: Name) -> None:
        twins = self.found[name]
        twins.remove(block)
        self.changes += 1
        if not twins:
            del self.found[name]

    def touch(self, blocks: Iterable[int]) -> None:
        """One more user for each block."""
        for block in blocks:
            if not self.users[block]:
                del self._named[block]
                self.free -= 1
            self.users[block] += 1

    def give(self, blocks: Iterable[int]) -> None:
        """One user less for each block; those without any become free in this order."""
        users, names, named = self.users, self.names, self._named
        nameless = []
        for block in blocks:
            left = users[block] = users[block] - 1
            if left:
                continue
            if names[block] is None:
                nameless.append(block)
            else:
                named[block] = None
            self.free += 1
        self._nameless += reversed(nameless)
