"""The planner in a real browser: each page shows what a command-line process prints.

Each page is opened as a newcomer finds it, and looked at on a desk and on a phone.
"""

from __future__ import annotations

import json
import re
import time

import pytest
from playwright.sync_api import expect
from support.looks import fits_a_desk_and_a_phone, picture
from support.planner import WAIT_MS, all_printed, printed, text

from moeplan.cli import render

pytestmark = pytest.mark.browser
SMALL = "model=qwen3-30b-a3b&device=h100_sxm&input=512&output=64&concurrency=4"


SOON_S = 3.0
"""Three times what an idle machine of two cores may take from a change to new figures."""


def seconds_to_new_figures(page, tokens: str) -> float:
    """From a changed number of prefill tokens to another step time."""
    page.settle()
    before = page.metric("Step").inner_text()
    field = page.get_by_role("spinbutton", name="Prefill tokens")
    field.fill(tokens)
    start = time.monotonic()
    field.press("Enter")
    expect(page.metric("Step")).not_to_have_text(before, timeout=WAIT_MS)
    return time.monotonic() - start


def card(winner) -> dict[str, str]:
    """Figures of a winner as its card shows them."""
    return {
        "Output tok/s": text(winner["output_tok_s"]),
        "tok/s a GPU": text(winner["output_tok_s_per_gpu"]),
        "tok/s a user": text(winner["tok_s_per_user"]),
        "TTFT mean": text(winner["latencies_s"]["ttft"]["mean"], render.seconds),
        "$ per million output": text(winner["usd_per_million_output_tokens"]),
    }


def test_recommend_shows_what_the_command_prints(open_page):
    page = open_page()
    page.settle()
    picture(page, "recommend-first-view.png", 1280, 1100)
    (command,) = page.commands()
    data = printed(command)
    winner = data["winner"]
    page.shows(card(winner))
    main = page.text()
    assert winner["bottleneck"] in main
    assert winner["placement"] in main
    assert winner["commands"][0] in main.replace("\n", " ")
    ranking = json.loads(page.saved("JSON"))
    assert ranking[0]["output_tok_s"] == winner["output_tok_s"]
    assert [row["why_not"] for row in ranking[1:]] == [r["why_not"] for r in data["runners_up"]]
    assert page.saved("CSV").splitlines()[1].startswith(winner["checkpoint"])
    assert page.saved("Shell script").splitlines()[1:] == winner["commands"]
    fits_a_desk_and_a_phone(page, "recommend")


def test_a_changed_input_shows_new_figures_and_a_link_that_reproduces_them(open_page):
    page = open_page(f"?{SMALL}&gpus=1")
    field = page.get_by_role("spinbutton", name="Output tokens")
    field.fill("96")
    field.press("Enter")
    page.wait_for_url("**output=96**", timeout=WAIT_MS)
    (command,) = page.commands()
    assert "--output 96" in command
    figures = card(printed(command)["winner"])
    page.shows(figures)
    open_page(page.url.split("/", 3)[3]).shows(figures)


def test_a_click_on_the_pareto_plot_selects_a_deployment(open_page):
    page = open_page(f"?{SMALL}&gpus=2")
    assert "Click a point" in page.text()
    point = page.locator(".scatterlayer .trace").first.locator(".point").first
    point.scroll_into_view_if_needed(timeout=WAIT_MS)
    box = point.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_url("**pick=**", timeout=WAIT_MS)
    expect(page.get_by_text("Click a point")).to_have_count(0, timeout=WAIT_MS)
    page.settle()
    page.get_by_role("button", name="Why").last.click()
    page.wait_for_url("**/why?**", timeout=WAIT_MS)
    assert "qwen3-30b-a3b" in page.url
    expect(page.metric("Step")).to_have_text(re.compile("ms$"), timeout=WAIT_MS)


def test_load_curves_are_those_of_the_commands(open_page):
    page = open_page("load-curve")
    lines = page.commands()
    assert len(lines) == 2
    rows = json.loads(page.saved("JSON"))
    points = [point for data in all_printed(lines) for point in data["points"]]
    assert [row["output_tok_s"] for row in rows] == [p["output_tok_s"] for p in points]
    assert [row["ttft_s"] for row in rows] == [p["ttft_s"] for p in points]
    assert "ITL ≤ 30 ms" in page.locator(".js-plotly-plot").first.inner_text()
    fits_a_desk_and_a_phone(page, "load-curve")


def test_why_shows_the_step_and_the_memory(open_page):
    page = open_page("why")
    explain, fit = all_printed(page.commands())
    page.shows(
        {
            "Step": text(explain["step_seconds"], render.seconds),
            "Tokens computed": str(explain["step"]["tokens"]),
            "Weights GiB": text(fit["memory"]["weights_gib"]),
            "KV pool tokens": f"{fit['memory']['kv_tokens']:,}",
        }
    )
    assert json.loads(page.saved("JSON")) == explain["operators"]
    assert json.loads(page.saved("JSON", 1)) == explain["expert_coverage"]["points"]
    assert json.loads(page.saved("JSON", 2)) == explain["changes"]
    fits_a_desk_and_a_phone(page, "why")


def test_new_figures_follow_a_change_at_once(open_page):
    page = open_page("why?model=qwen3-30b-a3b&device=h100_sxm&batch=4&context=512")
    page.settle()
    assert min(seconds_to_new_figures(page, tokens) for tokens in ("256", "2048", "4096")) < SOON_S


def test_compare_shows_cost_and_time_a_task(open_page):
    page = open_page("compare")
    (command,) = page.commands()
    rows = printed(command)["contenders"]
    shown = json.loads(page.saved("JSON"))
    for name in ("seconds_per_task", "usd_per_task", "output_tok_s", "memory", "tokens_per_task"):
        assert [row[name] for row in shown] == [row[name] for row in rows]
    plots = page.locator(".js-plotly-plot").all_inner_texts()
    assert text(rows[0]["seconds_per_task"], render.seconds) in plots[0]
    fits_a_desk_and_a_phone(page, "compare")


def test_timeline_is_the_trace_that_the_command_writes(open_page, tmp_path):
    page = open_page("timeline")
    (command,) = page.commands()
    trace = json.loads(page.saved("Perfetto trace"))
    written = tmp_path / "timeline.json"
    point = printed(command.replace("timeline.json", str(written)))["points"][0]
    assert trace == json.loads(written.read_text())
    prompts = point["workload"]["num_prompts"]
    page.shows(
        {
            "Output tok/s": text(point["output_tok_s"]),
            "TTFT p99": text(point["ttft_s"]["p99"], render.seconds),
            "Requests": str(prompts),
        }
    )
    requests = [e for e in trace["traceEvents"] if e["name"].startswith("request ")]
    assert len([e for e in requests if e["ph"] == "X"]) == prompts
    fits_a_desk_and_a_phone(page, "timeline")


def test_long_work_can_be_stopped_and_continued(open_page):
    page = open_page("?model=deepseek-v3&device=h200&gpus=16&input=8192&output=1024"
                     "&concurrency=64")  # fmt: skip
    page.get_by_role("button", name="Stop").first.click(timeout=WAIT_MS)
    page.get_by_text("Stopped before the end.").wait_for(timeout=WAIT_MS)
    page.settle()
    assert page.get_by_test_id("stProgress").count() == 0
    page.get_by_role("button", name="Go on").click(timeout=WAIT_MS)
    page.get_by_role("button", name="Stop").first.click(timeout=WAIT_MS)
    page.get_by_text("Stopped before the end.").wait_for(timeout=WAIT_MS)
