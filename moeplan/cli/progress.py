"""Progress on stderr for what takes more than a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PATIENCE_S = 1.0
"""A bar that flashes by only disturbs."""
LOG_EVERY_S = 10.0
"""Where stderr is no terminal, a line as often as this stands for the bar."""


class ProgressBar:
    """Call it with the share that is done (0..1); it shows itself after `PATIENCE_S`."""

    def __init__(self, label: str):
        self._label = label
        self._next = time.monotonic() + PATIENCE_S
        self._bar: Any = None
        self._task: Any = None

    def __call__(self, share: float) -> None:
        """Report progress."""
        share = min(max(share, 0.0), 1.0)
        if self._bar is not None:
            self._bar.update(self._task, completed=share, refresh=True)
        elif time.monotonic() >= self._next:
            self._show(share)

    def _show(self, share: float) -> None:
        if not sys.stderr.isatty():
            print(f"{self._label}: {share:.0%}", file=sys.stderr)
            self._next = time.monotonic() + LOG_EVERY_S
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeElapsedColumn

        columns = ("{task.description}", BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        # No thread of its own: the search forks.
        self._bar = Progress(
            *columns, console=Console(stderr=True), transient=True, auto_refresh=False
        )
        self._task = self._bar.add_task(self._label, total=1.0, completed=share)
        self._bar.start()

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._bar is not None:
            self._bar.stop()


@contextmanager
def progress_bar(label: str) -> Iterator[ProgressBar]:
    """A bar for the duration of a block."""
    bar = ProgressBar(label)
    try:
        yield bar
    finally:
        bar.close()
