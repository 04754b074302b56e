"""Tables with their two downloads."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import streamlit as st

from moeplan.cli import render

_FORMULA = ("=", "+", "-", "@")


def table(
    name: str,
    rows: Sequence[dict[str, Any]],
    columns: Mapping[str, Callable[[dict[str, Any]], Any]],
    *,
    select: bool = False,
) -> int | None:
    """Show rows, offer them as CSV (these columns) and JSON (everything); return the chosen row."""
    cells = [{heading: read(row) for heading, read in columns.items()} for row in rows]
    if not cells:
        st.caption("Nothing to list.")
        return None
    extra = {"on_select": "rerun", "selection_mode": "single-row"} if select else {}
    shown = [{heading: _short(cell) for heading, cell in row.items()} for row in cells]
    formats = {name: _number_format(shown, name) for name in columns}
    config = {name: st.column_config.NumberColumn(format=f) for name, f in formats.items() if f}
    event = st.dataframe(shown, hide_index=True, key=f"table {name}", column_config=config, **extra)
    downloads(name, cells, rows)
    chosen = event.selection.rows if select else []
    return chosen[0] if chosen else None


def fields(*names: str) -> dict[str, Callable[[dict[str, Any]], Any]]:
    """Columns that show fields of a row as they are."""
    return {name: itemgetter(name) for name in names}


def downloads(name: str, cells: Sequence[dict[str, Any]], rows: Any) -> None:
    """Buttons that save a table as CSV and the data behind it as JSON."""
    file = name.lower().replace(" ", "_")
    with st.container(horizontal=True):
        _button("CSV", to_csv(cells), f"{file}.csv", "text/csv")
        _button("JSON", to_json(rows), f"{file}.json", "application/json")


def save(label: str, data: str, file_name: str, mime: str) -> None:
    """One download button."""
    _button(label, data, file_name, mime)


def _button(label: str, data: str, file_name: str, mime: str) -> None:
    st.download_button(
        label,
        data,
        file_name,
        mime,
        key=f"save {file_name}",
        on_click="ignore",
        type="tertiary",
        icon=":material/download:",
    )


def _short(cell: Any) -> Any:
    """A number with the digits that the command line prints; the downloads hold it in full."""
    if not isinstance(cell, float):
        return cell
    return float(render.number(cell).replace(",", "")) if math.isfinite(cell) else None


def _number_format(rows: Sequence[Mapping[str, Any]], name: str) -> str | None:
    """As many decimals as the smallest number of a column needs for three digits.

    Columns of whole numbers get separators, those of text nothing.
    """
    if all(type(row[name]) is int for row in rows):
        return "localized"
    found = [abs(row[name]) for row in rows if isinstance(row[name], float) and row[name]]
    if not found:
        return None
    most = _MOST_DECIMALS if max(found) < 100 else 2
    decimals = min(max(2 - math.floor(math.log10(min(found))), 0), most)
    return f"%.{decimals}f" if decimals else "localized"


_MOST_DECIMALS = 7


def to_csv(cells: Sequence[Mapping[str, Any]]) -> str:
    """Rows of like keys as CSV; a spreadsheet takes no cell for a formula."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(cells[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _plain(cell) for name, cell in row.items()} for row in cells)
    return stream.getvalue()


def to_json(rows: Any) -> str:
    """Data as the command line prints it."""
    return json.dumps(rows, indent=2, ensure_ascii=False, allow_nan=False)


def _plain(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
