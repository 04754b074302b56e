"""A progress bar on stderr for what takes more than a second."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PATIENCE_S = 1.0
"""A bar that flashes by only disturbs."""


class ProgressBar:
    """Call it with the share that is done (0..1); it shows itself after `PATIENCE_S`."""

    def __init__(self, label: str):
        self._label = label
        self._start = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __call__(self, share: float) -> None:
        """Report progress."""
        if self._bar is None and time.monotonic() - self._start > PATIENCE_S:
            self._show()
        if self._bar is not None:
            self._bar.update(self._task, completed=min(max(share, 0.0), 1.0))

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeElapsedColumn

        columns = ("{task.description}", BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task(self._label, total=1.0)
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
