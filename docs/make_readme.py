"""Rewrites the printed output in README.md by running the commands that it shows.

A block that ends with "…" shows the beginning: up to the line that starts with "Runners-up".
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
_BLOCK = re.compile(r"(```console\n\$ moeplan (.+?)\n)(.*?)(```)", re.S)
_CUT_BEFORE = "Runners-up"


def output_of(command: str) -> list[str]:
    """What the command prints on a terminal 100 columns wide."""
    done = subprocess.run(
        [Path(sys.executable).parent / "moeplan", *shlex.split(command)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "100"},
    )
    return [line.rstrip() for line in done.stdout.splitlines()]


def _renewed(block: re.Match[str]) -> str:
    lines = output_of(block[2])
    if block[3].rstrip().endswith("…"):
        end = next(i for i, line in enumerate(lines) if line.startswith(_CUT_BEFORE))
        lines = [*lines[:end], "…"]
    return block[1] + "\n".join(lines) + "\n" + block[4]


if __name__ == "__main__":
    README.write_text(_BLOCK.sub(_renewed, README.read_text()))
