"""Uploads, refusals and looks of the planner in a real browser."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from moeplan.models.catalogue import FOLDER

pytestmark = pytest.mark.browser
MOEPLAN = str(Path(sys.executable).parent / "moeplan")
WAIT_MS = 90_000
PICTURES = os.environ.get("MOEPLAN_PICTURES")
"""Folder for pictures of all pages; docs/img holds such."""
PAGES = ("recommend", "load-curve", "why", "compare", "evidence", "timeline")


def own_config(page, name: str, content: bytes) -> None:
    """Choose a file as the model's config.json."""
    page.get_by_role("button", name="Own config.json").click()
    file = {"name": name, "mimeType": "application/json", "buffer": content}
    page.locator('input[type="file"]').first.set_input_files(file)


def catalogued_config(slug: str) -> dict:
    return json.loads((FOLDER / f"{slug}.json").read_text())["config"]


def test_an_uploaded_config_is_planned_and_stays_out_of_the_link(open_page):
    page = open_page("why?model=qwen3-30b-a3b&device=h100_sxm&batch=4&context=512")
    before = page.text()
    config = catalogued_config("gpt-oss-20b")
    own_config(page, "my model.json", json.dumps(config).encode())
    page.get_by_text("Your file is in use").wait_for(timeout=WAIT_MS)
    after = page.text()
    assert "qwen3-30b-a3b" in before
    assert "qwen3-30b-a3b" not in after
    assert "moeplan failed" not in after
    assert "upload" not in page.url
    assert "model=" not in page.url


BROKEN = (
    (b"{not json", "my config.json"),
    (b'{"model_type": "mystery"}', "mystery"),
    (b'{"model_type": "qwen3_moe", "hidden_size": Infinity}', "hidden_size"),
    (b" " * 1_100_000, "at most 1 MB"),
)
"""Files that are no config.json, and what the line about each holds."""


def test_a_broken_config_gets_one_helpful_line(open_page):
    page = open_page("why?model=qwen3-30b-a3b&device=h100_sxm&batch=4&context=512")
    page.settle()
    page.get_by_role("button", name="Own config.json").click()
    for content, says in BROKEN:
        file = {"name": "my config.json", "mimeType": "application/json", "buffer": content}
        page.locator('input[type="file"]').first.set_input_files(file)
        line = page.alert(says)
        assert "moeplan failed" not in line
        assert "Traceback" not in line
        assert "/tmp" not in line


def test_links_name_no_files_on_the_server(open_page, tmp_path):
    secret = tmp_path / "config.json"
    secret.write_text(json.dumps(catalogued_config("gpt-oss-20b")))
    page = open_page(f"why?model={secret}&device=h100_sxm")
    assert "qwen" not in page.alert("is none of the choices")


def test_what_does_not_fit_says_what_would(open_page):
    page = open_page("why?model=deepseek-r1&device=h100_sxm&gpus=1&batch=1&context=512")
    assert "deepseek-r1" in page.alert("the smallest that fits")


def test_evidence_equals_the_score_and_takes_results(open_page, tmp_path):
    page = open_page("evidence?metric=decode&by=hardware")
    page.settle()
    out = tmp_path / "score.json"
    subprocess.run(
        [MOEPLAN, "score", "--published", "--by", "hardware", "--json", str(out)],
        capture_output=True, timeout=200, check=False,
    )  # fmt: skip
    found = json.loads(out.read_text())
    groups = found["summary"]["groups"]["everything"]["hardware"]
    rows = json.loads(page.saved("JSON"))
    shown = {(row["hardware"], row["metric"]): row["median error"] for row in rows
             if "hardware" in row}  # fmt: skip
    for device, families in groups.items():
        for family, figures in families.items():
            assert shown[device, family] == pytest.approx(figures["median_error"], abs=1e-6)
    _import_results(page)


def _import_results(page) -> None:
    files = page.locator('input[type="file"]')
    broken = {"name": "run.json", "mimeType": "application/json", "buffer": b'{"x": 1}'}
    files.first.set_input_files(broken)
    page.get_by_role("button", name="Import").click()
    line = page.alert("no known result format")
    assert "run.json" in line
    assert "/tmp" not in line


@pytest.mark.parametrize("name", PAGES)
def test_pages_fit_a_desk_and_a_phone(open_page, name):
    for width, height, scheme in ((1280, 900, "light"), (390, 844, "dark")):
        page = open_page("" if name == "recommend" else name, width, height, scheme)
        page.settle()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        wide = page.evaluate(
            """() => [...document.querySelectorAll('[data-testid="stMain"] .js-plotly-plot')]
                 .filter(plot => plot.getBoundingClientRect().right > innerWidth + 1).length"""
        )
        assert wide == 0
        assert "moeplan failed" not in page.get_by_test_id("stMain").inner_text()
        _picture(page, f"{name}-{width}-{scheme}.png", width)
        page.context.close()


def _picture(page, name: str, width: int) -> None:
    if not PICTURES:
        return
    height = page.evaluate("document.querySelector('[data-testid=\"stMain\"]').scrollHeight")
    page.set_viewport_size({"width": width, "height": min(height + 60, 5000)})
    page.wait_for_timeout(1500)
    page.screenshot(path=Path(PICTURES) / name)


def test_the_server_listens_on_loopback_only(planner):
    port = f"{int(planner.rsplit(':', 1)[1]):04X}"
    listening = [
        fields[1]
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in Path(table).read_text().splitlines()[1:]
        if (fields := line.split())[3] == "0A" and fields[1].endswith(f":{port}")
    ]
    assert listening == [f"0100007F:{port}"]
