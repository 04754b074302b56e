"""`moeplan score`: measured runs simulated again, and how far off the predictions are."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moeplan.cli import render
from moeplan.cli.options import CalibrationFile
from moeplan.cli.progress import progress_bar
from moeplan.cli.session import read_hardware
from moeplan.errors import InputError
from moeplan.version import __version__

if TYPE_CHECKING:
    from moeplan.records.report import ScoreReport, Statistics
    from moeplan.records.score import RecordScore

RecordFiles = Annotated[list[Path] | None, typer.Argument(help="JSON Lines files of run records.")]
Published = Annotated[
    bool, typer.Option("--published", help="Score the published runs that ship with moeplan.")
]
JsonOut = Annotated[
    Path | None, typer.Option("--json", metavar="OUT", help="Write every comparison to this file.")
]
By = Annotated[
    str, typer.Option("--by", help="Dimensions to group by, with commas between; empty for none.")
]
Rows = Annotated[bool, typer.Option("--rows", help="Print every record's metrics too.")]


def score(
    files: RecordFiles = None,
    published: Published = False,
    by: By = "hardware,architecture",
    rows: Rows = False,
    calibration: CalibrationFile = None,
    json_out: JsonOut = None,
) -> None:
    """Compare predictions with measured runs.

    Each record's deployment is simulated under its own client protocol; errors are
    |predicted / measured - 1|, bias is the median of ln(predicted / measured).
    """
    from moeplan.records.reader import read_many
    from moeplan.records.report import make_report
    from moeplan.records.score import score as score_records

    paths = [*(files or []), *(published_files() if published else [])]
    _check(paths, json_out)
    dimensions = [word.strip() for word in by.split(",") if word.strip()]
    make_report([], dimensions)  # refuses an unknown dimension before the work
    hardware, found = read_hardware(calibration), read_many(paths)
    for problem in found.problems:
        print(f"skipped: {problem}", file=sys.stderr)
    if not found.records:
        raise InputError(f"no record in {', '.join(map(str, paths))}; nothing to score")
    with progress_bar("scoring") as bar:
        jobs = len(os.sched_getaffinity(0))
        scores = score_records(found.records, hardware, jobs=jobs, progress=bar)
    name = str(calibration) if calibration else None
    report = make_report(scores, dimensions, found.problems, name)
    if json_out is not None:
        json_out.write_text(json.dumps(render.plain(report.to_json(__version__)), allow_nan=False))
    _show(report, rows=rows)


def published_files() -> list[Path]:
    """The published runs in the package, one file a source."""
    import moeplan.records

    folder = Path(moeplan.records.__file__).parent / "published"
    return sorted(folder.glob("*.jsonl"))


def _check(paths: Sequence[Path], json_out: Path | None) -> None:
    if not paths:
        raise InputError("no records to score; name a JSON Lines file or add --published")
    if json_out is not None and not json_out.parent.is_dir():
        raise InputError(f"json {str(json_out)!r}: no folder {str(json_out.parent)!r}; make it")


def _show(report: ScoreReport, *, rows: bool) -> None:
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
        f"Errors by {dimension} (clean: without doubted figures)",
    )  # fmt: skip


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
