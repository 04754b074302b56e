"""What the README prints is what the commands print today."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```console\n\$ moeplan (.+?)\n(.*?)```", README, re.S)


@pytest.mark.slow
@pytest.mark.parametrize(("command", "printed"), BLOCKS, ids=[b[0].split()[0] for b in BLOCKS])
def test_printed_output_is_true(command, printed):
    moeplan = Path(sys.executable).parent / "moeplan"
    done = subprocess.run(
        [moeplan, *shlex.split(command.replace("\\\n", " "))],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "100"},
    )
    shown = [line.rstrip() for line in done.stdout.splitlines()]
    expected = [line.rstrip() for line in printed.splitlines()]
    assert expected
    if expected[-1] == "…":  # the README shows the beginning
        expected.pop()
        shown = shown[: len(expected)]
    assert shown == expected


def test_the_readme_shows_real_output():
    assert len(BLOCKS) >= 2


@pytest.mark.parametrize(("page", "start"), [("accuracy.md", "| "), ("validation.md", " ")])
def test_accuracy_figures_stand_in_the_documents_too(page, start):
    """Those pages are checked against what the commands compute."""
    shown = (Path(__file__).parent.parent / "docs" / page).read_text().splitlines()
    part = README.split("## How far to trust it")[1].split("## ")[0]
    rows = [line for line in part.splitlines() if line.startswith(start)]
    assert len(rows) >= 5
    assert set(rows) <= set(shown)
