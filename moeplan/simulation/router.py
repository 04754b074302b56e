"""Which replica gets a request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

import numpy as np

from moeplan.errors import UnknownNameError

Router = Callable[[Sequence[int]], int]
"""From the requests in flight of each replica to the index of the one that gets the next."""

ROUTERS = ("round-robin", "simple-shuffle", "least-busy")


def make_router(name: str, seed: int) -> Router:
    """A router by name: in turn, at random (LiteLLM's simple-shuffle), or to the least loaded.

    Raises UnknownNameError.
    """
    plain = name.replace("_", "-")
    if plain == "round-robin":
        turn = count()
        return lambda in_flight: next(turn) % len(in_flight)
    if plain == "simple-shuffle":
        rng = np.random.default_rng((seed, 1))
        return lambda in_flight: int(rng.integers(len(in_flight)))
    if plain == "least-busy":
        return lambda in_flight: min(range(len(in_flight)), key=in_flight.__getitem__)
    raise UnknownNameError("router", name, ROUTERS)
