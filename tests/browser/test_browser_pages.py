"""The planner in a real browser: each page shows what a command-line process prints."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moeplan.cli import render
from moeplan.estimate import Estimate

pytestmark = pytest.mark.browser
MOEPLAN = str(Path(sys.executable).parent / "moeplan")
WAIT_MS = 90_000
SMALL = "model=qwen3-30b-a3b&device=h100_sxm&input=512&output=64&concurrency=4"


def printed(command: str):
    """The JSON that a process of that command prints."""
    words = shlex.split(command)
    assert words[0] == "moeplan"
    done = subprocess.run(
        [MOEPLAN, *words[1:], "--json"], capture_output=True, text=True, timeout=120, check=True
    )
    return json.loads(done.stdout)


def text(figure, form=render.number) -> str:
    """A figure of the JSON as a page shows it."""
    return render.estimate(Estimate(**figure), form=form)


def same_card(page, winner) -> None:
    shown = page.metrics()
    assert shown["Output tok/s"] == text(winner["output_tok_s"])
    assert shown["tok/s a GPU"] == text(winner["output_tok_s_per_gpu"])
    assert shown["tok/s a user"] == text(winner["tok_s_per_user"])
    ttft = winner["latencies_s"]["ttft"]["mean"]
    assert shown["TTFT mean"] == text(ttft, render.seconds)
    usd = winner["usd_per_million_output_tokens"]
    assert shown["$ per million output"] == text(usd)


def test_recommend_shows_what_the_command_prints(open_page):
    page = open_page(f"?{SMALL}&gpus=2&ttft=2s")
    (command,) = page.commands()
    data = printed(command)
    same_card(page, data["winner"])
    main = page.text()
    assert data["winner"]["bottleneck"] in main
    assert data["winner"]["placement"] in main
    assert data["winner"]["commands"][0] in main.replace("\n", " ")
    ranking = json.loads(page.saved("JSON"))
    assert ranking[0]["output_tok_s"] == data["winner"]["output_tok_s"]
    assert [row["why_not"] for row in ranking[1:]] == [r["why_not"] for r in data["runners_up"]]
    assert page.saved("CSV").splitlines()[1].startswith(data["winner"]["checkpoint"])
    script = page.saved("Shell script")
    assert script.splitlines()[1:] == data["winner"]["commands"]


def test_a_changed_input_shows_new_figures_and_a_link_that_reproduces_them(open_page):
    page = open_page(f"?{SMALL}&gpus=1")
    before = page.metrics()
    field = page.get_by_role("spinbutton", name="Output tokens")
    field.fill("96")
    field.press("Enter")
    page.wait_for_url("**output=96**", timeout=WAIT_MS)
    after = page.metrics()
    assert after != before
    (command,) = page.commands()
    assert "--output 96" in command
    same_card(page, printed(command)["winner"])
    assert open_page(page.url.split("/", 3)[3]).metrics() == after


def test_a_click_on_the_pareto_plot_selects_a_deployment(open_page):
    page = open_page(f"?{SMALL}&gpus=2")
    assert "Click a point" in page.text()
    point = page.locator(".scatterlayer .trace").first.locator(".point").first
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_url("**pick=**", timeout=WAIT_MS)
    assert "Click a point" not in page.text()
    page.get_by_role("button", name="Why").last.click()
    page.wait_for_url("**/why?**", timeout=WAIT_MS)
    assert "qwen3-30b-a3b" in page.url
    assert page.metrics()["Step"].endswith("ms")


def test_load_curves_are_those_of_the_commands(open_page):
    curves = "model:qwen3-30b-a3b,device:h100_sxm,tp:1;model:qwen3-30b-a3b,device:h100_sxm,tp:2"
    page = open_page(f"load-curve?curves={curves}&input=512&output=64&concurrency=1,4&itl=30ms")
    page.settle()
    lines = page.commands()
    assert len(lines) == 2
    rows = json.loads(page.saved("JSON"))
    points = [point for line in lines for point in printed(line)["points"]]
    assert [row["output_tok_s"] for row in rows] == [p["output_tok_s"] for p in points]
    assert [row["ttft_s"] for row in rows] == [p["ttft_s"] for p in points]
    assert "ITL ≤ 30 ms" in page.locator(".js-plotly-plot").first.inner_text()


def test_why_shows_the_step_and_the_memory(open_page):
    page = open_page("why?model=qwen3-30b-a3b&device=h100_sxm&gpus=2&batch=8&context=1024")
    shown = page.metrics()
    explain, fit = (printed(line) for line in page.commands())
    assert shown["Step"] == text(explain["step_seconds"], render.seconds)
    assert shown["Tokens computed"] == str(explain["step"]["tokens"])
    assert shown["Weights GiB"] == text(fit["memory"]["weights_gib"])
    assert shown["KV pool tokens"] == f"{fit['memory']['kv_tokens']:,}"
    assert json.loads(page.saved("JSON")) == explain["operators"]
    assert json.loads(page.saved("JSON", 1)) == explain["expert_coverage"]["points"]
    assert json.loads(page.saved("JSON", 2)) == explain["changes"]


def test_compare_shows_cost_and_time_a_task(open_page):
    contenders = "model:qwen3-30b-a3b,tokens:200;model:qwen3-30b-a3b,checkpoint:fp8,tokens:100"
    page = open_page(f"compare?contenders={contenders}&device=h100_sxm&gpus=1&concurrency=4")
    page.settle()
    (command,) = page.commands()
    rows = printed(command)["contenders"]
    shown = json.loads(page.saved("JSON"))
    for name in ("seconds_per_task", "usd_per_task", "output_tok_s", "memory", "tokens_per_task"):
        assert [row[name] for row in shown] == [row[name] for row in rows]
    plots = page.locator(".js-plotly-plot").all_inner_texts()
    assert text(rows[0]["seconds_per_task"], render.seconds) in plots[0]


def test_timeline_is_the_trace_that_the_command_writes(open_page, tmp_path):
    page = open_page(f"timeline?{SMALL}&gpus=1&num_prompts=8")
    shown = page.metrics()
    (command,) = page.commands()
    trace = json.loads(page.saved("Perfetto trace"))
    written = tmp_path / "timeline.json"
    point = printed(command.replace("timeline.json", str(written)))["points"][0]
    assert trace == json.loads(written.read_text())
    assert shown["Output tok/s"] == text(point["output_tok_s"])
    assert shown["TTFT p99"] == text(point["ttft_s"]["p99"], render.seconds)
    assert shown["Requests"] == "8"
    requests = [e for e in trace["traceEvents"] if e["name"].startswith("request ")]
    assert len([e for e in requests if e["ph"] == "X"]) == 8


def test_long_work_can_be_stopped_and_continued(open_page):
    page = open_page("?model=gpt-oss-120b&device=h100_sxm&gpus=8&input=8192&output=1024"
                     "&concurrency=64")  # fmt: skip
    page.get_by_role("button", name="Stop").first.click(timeout=WAIT_MS)
    page.get_by_text("Stopped before the end.").wait_for(timeout=WAIT_MS)
    start = time.monotonic()
    page.settle()
    assert time.monotonic() - start < 10
    page.get_by_role("button", name="Go on").wait_for(timeout=WAIT_MS)
