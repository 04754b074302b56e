"""Words of the planner: links, groups, command lines, tables."""

from __future__ import annotations

import csv
import io
import json
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("streamlit")

from moeplan.cli.ui import SETTINGS, streamlit_arguments
from moeplan.ui.commands import TAKES, command_line, parsed, values
from moeplan.ui.figures import escaped, interval, text, trust
from moeplan.ui.groups import join, split
from moeplan.ui.presets import PRESETS, matching
from moeplan.ui.tables import to_csv, to_json

GPT = {"model": "gpt-oss-120b", "device": "h100_sxm"}
names = st.sampled_from(["model", "device", "gpus", "online_quantization", "kv"])
words = st.text(min_size=1).filter(lambda word: word.strip())


@given(st.lists(st.dictionaries(names, words, min_size=1), max_size=4))
def test_groups_survive_a_link(groups):
    assert split(join(groups)) == groups


def test_groups_read_what_a_user_may_type():
    assert split("device:h100_sxm,gpus:8;device:gb10") == [
        {"device": "h100_sxm", "gpus": "8"},
        {"device": "gb10"},
    ]
    assert split(";;x;:y;a:") == []


def parsed_back(command: str, line: str):
    """The options that the command line's own parser makes of a line."""
    import typer

    from moeplan.cli import app

    root = typer.main.get_command(app)
    found = shlex.split(line)
    assert found[:2] == ["moeplan", command]
    leaf = root.get_command(None, command)
    leaf = getattr(leaf, "commands", {}).get(command, leaf)
    context = leaf.make_context(command, found[2:])
    return context.params


@pytest.mark.parametrize(
    ("command", "given_words"),
    [
        ("recommend", GPT | {"gpus": "8", "ttft": "p99:2s", "concurrency": "32", "tp": "2"}),
        ("simulate", GPT | {"tp": "2", "ep": "True", "concurrency": "1,4", "kv": "fp8"}),
        ("simulate", GPT | {"enable_prefix_caching": "False", "enforce_eager": "True"}),
        ("explain", GPT | {"batch": "16", "what_helps": "True", "prefill": "512"}),
        ("fit", GPT | {"max_model_len": "32768", "gpu_memory_utilization": "0.9"}),
    ],
)
def test_the_command_line_means_what_the_page_asked(command, given_words):
    read = parsed_back(command, command_line(command, given_words))
    for kind, options in zip(TAKES[command], parsed(command, given_words), strict=True):
        again = kind.model_validate({n: read[n] for n in kind.model_fields if read[n] is not None})
        assert again == options


def test_defaults_are_left_out_of_the_command_line():
    given_words = GPT | {"gpus": "2", "pp": "1", "router": "round_robin", "kv": "auto"}
    line = command_line("fit", given_words)
    assert line == "moeplan fit gpt-oss-120b --device h100_sxm --gpus 2"


def test_words_with_spaces_are_quoted():
    line = command_line("fit", GPT | {"kernel": "a; rm -rf b"})
    assert shlex.split(line)[-1] == "a; rm -rf b"


def test_no_word_names_a_file(tmp_path):
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"timestamp": 0, "input_length": 1, "output_length": 1}\n')
    kinds = TAKES["simulate"]
    assert "trace" not in values(kinds[1], {"trace": str(trace)})
    from moeplan.errors import UnknownNameError

    with pytest.raises(UnknownNameError):
        values(kinds[0], GPT | {"model": str(tmp_path)})


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_recognised(name):
    chosen = {option: word for option, word in PRESETS[name].items() if word}
    assert matching(chosen) == name
    assert matching(chosen | {"input": "777"}) is None


def test_csv_holds_all_digits_and_no_formulas():
    rows = [{"name": "=HYPERLINK(1)", "tok/s": 1234.5678901}, {"name": "a,b", "tok/s": -1.0}]
    read = list(csv.DictReader(io.StringIO(to_csv(rows))))
    assert [float(row["tok/s"]) for row in read] == [1234.5678901, -1.0]
    assert read[0]["name"].startswith("'=")
    assert read[1]["name"] == "a,b"
    assert json.loads(to_json(rows)) == rows


def test_figures_show_their_interval_once_they_have_one():
    figure = {"value": 1234.0, "basis": "interpolated", "low": None, "high": None}
    assert (text(figure), interval(figure)) == ("1,234", "")
    assert "no interval yet" in trust(figure)
    bounded = figure | {"low": 1100.0, "high": 1300.0, "interval_from": "errors of 9 runs"}
    assert (text(bounded), interval(bounded)) == ("1,234", "1,100 – 1,300")
    assert "80% intervals, from errors of 9 runs" in trust(bounded)
    assert trust(bounded | {"caveat": "calibration is of h200"}).endswith(
        "The calibration is of h200."
    )
    assert (text(None), interval(None), trust(None)) == ("–", "", "")


def test_texts_of_others_are_no_markup():
    assert escaped("[a](b) $x$ :red[c] <b>") == r"\[a\]\(b\) \$x\$ \:red\[c\] \<b\>"


def test_both_ways_to_start_use_the_same_settings():
    import tomllib
    from pathlib import Path

    import moeplan.cli.ui

    root = Path(moeplan.cli.ui.__file__).parents[2]
    file = root / ".streamlit" / "config.toml"
    if not file.exists():
        pytest.skip("not in a source tree")
    flat = dict(_flat(tomllib.loads(file.read_text())))
    assert flat == SETTINGS


def _flat(tree, prefix=""):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value).lower() if isinstance(value, bool) else str(value)


def test_the_planner_listens_on_loopback_unless_told():
    assert "--server.address=127.0.0.1" in streamlit_arguments(8501, "127.0.0.1")
    assert "--browser.gatherUsageStats=false" in streamlit_arguments(8501, "127.0.0.1")
