"""Refresh the tables of docs/validation.md; `--check` exits with 1 if one is out of date.

Unpacks the served evidence and puts what `moeplan validate compare` prints, first with its
calibration and then without, into the page's blocks, campaign after campaign; a block is known by
its first line.
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
CAMPAIGNS = {
    "2026-11-27-served": "h100_sxm-vllm-0.24.calibration.json",
    "2026-11-27-h200": "h200-vllm-0.24.calibration.json",
}
"""Folder of the evidence, and the calibration that its fitted runs made; as the page has them."""
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


def campaign_tables(evidence: str, calibration: str) -> list[str]:
    """Tables of one campaign in the order of the page."""
    file = ROOT / "hardware_specs" / "calibrations" / calibration
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "runs"
        unpack(ROOT / "validate" / "evidence" / evidence / "runs.tar.xz", store)
        calibrated = printed_tables(store, "--calibration", str(file))
        shipped = printed_tables(store)
    served = [t for t in calibrated if t.startswith("measured, and")]
    others = [t for t in calibrated if t not in served]
    return [*others, *sorted(served, key=_fitted), shipped[-1]]


def _fitted(table: str) -> bool:
    """Whether a table of served runs holds the fitted ones, which follow the held-out ones."""
    return " fit run " in table


def main() -> int:
    """Write or check the page; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    tables = [table for item in CAMPAIGNS.items() for table in campaign_tables(*item)]
    old = PAGE.read_text()
    new = refreshed(old, tables)
    if given.check and new != old:
        print(f"{PAGE.name} is out of date: run docs/make_validation.py")
        return 1
    PAGE.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
