"""The constants that stand in code instead of the hardware data, with where each comes from.

Shapes of formulas are code; their device-dependent numbers are `hardware_specs/`. What remains is
listed here by the dotted name under which the code holds it, and read from there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib import import_module, resources
from typing import Any

from moeplan.hardware_specs.provenance import Provenance


@lru_cache(maxsize=1)
def code_constants() -> dict[str, tuple[float, Provenance]]:
    """Value and provenance by dotted name; tables of numbers by `name/key`."""
    text = resources.files("moeplan.records").joinpath("code_constants.json").read_text("utf-8")
    return {
        address: (value, Provenance(**row["provenance"]))
        for row in json.loads(text)["rows"]
        for name in row["names"]
        for address, value in _values(name)
    }


def _values(name: str) -> Iterator[tuple[str, float]]:
    module, _, attribute = name.rpartition(".")
    found: Any = getattr(import_module(module), attribute)
    if isinstance(found, Mapping):
        yield from ((f"{name}/{key}", float(value)) for key, value in found.items())
    else:
        yield name, float(found)
