"""Pages of the planner without a browser: what they say, and what they refuse."""

from __future__ import annotations

import pytest

pytest.importorskip("streamlit")

from streamlit.testing.v1 import AppTest

from moeplan.cli import render
from moeplan.estimate import Estimate
from moeplan.ui.answers import Kept
from moeplan.ui.commands import TAKES

SMALL = {"model": "qwen3-30b-a3b", "device": "h100_sxm", "input": "512", "output": "64",
         "concurrency": "4"}  # fmt: skip


def run_page(module: str):
    """Runs inside the test's script thread."""
    import importlib

    import streamlit as st

    st.session_state.setdefault("pages", {})
    importlib.import_module(f"moeplan.ui.{module}").page()


def opened(module: str, **words: str) -> AppTest:
    test = AppTest.from_function(run_page, args=(module,), default_timeout=120)
    for name, word in words.items():
        test.query_params[name] = word
    test.run()
    assert not test.exception
    assert not any("moeplan failed" in error.value for error in test.error)
    return test


def metrics(test: AppTest) -> dict[str, str]:
    return {metric.label: metric.value for metric in reversed(test.metric)}


def linked(test: AppTest, name: str) -> str:
    """A word of the address; Streamlit's test object gave lists before it gave words."""
    word = test.query_params[name]
    return word if isinstance(word, str) else word[0]


def answered(command: str, **words: str):
    """What the command's own function says, as `--json` prints it."""
    from moeplan.cli.explain import explain_answer
    from moeplan.cli.recommend import recommend_answer
    from moeplan.cli.session import read_hardware
    from moeplan.options import parse_options

    kinds = TAKES[command]
    options = [parse_options(k, {n: words[n] for n in k.model_fields if n in words}) for k in kinds]
    known = read_hardware(None)
    if command == "explain":
        return render.plain(explain_answer(*options, known))
    return render.plain(recommend_answer(*options, known, lambda _share: None))


def test_recommend_shows_the_winner_of_the_search():
    words = SMALL | {"gpus": "2", "ttft": "2s"}
    winner = answered("recommend", **words)["winner"]
    shown = metrics(opened("recommend", **words))
    assert shown["Output tok/s"] == render.estimate(Estimate(**winner["output_tok_s"]))
    assert shown["GPU watts"] == render.estimate(Estimate(**winner["watts"]))


def test_a_changed_slider_changes_figures_link_and_command():
    test = opened("recommend", **SMALL, gpus="1")
    before = metrics(test)
    test.select_slider(key="Recommend/concurrency").set_value(32).run()
    assert metrics(test) != before
    assert linked(test, "concurrency") == "32"
    assert any("--concurrency 32" in code.value for code in test.code)


def test_machines_of_several_kinds_are_searched_apart():
    kinds = "device:h100_sxm,gpus:1;device:gb10,gpus:1"
    words = {name: word for name, word in SMALL.items() if name != "device"}
    test = opened("recommend", **words, kinds=kinds)
    lines = next(code.value for code in test.code if "moeplan recommend" in code.value)
    assert [("h100_sxm" in line, "gb10" in line) for line in lines.splitlines()] == [
        (True, False),
        (False, True),
    ]
    assert "1× gb10" in str(test.dataframe[0].value)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"model": "deepseek-r1", "gpus": "1"}, "the smallest that fits"),
        ({"ttft": "1ms"}, "no deployment meets"),
        ({"ttft": "soon"}, "is not a time"),
        ({"gpus": "many"}, "whole number"),
        ({"model": "gpt-9"}, "none of the choices"),
        ({"device": "abacus"}, "none of the choices"),
        ({"model": "/etc/hostname"}, "none of the choices"),
    ],
)
def test_refusals_are_one_line_that_helps(words, says):
    test = opened("recommend", **(SMALL | {"gpus": "1"} | words))
    lines = [element.value for element in (*test.error, *test.warning)]
    assert any(says in line.replace("\\", "") for line in lines), lines
    assert all("\n" not in line for line in lines)


def test_a_preset_fills_the_workload():
    test = opened("recommend", **SMALL, gpus="1")
    test.button_group(key="Recommend/preset").set_value("RAG").run()
    assert test.number_input(key="Recommend/input").value == 8192
    assert linked(test, "input") == "8192"


