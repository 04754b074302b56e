"""Tables, numbers with sensible digits, JSON: how results reach stdout."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from moeplan.estimate import COVERED, Estimate

if TYPE_CHECKING:
    from rich.table import Column

GIB = 2**30
GB = 1e9
WIDTH = 100
"""Columns of a table where stdout is no terminal."""
NOTHING = "–"


def emit(data: Any, as_json: bool, show: Callable[[Any], None]) -> None:
    """Print `data` as JSON, or let `show` print it as tables: one source for both."""
    if as_json:
        print(json.dumps(plain(data), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        show(data)


def plain(value: Any) -> Any:
    """A value as JSON holds it: dataclasses and models as objects, NaN and infinity as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if hasattr(value, "model_dump"):
        return plain(value.model_dump(exclude_none=True))
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    return plain(value.item()) if hasattr(value, "item") else value


def num(header: str) -> Column:
    """A right-aligned column that never wraps."""
    from rich.table import Column

    return Column(header, justify="right", no_wrap=True)


def text(header: str, *, keep: bool = False) -> Column:
    """A left-aligned column; `keep` forbids wrapping."""
    from rich.table import Column

    return Column(header, overflow="fold", no_wrap=keep)


def print_table(
    columns: Sequence[Column], rows: Iterable[Sequence[str]], title: str | None = None
) -> None:
    """Print a table of ready-made strings."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(
        *columns, title=None if title is None else Text(title), title_justify="left",
        title_style="bold", box=SIMPLE_HEAD,
        pad_edge=False, padding=(0, 1, 0, 0), collapse_padding=True,
    )  # fmt: skip
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    _print(table)


def print_facts(facts: Mapping[str, str], title: str | None = None) -> None:
    """Print name and value pairs, one a line."""
    if title:
        print_line(title, bold=True)
    width = max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        print_line(f"  {name:<{width}}  {value}")


def print_line(line: str = "", *, bold: bool = False) -> None:
    """Print one line of text, wrapped at the width of the terminal."""
    from rich.text import Text

    _print(Text(line, style="bold" if bold else ""))


class Footnotes:
    """Numbers long texts (sources, reasons) in the order of first use, to be printed below."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def mark(self, note: str) -> str:
        """The number that stands for this text."""
        return str(self._numbers.setdefault(note, len(self._numbers) + 1))

    def print(self, title: str) -> None:
        """List the texts by number."""
        print_line(title, bold=True)
        for note, index in self._numbers.items():
            print_line(f"{index:>3}  {note}")


def _print(renderable: Any) -> None:
    from rich.console import Console

    width = None if sys.stdout.isatty() else WIDTH
    Console(width=width, highlight=False).print(renderable)


def number(value: float | None, digits: int = 3) -> str:
    """`digits` significant digits, thousands separated: 0.0123, 1.23, 12.3, 1,234."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    decimals = max(digits - 1 - magnitude, 0)
    return f"{round(value, decimals):,.{decimals}f}"


def seconds(value: float | None) -> str:
    """A time with its unit, from microseconds to hours."""
    if value is None or not math.isfinite(value):
        return NOTHING
    for limit, scale, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (600.0, 1.0, "s")):
        if abs(value) < limit:
            return f"{number(value * scale)} {unit}"
    return f"{number(value / 60)} min"


def count(value: float | None) -> str:
    """A whole number, thousands separated."""
    return NOTHING if value is None else f"{value:,.0f}"


def params(value: float) -> str:
    """Weights in billions or millions."""
    return f"{number(value / 1e9, 4)} B" if value >= 1e9 else f"{number(value / 1e6)} M"


def gib(nbytes: float | None) -> str:
    """Bytes in GiB (2^30)."""
    return NOTHING if nbytes is None else f"{nbytes / GIB:,.2f}"


def estimate(
    figure: Estimate | None, scale: float = 1.0, form: Callable[[float], str] = number
) -> str:
    """A predicted figure times `scale`."""
    return NOTHING if figure is None else form(figure.value * scale)


def interval(
    figure: Estimate | None, scale: float = 1.0, form: Callable[[float], str] = number
) -> str:
    """The interval of a figure times `scale`; empty where it has none."""
    if figure is None or figure.low is None or figure.high is None:
        return ""
    return f"{form(figure.low * scale)} – {form(figure.high * scale)}"


def print_trust(figures: Iterable[Estimate | None]) -> None:
    """Say once what the printed estimates rest on, and what their intervals do."""
    known = [f for f in figures if f is not None]
    if not known:
        return
    basis = ", ".join(sorted({f.basis for f in known}))
    sources = sorted({f.interval_from for f in known if f.interval_from})
    kind = "calibrated" if all(f.calibrated for f in known) else "uncalibrated"
    if sources:
        kind += f"; {COVERED:.0%} intervals from {' and '.join(sources)}"
    print_line(f"Predictions: {kind}; basis: {basis}.")
    for caveat in sorted({f.caveat for f in known if f.caveat}):
        print_line(f"The {caveat}.")
