"""The decoding requests of one engine, which all gain a token in the same steps.

A step would touch each of them to say "one token more". Instead a clock counts the steps, and every
member's `computed` is kept relative to it; what happens to a member at a certain step (a block is
full, the last token is sampled) is filed under the clock at which it happens. A step then costs as
much as there is to do in it.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from operator import attrgetter

import numpy as np

from moeplan.simulation.requests import Request

_by_seq = attrgetter("seq")


class Lockstep:
    """Members in order of admission; `cycle` and `residues` as in `KVPool`.

    With `slow_windows` a window passes the end of a prompt one step late, in the second decode.
    """

    def __init__(self, cycle: int, residues: Sequence[int], slow_windows: bool):
        self.clock = 0
        """Steps in which the members decoded."""
        self.members: list[Request] = []
        self.fresh: list[Request] = []
        """Members that have not decoded since they joined or were held back."""
        self.settling: list[Request] = []
        """Members in their second decode, where windows are slow."""
        self._slow_windows = slow_windows
        self._cycle = cycle
        self._residues = tuple(residues)
        self._turns: list[list[Request]] = [[] for _ in range(cycle)]
        self._ends: dict[int, list[Request]] = {}
        self._offsets: list[int] = []
        self._offset_array: np.ndarray | None = None
        self._snapshot: tuple[Request, ...] | None = ()

    def snapshot(self) -> tuple[Request, ...]:
        """The members; the same object as long as they are the same."""
        if self._snapshot is None:
            self._snapshot = tuple(self.members)
        return self._snapshot

    def contexts(self) -> list[int]:
        """Cached tokens of each member, in the order of `members`."""
        clock = self.clock
        return [offset + clock for offset in self._offsets]

    def context_array(self) -> np.ndarray:
        """`contexts` as an array."""
        if self._offset_array is None:
            self._offset_array = np.array(self._offsets)
        return self._offset_array + self.clock

    def join(self, request: Request) -> None:
        """Add a request whose `computed` is absolute."""
        request.computed -= self.clock
        request.decoding = True
        members = self.members
        if members and members[-1].seq > request.seq:
            insort(members, request, key=_by_seq)
            self._offsets.insert(members.index(request), request.computed)
        else:
            members.append(request)
            self._offsets.append(request.computed)
        self._file(request)
        self.fresh.append(request)
        self._snapshot = self._offset_array = None

    def leave(self, request: Request) -> None:
        """Remove a member; its `computed` becomes absolute."""
        self._unfile(request)
        position = self.members.index(request)
        del self.members[position]
        del self._offsets[position]
        if not request.regular:
            self.fresh.remove(request)
        elif request in self.settling:
            self.settling.remove(request)
        request.computed += self.clock
        request.decoding = False
        self._snapshot = self._offset_array = None

    def hold_back(self, request: Request) -> None:
        """Undo one tick for a member that the step left out."""
        self._unfile(request)
        request.computed -= 1
        self._offsets[self.members.index(request)] = request.computed
        self._offset_array = None
        self._file(request)
        if request.regular:
            request.regular = False
            self.fresh.append(request)

    def due(self) -> list[Request]:
        """Members whose blocks change in the coming step, and the new ones, by admission."""
        clock, cycle, turns = self.clock, self._cycle, self._turns
        found = self.fresh + self.settling
        for residue in self._residues:
            found += turns[(residue - clock) % cycle]
        if len(found) > 1:
            found = sorted(set(found), key=_by_seq)
        return found

    def tick(self) -> list[Request]:
        """Count one step; those whose last token it samples leave and are returned."""
        self.clock += 1
        for request in self.fresh:
            request.regular = True
        self.settling = self.fresh[:] if self._slow_windows else []
        self.fresh = []
        ended = self._ends.get(self.clock)
        if ended is None:
            return []
        for request in ended[:]:
            self.leave(request)
        return ended

    def jump(self, steps: int) -> None:
        """Count steps in which no member ends and none is fresh."""
        self.clock += steps

    def steps_to_end(self) -> int:
        """Steps until the first member's last token is sampled."""
        return min(self._ends) - self.clock

    def _file(self, request: Request) -> None:
        self._turns[request.computed % self._cycle].append(request)
        self._ends.setdefault(request.final - request.computed, []).append(request)

    def _unfile(self, request: Request) -> None:
        self._turns[request.computed % self._cycle].remove(request)
        end = request.final - request.computed
        there = self._ends[end]
        if len(there) == 1:
            del self._ends[end]
        else:
            self._ends[end] = [r for r in there if r is not request]
