"""How a page of the planner looks on a desk, in the light, and on a phone, in the dark."""

from __future__ import annotations

import os
import re
from pathlib import Path

from support.planner import WAIT_MS

PICTURES = os.environ.get("MOEPLAN_PICTURES")
"""Folder for pictures of all pages; docs/img holds such."""


def fits_a_desk_and_a_phone(page, name: str) -> None:
    fits(page, 1280)
    picture(page, f"{name}-1280-light.png", 1280)
    page.set_viewport_size({"width": 390, "height": 844})
    page.emulate_media(color_scheme="dark")
    if PICTURES:  # a narrow page hides its inputs only when it is opened
        page.reload()
    fits(page, 390)
    background = page.evaluate(
        "getComputedStyle(document.querySelector('[data-testid=\"stApp\"]')).backgroundColor"
    )
    assert max(int(part) for part in re.findall(r"\d+", background)[:3]) < 64
    picture(page, f"{name}-390-dark.png", 390)


def fits(page, width: int) -> None:
    """Nothing has to be scrolled sideways, and nothing went wrong."""
    assert "moeplan failed" not in page.text()
    page.wait_for_function(
        """() => [...document.querySelectorAll('[data-testid="stMain"] .main-svg')]
             .every(plot => plot.getBoundingClientRect().right <= innerWidth + 1)""",
        timeout=WAIT_MS,
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def picture(page, name: str, width: int, most: int = 5000) -> None:
    """Keep a picture where they are wanted, at most so high; few colours make it small."""
    if not PICTURES:
        return
    from PIL import Image

    height = page.evaluate("document.querySelector('[data-testid=\"stMain\"]').scrollHeight")
    page.set_viewport_size({"width": width, "height": min(height + 60, most)})
    fits(page, width)
    page.wait_for_timeout(1500)  # for the eye only: hints at the edges fade
    path = Path(PICTURES) / name
    page.screenshot(path=path)
    drawn = Image.open(path).convert("RGB")
    colours = Image.Quantize.MAXCOVERAGE  # rare colours tell the parts of a plot apart
    drawn.quantize(256, colours, dither=Image.Dither.NONE).save(path, optimize=True)
