"""One archive of a store, to carry runs from a GPU host without a network."""

from __future__ import annotations

import tarfile
from pathlib import Path

from moeplan.errors import InputError, RecordError
from moeplan.validate.store import MANIFEST, Store

_COMPRESSION = {".tar": "", ".gz": "gz", ".tgz": "gz", ".xz": "xz", ".bz2": "bz2"}


def pack(runs: Path, archive: Path) -> list[str]:
    """Write every intact file of every run, manifests last, into one tar; returns the problems.

    The suffix picks the compression: .tar.gz, .tar.xz, .tar.bz2 or .tar.
    Raises `InputError` for another suffix or a folder without runs.
    """
    if archive.suffix not in _COMPRESSION:
        allowed = ", ".join(_COMPRESSION)
        raise InputError(f"{archive}: suffix {archive.suffix!r} is unknown; use one of {allowed}")
    folders = list(Store(runs).runs())
    if not folders:
        raise InputError(f"{runs} holds no runs; give the -o folder of `validate run`")
    half = archive.with_name(f".half-{archive.name}")
    mode = f"w:{_COMPRESSION[archive.suffix]}"
    with tarfile.open(half, mode) as tar:  # type: ignore[call-overload]
        for run in folders:
            for name in [*run.entries, MANIFEST]:
                tar.add(run.path / name, arcname=f"{run.key}/{name}")
    half.replace(archive)
    return [problem for run in folders for problem in run.problems]


def unpack(archive: Path, runs: Path) -> int:
    """Unpack an archive into a store; returns the number of runs. Existing runs stay untouched.

    Raises `RecordError` where the archive is damaged and `InputError` where a run exists already.
    """
    runs.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive) as tar:
            keys = {Path(name).parts[0] for name in tar.getnames()}
            taken = sorted(key for key in keys if (runs / key).exists())
            if taken:
                raise InputError(f"{runs} holds {taken[0]} already; unpack into another folder")
            tar.extractall(runs, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise RecordError(f"{archive}: not a whole archive ({error}); copy it again") from error
    return len(keys)
