"""Files given to the planner in a real browser: good ones are used, broken ones explained."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import expect
from support.looks import fits_a_desk_and_a_phone
from support.planner import MOEPLAN, WAIT_MS, printed, text

from moeplan.models.catalogue import FOLDER

pytestmark = pytest.mark.browser


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
        page.choose_file("config.json of a model", "my config.json", content)
        line = page.alert(says)
        assert "moeplan failed" not in line
        assert "Traceback" not in line
        assert "/tmp" not in line
    assert "model=qwen3-30b-a3b" in page.url  # what was there before the files is back
    config = catalogued_config("gpt-oss-20b") | {"dtype": "bfloat16"}
    page.choose_file("config.json of a model", "my config.json", json.dumps(config).encode())
    page.wait_for_url(lambda url: "model=" not in url, timeout=WAIT_MS)
    expect(page.get_by_test_id("stAlert")).to_have_count(0, timeout=WAIT_MS)
    expect(page.metric("Step")).to_have_text(re.compile("s$"), timeout=WAIT_MS)
    assert "qwen3-30b-a3b" not in page.text()
    assert "model=" not in page.url


TRACE = [{"timestamp": 0.2 * i, "input_length": 300 + 40 * i, "output_length": 16 + i}
         for i in range(12)]  # fmt: skip


def test_an_uploaded_trace_is_simulated_as_the_command_does(open_page, tmp_path):
    page = open_page("timeline?model=qwen3-30b-a3b&device=h100_sxm&arrivals=trace")
    assert "no file is named" in page.alert("trace")
    page.choose_file("Recorded requests", "broken.jsonl", b'{"timestamp": 0}\n')
    line = page.alert("broken.jsonl")
    assert "/tmp" not in line
    content = "".join(json.dumps(row) + "\n" for row in TRACE)
    (tmp_path / "my trace.jsonl").write_text(content)
    page.choose_file("Recorded requests", "my trace.jsonl", content.encode())
    expect(page.metric("Requests")).to_have_text(str(len(TRACE)), timeout=WAIT_MS)
    (command,) = page.commands()
    assert "my trace.jsonl" in command
    point = printed(command, tmp_path)["points"][0]
    page.shows({"Output tok/s": text(point["output_tok_s"])})


def test_evidence_equals_the_score_and_takes_results(open_page, tmp_path):
    out = tmp_path / "score.json"
    command = [MOEPLAN, "score", "--published", "--by", "hardware", "--json", str(out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as score:
        page = open_page("evidence")
        page.settle()
        score.wait(timeout=2 * WAIT_MS / 1000)
    found = json.loads(out.read_text())
    groups = found["summary"]["groups"]["everything"]["hardware"]
    rows = json.loads(page.saved("JSON"))
    shown = {(row["hardware"], row["metric"]): row["median error"] for row in rows
             if "hardware" in row}  # fmt: skip
    for device, families in groups.items():
        for family, figures in families.items():
            assert shown[device, family] == pytest.approx(figures["median_error"], abs=1e-6)
    fits_a_desk_and_a_phone(page, "evidence")
    page.set_viewport_size({"width": 1280, "height": 900})
    records = _import_results(page)
    (tmp_path / "records.jsonl").write_text(records)
    content = _calibrate(page, tmp_path)
    _load_calibration(page, content)


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
    "median_itl_ms": 8.0,
}
"""What `vllm bench serve --save-result` writes, in part."""


def _import_results(page) -> str:
    """Import a result after a broken one; the records that the page then offers."""
    page.choose_file("Result files", "run.json", b'{"x": 1}')
    page.get_by_role("button", name="Import").click()
    line = page.alert("no known result format")
    assert "run.json" in line
    assert "/tmp" not in line
    for label, word in (("Model", "gpt-oss-20b"), ("GPU", "h100_sxm"), ("Weights", "mxfp4")):
        box = page.get_by_test_id("stForm").get_by_role("combobox", name=label, exact=True)
        box.click()
        box.fill(word)
        page.get_by_role("option", name=word, exact=True).click()
    page.choose_file("Result files", "mine.json", json.dumps(RESULT).encode())
    page.get_by_role("button", name="Import").click()
    page.get_by_role("button", name="Forget them").wait_for(timeout=WAIT_MS)
    page.shows({"Your own": "1"})
    records = page.saved("Run records")
    (kept,) = (json.loads(line) for line in records.splitlines())
    assert (kept["architecture"], kept["hardware"]) == ("gpt-oss-20b", "h100_sxm")
    assert "mine.json" in page.commands()[0]
    return records


def _calibrate(page, folder: Path) -> str:
    """Fit a calibration, as the command does; the file that the page then offers."""
    page.get_by_role("button", name="Calibrate from these records").click()
    page.get_by_text("1 of 1 records show the time of a step").wait_for(timeout=WAIT_MS)
    content = page.saved("Calibration file")
    (command,) = (line for line in page.commands() if line.startswith("moeplan calibrate"))
    own, other = json.loads(content), printed(command, folder)
    for name in ("parameters", "covariance", "sources", "setups", "before", "after"):
        assert own[name] == other[name]
    page.get_by_role("button", name="Use it on all pages").click()
    page.alert("is in use on all pages")
    return content


def _load_calibration(page, content: str) -> None:
    """Broken ones are explained, a good one is in use on other pages and in their commands."""
    page.get_by_role("button", name="Stop using it").click()
    page.alert("None in use")
    page.choose_file("Calibration file", "mine.json", content.replace("0.", "1.", 1).encode())
    assert "hash does not fit" in page.alert("mine.json")
    page.choose_file("Calibration file", "mine.json", content.encode())
    page.alert("mine.json is in use on all pages")
    page.get_by_role("link", name="Why").click()
    page.wait_for_url("**/why**", timeout=WAIT_MS)
    page.metric("Tokens computed").wait_for(timeout=WAIT_MS)
    assert all("--calibration mine.json" in line for line in page.commands())


def test_the_server_listens_on_loopback_only(planner):
    port = f"{int(planner.rsplit(':', 1)[1]):04X}"
    listening = [
        fields[1]
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in Path(table).read_text().splitlines()[1:]
        if (fields := line.split())[3] == "0A" and fields[1].endswith(f":{port}")
    ]
    assert listening == [f"0100007F:{port}"]
