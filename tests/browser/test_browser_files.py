"""Uploads, refusals and looks of the planner in a real browser."""

from __future__ import annotations

import json
import os
import re
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


def choose_config(page, content: bytes) -> None:
    """Choose a file as the model's config.json."""
    file = {"name": "my config.json", "mimeType": "application/json", "buffer": content}
    page.locator('input[type="file"]').first.set_input_files(file)


def catalogued_config(slug: str) -> dict:
    return json.loads((FOLDER / f"{slug}.json").read_text())["config"]


BROKEN = (
    (b"{not json", "my config.json"),
    (b'{"model_type": "mystery"}', "mystery"),
    (b'{"model_type": "qwen3_moe", "hidden_size": Infinity}', "hidden_size"),
    (b" " * 1_100_000, "at most 1 MB"),
)
"""Files that are no config.json, and what the line about each holds."""


def test_a_broken_config_gets_one_helpful_line_and_a_good_one_a_prediction(open_page):
    page = open_page("why?model=qwen3-30b-a3b&device=h100_sxm&batch=4&context=512")
    page.settle()
    page.get_by_role("button", name="Own config.json").click()
    for content, says in BROKEN:
        choose_config(page, content)
        line = page.alert(says)
        assert "moeplan failed" not in line
        assert "Traceback" not in line
        assert "/tmp" not in line
    assert "model=qwen3-30b-a3b" in page.url  # what was there before the files is back
    config = catalogued_config("gpt-oss-20b") | {"dtype": "bfloat16"}
    choose_config(page, json.dumps(config).encode())
    page.wait_for_url(lambda url: "model=" not in url, timeout=WAIT_MS)
    page.get_by_test_id("stMetric").first.wait_for(timeout=WAIT_MS)
    assert page.get_by_test_id("stAlert").count() == 0
    assert page.metrics()["Step"].endswith("s")
    assert "qwen3-30b-a3b" not in page.text()
    assert "model=" not in page.url


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


RESULT = {
    "date": "20260911-101530",
    "backend": "vllm",
    "model_id": "openai/gpt-oss-20b",
    "num_prompts": 8,
    "request_rate": "inf",
    "burstiness": 1.0,
    "max_concurrency": 4,
    "duration": 4.0,
    "completed": 8,
    "failed": 0,
    "total_input_tokens": 8 * 1000,
    "total_output_tokens": 8 * 200,
    "request_throughput": 2.0,
    "output_throughput": 400.0,
    "total_token_throughput": 2400.0,
    "mean_ttft_ms": 50.0,
    "mean_tpot_ms": 9.0,
}
"""What `vllm bench serve --save-result` writes, in part."""


def _import_results(page) -> None:
    files = page.locator('input[type="file"]')
    broken = {"name": "run.json", "mimeType": "application/json", "buffer": b'{"x": 1}'}
    files.first.set_input_files(broken)
    page.get_by_role("button", name="Import").click()
    line = page.alert("no known result format")
    assert "run.json" in line
    assert "/tmp" not in line
    for label, word in (("Model", "gpt-oss-20b"), ("GPU", "h100_sxm"), ("Weights", "mxfp4")):
        box = page.get_by_test_id("stForm").get_by_role("combobox", name=label, exact=True)
        box.click()
        box.fill(word)
        page.get_by_role("option", name=word, exact=True).click()
    good = broken | {"name": "mine.json", "buffer": json.dumps(RESULT).encode()}
    files.first.set_input_files(good)
    page.get_by_role("button", name="Import").click()
    page.get_by_role("button", name="Forget them").wait_for(timeout=WAIT_MS)
    assert page.metrics()["Your own"] == "1"
    (kept,) = (json.loads(line) for line in page.saved("Run records").splitlines())
    assert (kept["architecture"], kept["hardware"]) == ("gpt-oss-20b", "h100_sxm")
    assert "mine.json" in page.commands()[0]


@pytest.mark.parametrize("name", PAGES)
def test_pages_fit_a_desk_and_a_phone(open_page, name):
    page = open_page("" if name == "recommend" else name)
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
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.wait_for_function(
        """() => [...document.querySelectorAll('[data-testid="stMain"] .js-plotly-plot')]
             .every(plot => plot.getBoundingClientRect().right <= innerWidth + 1)"""
    )


def picture(page, name: str, width: int) -> None:
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
