"""How `moeplan score --published` prints the judged tables and the constants behind them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

from moeplan.cli import render

if TYPE_CHECKING:
    from moeplan.records.constants import UsedConstant
    from moeplan.records.published import PublishedReport, PublishedRow, PublishedTable, Verdict


def show_published(report: PublishedReport, *, every_constant: bool) -> None:
    """Print each system's rows, limits, real figures and reasons, then what they rest on."""
    for table in report.tables:
        _show_table(table)
    if every_constant:
        _show_constants(report.constants)
    _show_summary(report)


def _show_table(table: PublishedTable) -> None:
    text, num = render.text, render.num
    common = _common_start([row.label for row in table.rows])
    header = f"{common}…" if common else "row"
    render.print_table(
        [text(header), text("metric", keep=True), num("measured"), num("predicted"),
         num("error"), text("judged", keep=True)],
        _rows(table.rows, len(common)),
        table.name,
    )  # fmt: skip
    render.print_table(
        [text("limit on"), text("limit"), num("real figure"), text("", keep=True)],
        [[v.what, v.limit, figure(v), verdict(v)] for v in table.verdicts],
    )
    for missed in table.verdicts:
        if not missed.passed:
            render.print_line(f"  missed: {missed.what}: {missed.reason or 'no reason on file'}")
    for note in table.notes:
        render.print_line(f"  {note}")
    render.print_line(f"  Source: {table.source}")
    render.print_line()


def _common_start(labels: Sequence[str]) -> str:
    """What all record ids begin with, up to a hyphen and with it."""
    columns = takewhile(lambda letters: len(set(letters)) == 1, zip(*labels, strict=False))
    start, hyphen, _ = "".join(letters[0] for letters in columns).rpartition("-")
    return start + hyphen


def _rows(rows: Sequence[PublishedRow], cut: int) -> Iterator[list[str]]:
    for row in rows:
        ratio = row.predicted / row.measured
        figures = [render.number(row.measured, 4), render.number(row.predicted, 4)]
        judged = "yes" if row.counted else "no"
        yield [row.label[cut:], row.metric, *figures, f"{ratio - 1:+.1%}", judged]


def figure(verdict: Verdict) -> str:
    """The real figure in the unit of its limit."""
    return f"{verdict.figure:.1%}" if "%" in verdict.limit else f"{verdict.figure:.3f}"


def verdict(found: Verdict) -> str:
    """In a word whether a limit holds."""
    return "held" if found.passed else "MISSED"


def _show_constants(constants: Sequence[UsedConstant]) -> None:
    sources = render.Footnotes()
    text, num = render.text, render.num
    render.print_table(
        [text("constant"), num("value"), text("grade", keep=True), num("samples"), num("rows"),
         num("source")],
        [
            [c.address, render.number(c.value), c.grade, render.count(c.samples), f"{c.records}",
             sources.mark("; ".join(filter(None, (c.source, c.date, c.note))))]
            for c in constants
        ],
        "Constants behind the published rows (rows: how many use it)",
    )  # fmt: skip
    sources.print("Sources of these constants")


def _show_summary(report: PublishedReport) -> None:
    verdicts = [v for table in report.tables for v in table.verdicts]
    held = sum(v.passed for v in verdicts)
    render.print_line(f"Published limits: {held} of {len(verdicts)} held", bold=True)
    grades = Counter(constant.grade for constant in report.constants)
    circular = sum(constant.rests_on is not None for constant in report.constants)
    render.print_line(
        f"{len(report.constants)} constants stand behind these rows "
        f"({', '.join(f'{n} {grade}' for grade, n in grades.most_common())}); {circular or 'none'} "
        "of them rest on these sources alone. --rows lists those, `moeplan hardware --constants` "
        "all that exist."
    )
    for fault in report.faults:
        render.print_line(f"  fault: {fault}")
    render.print_line()
