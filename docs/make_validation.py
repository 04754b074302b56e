"""Refresh the tables of docs/validation.md; `--check` exits with 1 if one is out of date.

Unpacks the served evidence and puts what `moeplan validate compare` prints, first with the
calibration and then without, into the page's blocks; a block is known by its first line.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from moeplan.validate.archive import unpack

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "validation.md"
ARCHIVE = ROOT / "validate" / "evidence" / "2026-11-27-served" / "runs.tar.xz"
CALIBRATION = ROOT / "hardware_specs" / "calibrations" / "h100_sxm-vllm-0.24.calibration.json"
_BLOCK = re.compile(r"```\n(?P<title>\S[^\n]*)\n.*?```", re.DOTALL)


def printed_tables(store: Path, *options: str) -> list[str]:
    """What the command prints, a table each, its title first."""
    command = Path(sys.executable).parent / "moeplan"
    argv = [command, "validate", "compare", str(store), *options]
    ran = subprocess.run(argv, capture_output=True, text=True, check=True)
    lines = [line.rstrip() for line in ran.stdout.splitlines()]
    starts = [i for i, line in enumerate(lines) if line and not line.startswith(" ")]
    ends = [*starts[1:], len(lines)]
    return ["\n".join(lines[i:j]).strip() for i, j in zip(starts, ends, strict=True)]


def refreshed(page: str, tables: list[str]) -> str:
    """The page with each block replaced by the next unused table of its title."""
    left = list(tables)

    def replace(block: re.Match[str]) -> str:
        found = next((t for t in left if t.startswith(block["title"] + "\n")), None)
        if found is None:
            raise SystemExit(f"{PAGE}: nothing printed is called {block['title']!r}")
        left.remove(found)
        return f"```\n{found}\n```"

    return _BLOCK.sub(replace, page)


def main() -> int:
    """Write or check the page; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "runs"
        unpack(ARCHIVE, store)
        calibrated = printed_tables(store, "--calibration", str(CALIBRATION))
        shipped = printed_tables(store)
    served = [t for t in calibrated if t.startswith("measured, and")]
    others = [t for t in calibrated if t not in served]
    old = PAGE.read_text()
    new = refreshed(old, [*others, *reversed(served), shipped[-1]])
    if given.check and new != old:
        print(f"{PAGE.name} is out of date: run docs/make_validation.py")
        return 1
    PAGE.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
