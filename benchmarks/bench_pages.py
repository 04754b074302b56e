"""How long pages of the planner take from a changed input to new figures, without the browser.

    python benchmarks/bench_pages.py

Each page as a newcomer finds it; one input takes values that it had not before. Target: a second on
2 idle cores, and for Recommend, whose search may take longer, a second to its first look. Fails
where the CPU seconds, which other load moves less than wall seconds, exceed the target.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from statistics import median

logging.disable(logging.WARNING)

from streamlit.testing.v1 import AppTest  # noqa: E402

from moeplan.ui import recommend  # noqa: E402
from moeplan.ui.recommend import FIRST_LOOK, START  # noqa: E402

TARGET_S = 1.0
CHANGES: dict[str, tuple[str, Sequence[int]]] = {
    "why": ("Why/batch", (8, 32, 64)),
    "load_curve": ("Load curve/input", (900, 1100, 1300)),
    "compare": ("Compare/input", (900, 1100, 1300)),
    "timeline": ("Timeline/input", (900, 1100, 1300)),
    "recommend": ("Recommend/input", (900, 1100, 1300)),
}
"""Module of a page, the key of one of its inputs, and values for it."""


def run_page(module: str) -> None:
    """Runs inside the script thread."""
    import importlib

    import streamlit as st

    st.session_state.setdefault("pages", {})
    importlib.import_module(f"moeplan.ui.{module}").page()


def opened(module: str) -> AppTest:
    """A page that was shown once."""
    page = AppTest.from_function(run_page, args=(module,), default_timeout=600)
    page.run()
    assert not page.exception, page.exception
    return page


def changed(page: AppTest, key: str, value: int) -> tuple[float, float]:
    """Wall and CPU seconds of one change."""
    sliders = [slider for slider in page.select_slider if slider.key == key]
    (sliders[0] if sliders else page.number_input(key=key)).set_value(value)
    wall, cpu = time.perf_counter(), time.process_time()
    page.run()
    assert not page.exception, page.exception
    return time.perf_counter() - wall, time.process_time() - cpu


def typical(page: AppTest, key: str, values: Sequence[int]) -> tuple[float, float]:
    """Median wall and CPU seconds of several changes."""
    walls, cpus = zip(*(changed(page, key, value) for value in values), strict=True)
    return median(walls), median(cpus)


def main() -> None:
    """Print the figures; exit with 1 where one exceeds the target."""
    slow = []
    for module, (key, values) in CHANGES.items():
        wall, cpu = typical(opened(module), key, values)
        print(f"{module:24}{wall:6.2f} s wall, {cpu:6.2f} s CPU")
        slow += [module] if cpu > TARGET_S and module != "recommend" else []
    recommend.START = START | FIRST_LOOK  # the part that is searched and shown first
    key, values = CHANGES["recommend"]
    wall, cpu = typical(opened("recommend"), key, values)
    print(f"{'recommend, first look':24}{wall:6.2f} s wall, {cpu:6.2f} s CPU")
    slow += ["recommend, first look"] if cpu > TARGET_S else []
    raise SystemExit(f"slower than {TARGET_S:g} s: {', '.join(slow)}" if slow else 0)


if __name__ == "__main__":
    main()
