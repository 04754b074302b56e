"""Make the records of served runs from their archives; `--check` exits with 1 if one is old.

Every `validate/evidence/<name>/runs.tar.xz` becomes `moeplan/records/served/<name>.jsonl`. A run of
which no repeat is evidence (a kernel was compiled meanwhile) is named and left out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from moeplan.records.reader import record_line
from moeplan.validate.records import archived_records

ROOT = Path(__file__).parents[1]
EVIDENCE = ROOT / "validate" / "evidence"
SERVED = ROOT / "moeplan" / "records" / "served"


def lines_of(archive: Path) -> tuple[str, list[str]]:
    """Text of an archive's file, and what of the archive was not used."""
    place = f"{archive.relative_to(ROOT).as_posix()}"
    records, problems = archived_records(archive, place)
    return "".join(map(record_line, records)), problems


def main() -> int:
    """Write or check the files; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    stale = []
    for archive in sorted(EVIDENCE.glob("*/runs.tar.xz")):
        file = SERVED / f"{archive.parent.name}.jsonl"
        text, problems = lines_of(archive)
        for problem in problems:
            print(f"not used: {problem}", file=sys.stderr)
        if given.check and (not file.exists() or file.read_text() != text):
            stale.append(file.name)
        elif not given.check:
            file.write_text(text)
            print(f"{file.name}: {len(text.splitlines())} records")
    if stale:
        print(f"out of date: {', '.join(stale)}; run docs/make_served.py")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
