"""The command line in the tests' own process."""

from __future__ import annotations

from typer.testing import CliRunner

from moeplan.cli import app

_runner = CliRunner()


def run(*arguments: str, code: int = 0):
    """What a command printed, after it left with the code that is expected."""
    result = _runner.invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    return result


def refuse(*arguments: str, code: int = 2) -> str:
    """The one line that a refusal prints, after whatever progress there was."""
    result = run(*arguments, code=code)
    assert result.stdout == ""
    *progress, line = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert all(text.endswith("%") for text in progress)
    return line


def squeezed(text: str) -> str:
    """Printed text without its layout, so that no test depends on a terminal's width."""
    return " ".join(text.split())
