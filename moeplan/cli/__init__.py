"""The `moeplan` command: parse, call the library, print."""

from __future__ import annotations

from typing import Annotated

import typer

from moeplan.cli.lazy import LazyGroup
from moeplan.version import __version__

app = typer.Typer(
    name="moeplan",
    cls=LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # boxes would cut long option names
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"moeplan {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Predict and plan LLM serving for Mixture-of-Experts models.

    For example:

    \b
    moeplan recommend gpt-oss-120b --device h100_sxm --gpus 2 --concurrency 32 --ttft 2s
    moeplan fit mistral-large-2411 --checkpoint nvfp4 --device gb10 --max-model-len 32768
    """


def main() -> None:
    """Entry point of the console script; leaves with the exit code of the contract."""
    app()
