"""Fixtures of the browser tests: the planner in a process of its own, and Debian's Chromium."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import pytest

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
KEPT = Path(__file__).parents[2] / "screenshots"
"""Pictures of pages whose test failed."""
START_S = 60.0
WAIT_MS = 90_000
SETTLED = """() => {
  const app = document.querySelector('[data-testid="stApp"]');
  return app && app.dataset.testScriptState === 'notRunning'
    && !document.querySelector('[data-testid="stSkeleton"]')
    && document.querySelector('[data-testid="stMain"] h2');
}"""
"""The script has run and everything is drawn."""


class Shown:
    """A page in the browser; what is not here is Playwright's."""

    def __init__(self, page):
        self._page = page

    def __getattr__(self, name: str):
        return getattr(self._page, name)

    def settle(self) -> None:
        """Wait until everything is drawn, and stays so."""
        self._page.wait_for_function(SETTLED, timeout=WAIT_MS)
        self._page.wait_for_timeout(400)
        self._page.wait_for_function(SETTLED, timeout=WAIT_MS)

    def text(self) -> str:
        """All text beside the inputs."""
        self.settle()
        return self._page.get_by_test_id("stMain").inner_text()

    def metrics(self) -> dict[str, str]:
        """Figures by their names; the first of each."""
        self.settle()
        found: dict[str, str] = {}
        for box in self._page.get_by_test_id("stMetric").all():
            name = box.get_by_test_id("stMetricLabel").inner_text()
            found.setdefault(name, box.get_by_test_id("stMetricValue").inner_text())
        return found

    def commands(self) -> list[str]:
        """What the page says is the same on the command line."""
        self.settle()
        box = self._page.get_by_test_id("stExpander").filter(
            has_text="The same on the command line"
        )
        box.locator("summary").click()
        code = box.locator("code").first
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


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Let fixtures see whether their test failed."""
    outcome = yield
    setattr(item, f"report_{call.when}", outcome.get_result())


@pytest.fixture(scope="session")
def planner() -> Iterator[str]:
    """Address of a running `moeplan ui`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).parent / "moeplan"), "ui", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{address}/_stcore/health")
        yield address
    finally:
        server.terminate()
        server.wait(timeout=20)


def _wait_for(address: str) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (URLError, OSError):
            time.sleep(0.2)
    raise TimeoutError(f"no answer from {address} in {START_S:g} s")


@pytest.fixture(scope="session")
def chromium():
    """A headless browser; its pages share what they load, as tabs do."""
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip(f"needs {CHROMIUM}: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser.new_context(accept_downloads=True)
        browser.close()


@pytest.fixture
def open_page(request, chromium, planner):
    """Opens pages of the planner; at the end nothing may have gone wrong in the browser."""
    opened = []

    def new(path: str = "", width: int = 1280, height: int = 900, scheme: str = "light"):
        page = chromium.new_page()
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme)
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(f"script error: {error}"))
        page.on("requestfailed", lambda sent: _note_outside(faults, sent.url, planner))
        opened.append((page, faults))
        page.goto(f"{planner}/{path}")
        return Shown(page)

    yield new
    failed = getattr(request.node, "report_call", None)
    if failed is None or failed.failed:
        _keep_pictures(request.node.name, [page for page, _ in opened])
    for page, _ in opened:
        page.close()
    assert [fault for _, faults in opened for fault in faults] == []


def _note_outside(faults: list[str], url: str, planner: str) -> None:
    """Requests to anywhere but the planner tell others about the user."""
    if not url.startswith((planner, "data:", "blob:")):
        faults.append(f"asked elsewhere: {url}")


def _keep_pictures(test: str, pages) -> None:
    folder = Path(os.environ.get("MOEPLAN_SCREENSHOTS", KEPT))
    folder.mkdir(parents=True, exist_ok=True)
    for number, page in enumerate(pages):
        name = re.sub(r"\W+", "_", test)
        page.screenshot(path=folder / f"{name}_{number}.png", full_page=True)
