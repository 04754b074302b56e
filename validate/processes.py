"""Process groups that never outlive their owner.

An engine is a tree of processes. Each tree gets a session of its own (the terminal's Ctrl-C does
not reach it, its owner stops it in order), and a guard process stops it when the owner dies without
a word. Linux only, like the engines.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_GUARD = Path(__file__).parent / "inside" / "moeplan_guard.py"
_POLL_S = 0.05


class ProcessGroup:
    """A command in a session of its own.

    States: running (`poll()` is None), exited (its code; children may linger until `stop`), stopped
    (no process of the group is left).
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        output: IO[bytes],
        cwd: Path | None = None,
        stdin: int | None = subprocess.DEVNULL,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.process = subprocess.Popen(
            list(argv),
            env=dict(env),
            cwd=cwd,
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=pass_fds,
        )
        self.group = self.process.pid
        try:
            self._guard = _start_guard(self.group)
        except BaseException:
            self._signal(signal.SIGKILL)
            raise

    def poll(self) -> int | None:
        """Exit code of the leader, None while it runs."""
        return self.process.poll()

    def stop(self, grace_s: float = 30.0) -> None:
        """SIGTERM to the group, SIGKILL to what is left after `grace_s`; returns when all is gone.

        Safe to call twice, and on a group that has exited by itself.
        """
        try:
            self._signal(signal.SIGTERM)
            if not self._gone_within(grace_s):
                self._signal(signal.SIGKILL)
                self._gone_within(10.0)
        finally:
            self._signal(signal.SIGKILL)
            self._dismiss_guard()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.group, number)

    def _gone_within(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.process.poll()
            if not members(self.group):
                return True
            time.sleep(_POLL_S)
        return False

    def _dismiss_guard(self) -> None:
        if self._guard.stdin is not None and not self._guard.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._guard.stdin.write(b"d")
                self._guard.stdin.flush()
            self._guard.stdin.close()
        self._guard.wait(timeout=30)


def members(group: int) -> list[int]:
    """Process ids of a group that still run; zombies, which hold nothing, are left out."""
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and _runs_in(entry, group)
    ]


def _runs_in(entry: Path, group: int) -> bool:
    try:
        stat = (entry / "stat").read_text()
    except OSError:  # it exited meanwhile
        return False
    state, _parent, process_group = stat[stat.rindex(")") + 2 :].split()[:3]
    return int(process_group) == group and state not in "ZX"


def _start_guard(group: int) -> subprocess.Popen[bytes]:
    """A process that outlives a killed owner long enough to stop the group."""
    return subprocess.Popen(
        [sys.executable, "-I", str(_GUARD), str(group)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
