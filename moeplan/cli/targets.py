"""Files that a command will write: refused before the work, not after it."""

from __future__ import annotations

from pathlib import Path

from moeplan.errors import InputError


def check_target(option: str, path: Path | None) -> None:
    """Raise `InputError` where `path` is a folder, or lies in one that does not exist."""
    if path is None:
        return
    if path.is_dir():
        raise InputError(f"{option} {str(path)!r} is a folder; name a file")
    if not path.parent.is_dir():
        raise InputError(f"{option} {str(path)!r}: no folder {str(path.parent)!r}; make it first")
