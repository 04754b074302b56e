"""How `moeplan score` prints errors by group, and every comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from moeplan.cli import render
from moeplan.records.report import OF_AN_ENGINE

if TYPE_CHECKING:
    from moeplan.records.report import ScoreReport, Statistics
    from moeplan.records.score import RecordScore


def show_report(report: ScoreReport, *, rows: bool) -> None:
    """Print coverage, reasons, and a table a dimension; `rows` prints every comparison first."""
    if rows:
        _show_rows([item for item in report.scores if item.covered])
    total = len(report.scores)
    render.print_line(
        f"{total:,} records, {report.covered:,} predicted ({report.covered / total:.0%}), "
        f"{len(report.problems):,} malformed lines skipped",
        bold=True,
    )
    for reason, number in report.reasons().items():
        render.print_line(f"  not predicted: {number:,} × {reason}")
    clean = report.groups("clean")
    for dimension, parts in report.groups().items():
        _show_group(dimension, parts, clean[dimension])
    covered = [item for item in report.scores if item.covered]
    render.print_trust([m.predicted for item in covered for m in item.metrics.values()])


def _show_group(
    dimension: str,
    parts: Mapping[str, Mapping[str, Statistics]],
    clean: Mapping[str, Mapping[str, Statistics]],
) -> None:
    text, num = render.text, render.num
    found = [statistics for families in parts.values() for statistics in families.values()]
    intervals = any(statistics.inside is not None for statistics in found)
    once = any(family in OF_AN_ENGINE for families in parts.values() for family in families)
    render.print_table(
        [text(dimension, keep=True), text("metric", keep=True), num("n"), num("median"),
         num("p90"), num("bias"), num("clean n"), num("clean median"),
         *([num("inside"), num("width")] if intervals else [])],
        [
            [value, family, *_cells(statistics, clean.get(value, {}).get(family))]
            + ([_share(statistics.inside), _share(statistics.median_width)] if intervals else [])
            for value, families in parts.items()
            for family, statistics in families.items()
        ],
        f"Errors by {dimension} (clean: without doubted figures{_ONCE if once else ''})",
    )  # fmt: skip


_ONCE = f"; {' and '.join(OF_AN_ENGINE)}: once an engine"


def _cells(found: Statistics, clean: Statistics | None) -> list[str]:
    return [
        f"{found.n:,}",
        f"{found.median_error:.1%}",
        f"{found.p90_error:.1%}",
        f"{found.bias:+.3f}",
        f"{clean.n:,}" if clean else "0",
        f"{clean.median_error:.1%}" if clean else render.NOTHING,
    ]


def _share(value: float | None) -> str:
    return render.NOTHING if value is None else f"{value:.0%}"


def _show_rows(scores: Sequence[RecordScore]) -> None:
    text, num = render.text, render.num
    render.print_table(
        [text("record"), text("metric", keep=True), num("measured"), num("predicted"),
         num("error")],
        [_row(item, name, found) for item in scores for name, found in item.metrics.items()],
        "Every comparison",
    )  # fmt: skip


def _row(item: RecordScore, name: str, found: Any) -> list[str]:
    ratio = found.predicted.value / found.measured
    measured, predicted = render.number(found.measured, 4), render.estimate(found.predicted)
    return [item.record.id, name, measured, predicted, f"{ratio - 1:+.1%}"]
