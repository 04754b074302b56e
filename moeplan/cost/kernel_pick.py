"""Matching of kernel tables by the words of their family names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class _Table(Protocol):
    family: str


T = TypeVar("T", bound=_Table)


@dataclass(frozen=True, slots=True)
class Pick(Generic[T]):
    """One table, chosen for one operator and format."""

    operator: str
    format: str
    wanted: str
    """Backend that the engine takes."""
    table: T
    exact: bool
    """Whether the table is of that backend and format; otherwise the nearest known."""
    reason: str


def _words(name: str) -> set[str]:
    return set(name.lower().replace("_", "-").split("-"))


def matches(family: str, backend: str) -> bool:
    """Whether a family name contains every word of a backend name."""
    return _words(backend) <= _words(family)


def nearest(tables: Sequence[T], wanted: Sequence[str]) -> T:
    """First table of the first backend that has one; else the one that shares most words."""
    for backend in wanted:
        found = [t for t in tables if matches(t.family, backend)]
        if found:
            return min(found, key=lambda t: len(_words(t.family)))
    return max(tables, key=lambda t: len(_words(t.family) & _words(wanted[0])))
