"""Fixtures of the browser tests: the planner in a process of its own, and Debian's Chromium."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import pytest
from support.planner import MOEPLAN, Shown

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
START_S = 120.0


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
    command = [MOEPLAN, "ui", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{address}/_stcore/health")
        yield address
    finally:
        _stop(server)


def _stop(server: subprocess.Popen) -> None:
    """End it in order, or at once where a search goes on."""
    server.terminate()
    try:
        server.wait(timeout=20)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


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
        # Without a GPU every frame of an animation is painted by the processor.
        yield browser.new_context(accept_downloads=True, reduced_motion="reduce")
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
