"""The planner in a browser, and what the same commands print in processes of their own."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from moeplan.cli import render
from moeplan.estimate import Estimate

MOEPLAN = str(Path(sys.executable).parent / "moeplan")
WAIT_MS = 120_000
"""Far beyond what anything here takes: a loaded machine must not fail a test."""
SETTLED = """() => {
  const app = document.querySelector('[data-testid="stApp"]');
  const plots = [...document.querySelectorAll('[data-testid="stPlotlyChart"]')];
  return app && app.dataset.testScriptState === 'notRunning'
    && !document.querySelector('[data-testid="stSkeleton"]')
    && document.querySelector('[data-testid="stMain"] h2')
    && plots.every(plot => plot.querySelector('.main-svg'));
}"""
"""The script has run and everything is drawn."""


@cache
def printed(command: str, folder: Path | None = None):
    """The JSON that a process of that command prints; each command runs once a session."""
    words = shlex.split(command)
    assert words[0] == "moeplan"
    done = subprocess.run(
        [MOEPLAN, *words[1:], "--json"],
        cwd=folder, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def all_printed(commands: list[str]) -> list:
    """`printed` of several commands, side by side."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(printed, commands))


def text(figure, form=render.number) -> str:
    """A figure of the JSON as a page shows it."""
    return render.estimate(Estimate(**figure), form=form)


class Shown:
    """A page in the browser; what is not here is Playwright's.

    Nothing here sleeps: after an action a test waits for what it changes, then for `settle`.
    """

    def __init__(self, page):
        self._page = page

    def __getattr__(self, name: str):
        return getattr(self._page, name)

    def settle(self) -> None:
        """Wait until the script has ended and everything is drawn."""
        self._page.wait_for_function(SETTLED, timeout=WAIT_MS)

    def text(self) -> str:
        """All text beside the inputs."""
        self.settle()
        return self._page.get_by_test_id("stMain").inner_text()

    def metric(self, name: str):
        """Where the figure of that name stands; the first of several."""
        label = self._page.get_by_test_id("stMetricLabel").get_by_text(name, exact=True)
        box = self._page.get_by_test_id("stMetric").filter(has=label).first
        return box.get_by_test_id("stMetricValue")

    def shows(self, figures: Mapping[str, str]) -> None:
        """Wait for these figures under their names; fails where others stay."""
        from playwright.sync_api import expect

        for name, figure in figures.items():
            expect(self.metric(name)).to_have_text(figure, timeout=WAIT_MS)

    def commands(self) -> list[str]:
        """What the page says is the same on the command line."""
        self.settle()
        box = self._page.get_by_test_id("stExpander").filter(
            has_text="The same on the command line"
        )
        code = box.locator("code").first
        if not code.is_visible():
            box.locator("summary").click()
        code.wait_for(timeout=WAIT_MS)
        return [line for line in code.inner_text().splitlines() if line.strip()]

    def saved(self, label: str, nth: int = 0) -> str:
        """Content of a download, by the text and number of its button."""
        button = self._page.get_by_test_id("stDownloadButton").filter(has_text=label).nth(nth)
        with self._page.expect_download(timeout=WAIT_MS) as download:
            button.locator("button").click()
        return Path(download.value.path()).read_text()

    def alert(self, text: str) -> str:
        """The message that holds this text, once it is there."""
        box = self._page.get_by_test_id("stAlert").filter(has_text=text).first
        box.wait_for(timeout=WAIT_MS)
        return box.inner_text()

    def choose_file(self, uploader: str, name: str, content: bytes) -> None:
        """Give a file to the uploader of that label, shown or folded away."""
        box = self._page.get_by_test_id("stFileUploader").filter(has_text=uploader).first
        file = {"name": name, "mimeType": "application/json", "buffer": content}
        box.locator('input[type="file"]').set_input_files(file)
