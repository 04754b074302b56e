"""An append-only store of runs: one folder a run, nothing half-written ever counts.

    runs/
      <run key>/
        manifest.jsonl      one line a finished file: name, SHA-256, bytes; a last line "complete"
        plan.json, prediction.json, engine.json, repeat-0.json, steps.npz, ...

A file is written beside its place, forced to disk and renamed; only then its line is appended to
the manifest. What a crash leaves is a file without a line, or half a line: both are reported and
skipped.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moeplan.errors import InputError, MoeplanError, RecordError

MANIFEST = "manifest.jsonl"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Disk full, quota used up, file larger than allowed."""


class DiskFullError(MoeplanError):
    """The store's disk or quota is full; what was stored before is intact."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Entry:
    """A file that a run finished writing."""

    name: str
    sha256: str
    bytes: int


@dataclass(slots=True)
class RunFolder:
    """One run on disk. `problems` names what could not be used, one line each."""

    path: Path
    entries: dict[str, Entry] = field(default_factory=dict)
    complete: bool = False
    problems: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        """Name of the run; the same run of a plan always gets the same."""
        return self.path.name

    def write(self, name: str, content: bytes) -> Path:
        """Add a file, durably. Raises `InputError` where the name is taken: runs only grow."""
        if name in self.entries:
            raise InputError(f"{self.path / name} exists already; a stored run is never rewritten")
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path / name, content)
        entry = Entry(name, hashlib.sha256(content).hexdigest(), len(content))
        self._append({"name": name, "sha256": entry.sha256, "bytes": entry.bytes})
        self.entries[name] = entry
        return self.path / name

    def write_json(self, name: str, value: Any) -> Path:
        """Add a JSON file."""
        return self.write(name, (json.dumps(value, indent=1) + "\n").encode())

    def read(self, name: str) -> bytes:
        """Content of a file whose checksum agreed when the folder was opened.

        Raises `RecordError` where the run has no such file, or it was found damaged.
        """
        if name not in self.entries:
            raise RecordError(f"{self.path}: no intact {name}; run the plan again to measure it")
        return (self.path / name).read_bytes()

    def read_json(self, name: str) -> Any:
        """A stored JSON file as plain values."""
        return json.loads(self.read(name))

    def names(self, prefix: str) -> list[str]:
        """Intact files whose name starts so, in order of writing."""
        return [name for name in self.entries if name.startswith(prefix)]

    def finish(self) -> None:
        """Mark the run complete; a run that lacks this mark is continued."""
        if not self.complete:
            self._append({"complete": True})
            self.complete = True

    def _append(self, line: dict[str, Any]) -> None:
        path = self.path / MANIFEST
        with path.open("ab+") as stream:
            if stream.tell() and _last_byte(path) != b"\n":  # a crash cut the line before
                stream.write(b"\n")
            stream.write(json.dumps(line).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())


class Store:
    """All runs under one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, key: str) -> RunFolder:
        """The run of that name, as far as it got; a new one where there is none."""
        return open_run(self.root / key)

    def runs(self) -> Iterator[RunFolder]:
        """Every run that left at least a manifest, by name."""
        if not self.root.is_dir():
            raise InputError(f"{self.root} is no folder; give the -o folder of `validate run`")
        for path in sorted(self.root.iterdir()):
            if path.is_dir() and (path / MANIFEST).exists():
                yield open_run(path)


def open_run(path: Path) -> RunFolder:
    """Read a run's manifest and check every file against it."""
    run = RunFolder(path)
    manifest = path / MANIFEST
    if not manifest.exists():
        return run
    for number, line in enumerate(manifest.read_bytes().splitlines(), 1):
        _take_line(run, line, f"{manifest}:{number}")
    _report_strays(run)
    return run


def _take_line(run: RunFolder, line: bytes, where: str) -> None:
    if not line.strip():
        return
    try:
        values = json.loads(line)
        if values.get("complete"):
            run.complete = True
            return
        entry = Entry(values["name"], values["sha256"], values["bytes"])
    except (ValueError, KeyError, AttributeError):
        run.problems.append(f"{where}: half-written line, skipped")
        return
    damage = _damage(run.path / entry.name, entry)
    if damage:
        run.problems.append(f"{run.path / entry.name}: {damage}, skipped")
    else:
        run.entries[entry.name] = entry


def _damage(path: Path, entry: Entry) -> str | None:
    if not path.exists():
        return "missing"
    content = path.read_bytes()
    if len(content) != entry.bytes:
        return f"{len(content)} bytes instead of {entry.bytes}"
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        return "checksum differs"
    return None


def _report_strays(run: RunFolder) -> None:
    """Temporary files of a writer that died; other files (logs being written) are not ours."""
    for path in run.path.glob(".half-*"):
        run.problems.append(f"{path}: half-written, skipped")


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it appears whole or not at all, and survives a crash of the host.

    Raises `DiskFullError` where there is no room; nothing stays behind then.
    """
    try:
        _write_beside(path, content)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise DiskFullError(
            f"{path}: {error.strerror}; what was stored before is intact: make room and run again"
        ) from error


def _write_beside(path: Path, content: bytes) -> None:
    descriptor, name = tempfile.mkstemp(prefix=".half-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(path)
        _sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1)
