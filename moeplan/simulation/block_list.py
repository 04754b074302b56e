"""The blocks of one cache: who uses them, what they hold, and in which order they are reused.

Rules of vLLM V1 (v1/core/block_pool.py): freed blocks without a name are handed out first; named
ones queue behind, in the order in which they became free, so that what was used longest ago goes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

Name = tuple[int, int]
"""KV group, and identity of the content up to the block's end."""

OWN: Name = (-1, -1)
"""Name of a block that nobody can ask for (yet)."""


class BlockList:
    """Blocks 1 to `num_blocks` - 1; 0 stands for "none"."""

    def __init__(self, num_blocks: int):
        self.free = OrderedDict.fromkeys(range(1, num_blocks))
        """Blocks without users, the next to be handed out first."""
        self.names: list[Name | None] = [None] * num_blocks
        self.users = [0] * num_blocks
        self.found: dict[Name, list[int]] = {}
        """Blocks by name, one at least; several can hold the same content, the first is used."""

    def register(self, block: int, name: Name) -> None:
        """Give a block a name by which it can be found."""
        self.names[block] = name
        self.found.setdefault(name, []).append(block)

    def take(self, count: int) -> list[int]:
        """Hand out free blocks; they lose their names."""
        names, users, pop = self.names, self.users, self.free.popitem
        taken = []
        for _ in range(count):
            block = pop(last=False)[0]
            name = names[block]
            if name is not None:
                names[block] = None
                if name is not OWN:
                    self._forget(block, name)
            users[block] = 1
            taken.append(block)
        return taken

    def _forget(self, block: int, name: Name) -> None:
        twins = self.found[name]
        twins.remove(block)
        if not twins:
            del self.found[name]

    def touch(self, blocks: Iterable[int]) -> None:
        """One more user for each block."""
        for block in blocks:
            if not self.users[block]:
                del self.free[block]
            self.users[block] += 1

    def give(self, blocks: Iterable[int]) -> None:
        """One user less for each block; those without any become free in this order."""
        users, names, free = self.users, self.names, self.free
        nameless = []
        for block in blocks:
            left = users[block] = users[block] - 1
            if left:
                continue
            if names[block] is None:
                nameless.append(block)
            else:
                free[block] = None
        for block in reversed(nameless):
            free[block] = None
            free.move_to_end(block, last=False)
