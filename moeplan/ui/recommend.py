"""Page Recommend: the best deployment of a model on the user's GPUs for a workload."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import streamlit as st

from moeplan.cli.recommend import PlanOptions
from moeplan.errors import MoeplanError
from moeplan.ui import forms, frame, state
from moeplan.ui.answers import answer, is_kept
from moeplan.ui.commands import command_line
from moeplan.ui.figures import MS, value
from moeplan.ui.hardware_lists import list_input, machine_name, machines
from moeplan.ui.recommend_result import label, show_first_look, show_one
from moeplan.ui.state import Inputs
from moeplan.ui.tables import table
from moeplan.ui.widgets import option

START = {
    "model": "gpt-oss-120b",
    "device": "h100_sxm",
    "gpus": "4",
    "output": "256",
    "routing": "chat",
    "concurrency": "16",
    "ttft": "2s",
    "itl": "30ms",
}
"""A chat service on half a host, to be changed."""
FIRST_LOOK = {"kv": "bf16", "max_num_batched_tokens": "8192", "top": "0"}
"""One KV format and one token budget: a tenth of the deployments, their best near the best."""


def page() -> None:
    """Inputs beside, the winner first."""
    inputs = state.open_inputs("Recommend", START)
    frame.title("Recommend", "Which deployment of a model serves a workload best on some GPUs?")
    with frame.refusals():
        frame.sidebar(_form, inputs)
        _results(inputs, machines(inputs))
    frame.on_the_command_line([command_line("recommend", words) for words in machines(inputs)])


def _form(inputs: Inputs) -> None:
    st.subheader("Model")
    forms.model_inputs(inputs, any_checkpoint=True)
    st.subheader("Hardware")
    list_input(inputs)
    st.subheader("Workload")
    forms.traffic_inputs(inputs)
    st.subheader("Goals")
    forms.limit_inputs(inputs)
    option(inputs, PlanOptions, "objective", "Rank by")
    with st.expander("Price"):
        forms.price_inputs(inputs)
    with st.expander("Pin the placement"):
        forms.pin_inputs(inputs)
    with st.expander("Engine settings"):
        forms.engine_inputs(inputs)


def _results(inputs: Inputs, asked: Sequence[dict[str, str]]) -> None:
    if len(asked) == 1:
        show_one(inputs, _found(asked[0]), asked[0])
    else:
        _show_several(inputs, asked)


def _found(words: dict[str, str]) -> dict[str, Any]:
    """What a search found; meanwhile the best of a part that is searched at once."""
    place = st.empty()
    part = FIRST_LOOK | words
    if part != words and not is_kept("recommend", words):
        with suppress(MoeplanError):
            first = answer("recommend", part)["winner"]
            with place.container(border=True):
                show_first_look(first)
    found = answer("recommend", words)
    place.empty()
    return found


def _show_several(inputs: Inputs, asked: Sequence[dict[str, str]]) -> None:
    """The winner of each kind of machine, then the chosen one in full."""
    found = []
    for words in asked:
        with frame.refusals():
            found.append((words, _found(words)))
    if not found:
        return
    st.subheader("The best of each kind of machine")
    st.caption(
        "An engine stays on GPUs of one kind. Each search gives all of the traffic to that kind; "
        "what a router over unlike GPUs would make of it is not predicted."
    )
    rows = [{"machine": machine_name(words)} | data["winner"] for words, data in found]
    chosen = table("Best by machine", rows, _COLUMNS, select=True)
    words, data = found[chosen or 0]
    st.divider()
    st.subheader(machine_name(words))
    show_one(inputs, data, words)


_COLUMNS: dict[str, Any] = {
    "machine": lambda row: row["machine"],
    "deployment": label,
    "tok/s": lambda row: value(row["output_tok_s"]),
    "tok/s a GPU": lambda row: value(row["output_tok_s_per_gpu"]),
    "tok/s a user": lambda row: value(row["tok_s_per_user"]),
    "TTFT ms": lambda row: value(row["latencies_s"]["ttft"]["mean"], MS),
    "ITL ms": lambda row: value(row["latencies_s"]["itl"]["mean"], MS),
    "$ per million output": lambda row: value(row["usd_per_million_output_tokens"]),
}
