"""Measured runs beside a prediction: which there are, and why not more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from moeplan.cli import render

if TYPE_CHECKING:
    from moeplan.records.near import Traffic
    from moeplan.records.record import RunRecord

MOST_ROWS = 8
"""Runs that are printed."""
SERVED = (
    "dummy weights, routing counted; no independent test, as kernel tables and shipped "
    "calibrations rest on some of these runs"
)


def near_data(deployment: dict[str, Any], workloads: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Known runs of a deployment under these workloads, alike but for their loads.

    Both as in `moeplan simulate --json`.
    """
    from moeplan.records.near import known_records, near, traffic_of

    known = known_records()
    found = near(known, deployment, workloads[0])
    loads = {load for w in workloads for load in (w.get("concurrency"), w.get("request_rate"))}
    same = sorted(found.same, key=lambda r: (_load(r)[0] not in loads, _load(r)))
    return {
        "known": len(known),
        "same_traffic": [_row(record) for record in same],
        "other_traffic": {"runs": len(found.other), "traffic": _words(found.other, traffic_of)},
        "other_placements": found.spread,
    }


def step_near_data(deployment: dict[str, Any], batch: int) -> dict[str, Any]:
    """Known runs of a deployment that kept as many requests in flight as a step decodes.

    A step of prefill alone (`batch` 0) has none: runs at a rate do not say how many were in flight.
    """
    from moeplan.records.near import in_flight, known_records, near, traffic_of

    known = known_records()
    found = near(known, deployment, {})
    same = [r for r in found.other if batch > 0 and in_flight(r) == batch and _gap_ms(r)]
    rest = [r for r in found.other if r not in same]
    return {
        "known": len(known),
        "same_batch": [_row(record) for record in same],
        "other_traffic": {"runs": len(rest), "traffic": _words(rest, traffic_of)},
        "other_placements": found.spread,
    }


def _row(record: RunRecord) -> dict[str, Any]:
    load, unit = _load(record)
    prompt, answer = record.workload.input_tokens, record.workload.output_tokens
    return {
        "id": record.id,
        "source": record.source.title,
        "engine": f"{record.engine.name} {record.engine.version or ''}".strip(),
        "input_tokens": prompt,
        "output_tokens": answer,
        "load": load,
        "load_unit": unit,
        "output_tok_s": record.measured.get("output_tok_s"),
        "ttft_ms_mean": record.measured.get("ttft_ms_mean"),
        "tpot_ms_mean": _gap_ms(record),
        "notes": record.notes,
    }


def _load(record: RunRecord) -> tuple[float, str]:
    from moeplan.records.near import in_flight

    rate = record.workload.request_rate
    if isinstance(rate, float):
        return rate, "req/s"
    return float(in_flight(record)), "in flight"


def _gap_ms(record: RunRecord) -> float | None:
    """Mean milliseconds a token after the first."""
    from moeplan.records.near import gap_of_rate_ms

    measured = record.measured
    gap = measured.get("tpot_ms_mean") or measured.get("itl_ms_mean")
    return gap or gap_of_rate_ms(record)


def _words(records: Sequence[RunRecord], traffic_of: Any) -> list[str]:
    """Each kind of their traffic once, in words."""
    kinds: set[Traffic] = {traffic_of(record) for record in records}
    return [f"{prompt:,} in / {answer:,} out {how}" for prompt, answer, how in sorted(kinds)]


def show_near(data: dict[str, Any]) -> None:
    """Print what `near_data` or `step_near_data` found."""
    traffic = "same_traffic" in data
    rows = data["same_traffic"] if traffic else data["same_batch"]
    if rows:
        what = "this traffic" if traffic else "as many requests in flight"
        _show_rows(rows, f"Measured with {what}; settings and version may differ")
    others = data["other_traffic"]
    if others["runs"]:
        listed = "; ".join(others["traffic"][:MOST_ROWS])
        runs = "1 run" if others["runs"] == 1 else f"{others['runs']} runs"
        render.print_line(f"This deployment measured with other traffic ({runs}): {listed}.")
    elif not rows:
        render.print_line(_none(data))


def _none(data: dict[str, Any]) -> str:
    spread = ", ".join(f"{place} ({runs})" for place, runs in data["other_placements"].items())
    if spread:
        return f"Measured runs of this model, weights and GPU are placed otherwise: {spread}."
    return f"None of {data['known']} known measured runs has this engine, model, weights and GPU."


def _show_rows(rows: Sequence[dict[str, Any]], title: str) -> None:
    text, num, sources = render.text, render.num, render.Footnotes()
    render.print_table(
        [text("record", keep=True), num("load"), num("in / out"), num("tok/s"), num("TTFT ms"),
         num("TPOT ms"), num("by")],
        [_cells(row, sources) for row in rows[:MOST_ROWS]],
        title,
    )  # fmt: skip
    if len(rows) > MOST_ROWS:
        render.print_line(f"{len(rows) - MOST_ROWS} more of these: --json lists them.")
    sources.print("Measured by")


def _cells(row: dict[str, Any], sources: render.Footnotes) -> list[str]:
    from moeplan.records.served import SERVED_BY

    figures = (row["output_tok_s"], row["ttft_ms_mean"], row["tpot_ms_mean"])
    caveat = f"; {SERVED}" if row["source"] == SERVED_BY else ""
    return [
        row["id"],
        f"{row['load']:g}{'/s' if row['load_unit'] == 'req/s' else ''}",
        f"{row['input_tokens']:,.0f} / {row['output_tokens']:,.0f}",
        *(render.number(figure) for figure in figures),
        sources.mark(f"{row['source']}, {row['engine']}{caveat}"),
    ]