def test_why_shows_the_step_of_the_command():
    words = {"model": "qwen3-30b-a3b", "device": "h100_sxm", "batch": "8", "context": "1024"}
    total = answered("explain", **words)["step_seconds"]
    shown = metrics(opened("why", **words))
    assert shown["Step"] == render.estimate(Estimate(**total), form=render.seconds)


def test_load_curve_takes_over_a_deployment():
    test = opened("load_curve", **SMALL, gpus="1")
    assert "model:qwen3-30b-a3b" in linked(test, "curves")
    assert "model" not in test.query_params


def test_load_curve_tells_of_measured_runs_and_offers_their_traffic():
    curve = "model:gpt-oss-120b,device:gb10,gpus:2,tp:2"
    test = opened("load_curve", curves=curve, concurrency="1,4", input="64", output="8")
    said = next(c.value for c in test.caption if "measured runs" in c.value).replace("\\", "")
    assert "all with other traffic: 1,024 in / 128 out, N at once" in said
    test.button(key="Load curve/measured traffic").click().run()
    assert test.number_input(key="Load curve/input").value == 1024
    assert linked(test, "arrivals") == "rounds"
    said = next(c.value for c in test.caption if "measured runs" in c.value)
    assert "7 measured runs with this traffic" in said


def test_load_curve_says_which_runs_are_no_independent_test():
    curve = "model:gpt-oss-20b,device:h100_sxm,gpus:1"
    test = opened("load_curve", curves=curve, concurrency="1,8", input="1024", output="128")
    said = next(c.value for c in test.caption if "measured runs" in c.value)
    assert "by moeplan validate, no independent test" in said


def test_evidence_shows_served_runs_apart(monkeypatch):
    from moeplan.records.served import served_records
    from moeplan.ui import evidence

    few = served_records()[:3]
    monkeypatch.setattr(evidence, "served_records", lambda: few)
    test = opened("evidence", runs="served")
    assert metrics(test)["Records in all"] == "3"
    assert any("test nothing independently" in c.value for c in test.caption)
    assert any("moeplan score --served" in code.value for code in test.code)


def test_a_deployment_can_be_added_and_removed():
    words = {"curves": "model:qwen3-30b-a3b,device:h100_sxm", "concurrency": "1,2", "input": "64",
             "output": "8"}  # fmt: skip
    test = opened("load_curve", **words)
    test.button(key="Load curve/add curves").click().run()
    assert linked(test, "curves").count("model:") == 2
    test.button(key="Load curve/curves 0/remove").click().run()
    assert linked(test, "curves").count("model:") == 1


def test_compare_names_those_that_do_not_fit():
    test = opened(
        "compare", contenders="model:qwen3-30b-a3b,tokens:50;model:deepseek-r1,tokens:50",
        device="h100_sxm", gpus="1", concurrency="2", input="64",
    )  # fmt: skip
    assert len(test.warning) == 1
    assert "deepseek" in test.warning[0].value
    assert len(test.dataframe[0].value) == 2


def test_timeline_refuses_a_sweep():
    test = opened("timeline", **(SMALL | {"arrivals": "poisson", "rate": "1,2"}))
    assert any("one load" in error.value for error in test.error)


def test_kept_answers_make_room():
    kept = Kept(most=2)
    for number in range(3):
        kept.put(number, str(number))
    assert [kept.get(number) for number in range(3)] == [None, "1", "2"]


def test_deployments_with_drafts_and_without_are_told_apart():
    words = {"model": "qwen3-next-80b-a3b", "device": "h100_sxm", "gpus": "2", "concurrency": "2",
             "input": "128", "output": "16", "speculative_method": "mtp"}  # fmt: skip
    test = opened("recommend", **words)
    ranking = next(d.value for d in test.dataframe if "placement" in d.value)
    drafts = {"mtp" in name for name in ranking["placement"]}
    assert drafts == {True, False}
    winner = ranking["placement"].iloc[0]
    assert ("speculative_method" in test.session_state["carried"]) == ("mtp" in winner)
