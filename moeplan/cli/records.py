"""`moeplan records import`: results of load generators as run records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from moeplan.cli import render
from moeplan.cli.boundary import ErrorBoundary
from moeplan.cli.options import JsonFlag
from moeplan.cli.targets import check_target
from moeplan.errors import InputError

records = typer.Typer(
    cls=ErrorBoundary,
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)

ResultFiles = Annotated[
    list[Path], typer.Argument(help="Result files, or the folder of a vLLM sweep.")
]
OutFile = Annotated[Path, typer.Option("--out", help="JSON Lines file to write.")]
Tool = Annotated[
    str | None, typer.Option("--tool", help="Load generator.  [default: found from the content]")
]
Known = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="What no result says, as field=value with JSON values: hardware=gb10, gpus=2, "
        'parallelism={"tp": 2}.',
    ),
]


@records.callback()
def root() -> None:
    """Turn benchmark results into run records."""


@records.command("import")
def import_command(
    files: ResultFiles,
    out: OutFile,
    tool: Tool = None,
    known: Known = None,
    as_json: JsonFlag = False,
) -> None:
    """Turn benchmark results into run records."""
    from moeplan.records.importers import import_results
    from moeplan.records.reader import write_records

    check_target("out", out)
    facts = parse_facts(known or [])
    runs = [run for file in files for run in import_results(file, tool, facts)]
    write_records(out, runs)
    data = {"out": str(out), "records": [{"id": r.id, "measured": r.measured} for r in runs]}
    render.emit(data, as_json, _show)


def parse_facts(pairs: Sequence[str]) -> dict[str, Any]:
    """Read "field=value" pairs; a value that is no JSON stands for itself."""
    facts = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or not name:
            raise InputError(f"--set {pair!r} is no field=value pair, such as hardware=gb10")
        try:
            facts[name] = json.loads(value)
        except json.JSONDecodeError:
            facts[name] = value
    return facts


def _show(data: dict[str, Any]) -> None:
    render.print_table(
        [render.text("record"), render.num("figures")],
        [[row["id"], str(len(row["measured"]))] for row in data["records"]],
        f"{len(data['records'])} records in {data['out']}",
    )
