"""`moeplan score`: measured runs simulated again, and how far off the predictions are."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moeplan import __version__
from moeplan.cli import render
from moeplan.cli.near import SERVED
from moeplan.cli.options import CalibrationFile
from moeplan.cli.progress import progress_bar
from moeplan.cli.session import read_hardware
from moeplan.cli.targets import check_target
from moeplan.errors import InputError, MoeplanError

if TYPE_CHECKING:
    from moeplan.hardware_specs import Hardware
    from moeplan.records.published import PublishedReport
    from moeplan.records.reader import RecordFile
    from moeplan.records.report import ScoreReport
    from moeplan.records.score import RecordScore

RecordFiles = Annotated[list[Path] | None, typer.Argument(help="JSON Lines files of run records.")]
Published = Annotated[
    bool,
    typer.Option(
        "--published",
        help="Score the published runs that ship with moeplan, and hold them to their limits.",
    ),
]
Served = Annotated[
    bool,
    typer.Option(
        "--served",
        help="Score the runs that moeplan's own validator served; apart from all others, as tables "
        "and calibrations rest on some of them.",
    ),
]
Intervals = Annotated[
    bool,
    typer.Option(
        "--intervals",
        help="Hold the intervals of predictions against published runs of sources that they have "
        "not seen.",
    ),
]
JsonOut = Annotated[
    Path | None, typer.Option("--json", metavar="OUT", help="Write every comparison to this file.")
]
By = Annotated[
    str, typer.Option("--by", help="Dimensions to group by, with commas between; empty for none.")
]
Rows = Annotated[
    bool,
    typer.Option(
        "--rows", help="Print every record's metrics too, and with --published every constant."
    ),
]


def score(
    files: RecordFiles = None,
    published: Published = False,
    served: Served = False,
    by: By = "hardware,architecture",
    rows: Rows = False,
    intervals: Intervals = False,
    calibration: CalibrationFile = None,
    json_out: JsonOut = None,
) -> None:
    """Compare predictions with measured runs.

    Each record's deployment is simulated under its own client protocol; errors are
    |predicted / measured - 1|, bias is the median of ln(predicted / measured).
    """
    from moeplan.records.reader import read_many
    from moeplan.records.report import make_report

    paths = files or []
    if intervals:
        _show_coverage()
        if not paths and not published and not served:
            return
    _check(paths, published, served, json_out)
    dimensions = [word.strip() for word in by.split(",") if word.strip()]
    make_report([], dimensions)  # refuses an unknown dimension before the work
    hardware = read_hardware(calibration)
    found = _served() if served else read_many(paths)
    for problem in found.problems:
        print(f"skipped: {problem}", file=sys.stderr)
    if paths and not found.records:
        raise InputError(f"no record in {', '.join(map(str, paths))}; nothing to score")
    tables = _published(hardware) if published else None
    scores = [*_scores(found, hardware), *(tables.scores if tables else ())]
    name = str(calibration) if calibration else None
    report = make_report(scores, dimensions, found.problems, name)
    if json_out is not None:
        _write(json_out, report, tables)
    _show(report, tables, rows=rows)
    if served:
        render.print_line(
            f"Runs of moeplan validate: {SERVED}. Their predictions take the spread of routing "
            "that was counted."
        )
    if tables and tables.faults and calibration is None:
        raise MoeplanError(f"published runs: {'; '.join(tables.faults)}")


def _show_coverage() -> None:
    """How many figures of a source lie in intervals made without it."""
    from moeplan.estimate import COVERED
    from moeplan.records.residuals import coverage

    text, num = render.text, render.num
    render.print_table(
        [text("figure"), num("rows"), num("sources"), num("inside"), num("median high / low")],
        [
            [c.family, str(c.rows), str(c.sources), f"{c.inside:.0%}", f"{1 + c.median_width:.2f}"]
            for c in coverage()
        ],
        f"{COVERED:.0%} intervals against sources that they have not seen",
    )


def _check(paths: Sequence[Path], published: bool, served: bool, json_out: Path | None) -> None:
    if served and (paths or published):
        raise InputError("--served stands alone: its runs are not independent of the constants")
    if not paths and not published and not served:
        raise InputError(
            "no records to score; name a JSON Lines file or add --published or --served"
        )
    check_target("json", json_out)


def _served() -> RecordFile:
    from moeplan.records.reader import RecordFile
    from moeplan.records.served import served_records

    return RecordFile(list(served_records()), [])


def _scores(found: RecordFile, hardware: Hardware) -> list[RecordScore]:
    from moeplan.records.score import score as score_records

    with progress_bar("scoring") as bar:
        return score_records(found.records, hardware, jobs=_cores(), progress=bar)


def _published(hardware: Hardware) -> PublishedReport:
    from moeplan.records.published import published_report

    with progress_bar("scoring published runs") as bar:
        return published_report(hardware, jobs=_cores(), progress=bar)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _write(file: Path, report: ScoreReport, tables: PublishedReport | None) -> None:
    data: dict[str, Any] = report.to_json(__version__)
    if tables is not None:
        data["published"] = tables.to_dict()
    file.write_text(json.dumps(render.plain(data), allow_nan=False), encoding="utf-8")


def _show(report: ScoreReport, tables: PublishedReport | None, *, rows: bool) -> None:
    from moeplan.cli.score_published import show_published
    from moeplan.cli.score_report import show_report

    if tables is not None:
        show_published(tables, every_constant=rows)
    show_report(report, rows=rows)
