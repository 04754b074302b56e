"""Page Compare: models or checkpoints side by side on one deployment."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

import plotly.graph_objects as go
import streamlit as st
from pydantic import Field

from moeplan.cli.compare import Contender, SharedOptions, compare_answer
from moeplan.cli.price import PriceOptions
from moeplan.cli.traffic import LoadOptions
from moeplan.options import Options, parse_option, parse_options
from moeplan.scenario import MOST_TOKENS
from moeplan.ui import charts, forms, frame, state
from moeplan.ui.answers import worked
from moeplan.ui.commands import options_line, shown_word, values
from moeplan.ui.figures import MS, escaped, text, time_text, trust, value
from moeplan.ui.groups import Group, group_inputs, split
from moeplan.ui.resources import hardware, model_word
from moeplan.ui.state import Inputs, picked
from moeplan.ui.tables import table
from moeplan.ui.widgets import option

START = {
    "contenders": "model:gpt-oss-120b,tokens:2000;"
    "model:qwen3-30b-a3b,checkpoint:fp8,tokens:4000;"
    "model:qwen3-next-80b-a3b,checkpoint:fp8,tokens:3000",
    "device": "h100_sxm",
    "gpus": "2",
    "concurrency": "16",
}
"""Tokens a task are made-up round figures, to be replaced by one's own."""
MOST_CONTENDERS = 8
KINDS = (SharedOptions, LoadOptions, PriceOptions)
Row = dict[str, Any]


def page() -> None:
    """Contenders beside, bars and table here."""
    inputs = state.open_inputs("Compare", START)
    frame.title("Compare", "Which model or checkpoint does a task fastest, and cheapest?")
    with frame.refusals():
        frame.sidebar(_form, inputs)
        rows = _answer(inputs)
        _refused(rows)
        ran = [row for row in rows if not row["refused"]]
        if ran:
            _show(ran)
        table("Comparison", rows, _COLUMNS)
    frame.on_the_command_line([_command(inputs)])


def _form(inputs: Inputs) -> None:
    st.subheader("Contenders")
    group_inputs(
        inputs, "contenders", _contender, name, add="Add a contender", most=MOST_CONTENDERS
    )
    st.subheader("Deployment of each")
    forms.machine_inputs(inputs)
    forms.placement_inputs(inputs)
    with st.expander("Engine settings"):
        forms.engine_inputs(inputs)
    st.subheader("Traffic")
    forms.traffic_inputs(inputs, output=False)
    with st.expander("Price"):
        forms.price_inputs(inputs)


def _contender(inputs: Inputs) -> None:
    forms.model_inputs(inputs)
    option(inputs, TokenOptions, "tokens", "Tokens a task")


class TokenOptions(Options):
    """What a model spends on a task."""

    tokens: int = Field(
        1000, ge=1, le=MOST_TOKENS, description="Tokens that it generates, reasoning included."
    )


TOKENS_A_TASK = str(TokenOptions.model_fields["tokens"].default)


def name(words: Group) -> str:
    """Model and form of its weights."""
    return " ".join(filter(None, (shown_word(words.get("model", "?")), words.get("checkpoint"))))


def _answer(inputs: Inputs) -> list[Row]:
    """The rows that `moeplan compare --json` prints."""
    groups = split(inputs.get("contenders"))
    own = picked(inputs.words, [n for kind in KINDS for n in kind.model_fields])
    asked = (inputs.get("contenders"), tuple(sorted(own.items())))

    def work(bar: Callable[[float], None]) -> dict[str, Any]:
        contenders = [_parsed(group) for group in groups]
        options = [parse_options(kind, values(kind, own)) for kind in KINDS]
        return compare_answer(contenders, *options, hardware(), bar)

    rows = worked("compare", asked, work)["contenders"]
    return [row | {"name": name(group)} for row, group in zip(rows, groups, strict=True)]


def _parsed(group: Group) -> Contender:
    tokens = parse_option(TokenOptions, "tokens", group.get("tokens", TOKENS_A_TASK))
    return Contender(model_word(group.get("model", "")), group.get("checkpoint"), tokens)


def _command(inputs: Inputs) -> str:
    contenders = []
    for group in split(inputs.get("contenders")):
        form = f"@{group['checkpoint']}" if "checkpoint" in group else ""
        tokens = group.get("tokens", TOKENS_A_TASK)
        contenders.append(f"{shown_word(group.get('model', '?'))}{form}={tokens}")
    return f"moeplan compare {shlex.join(contenders)} {options_line(KINDS, inputs.words)}"


def _refused(rows: list[Row]) -> None:
    for row in rows:
        if row["refused"]:
            st.warning(escaped(f"{row['name']}: {row['refused']}"), icon=":material/block:")


def _show(rows: list[Row]) -> None:
    panels: tuple[tuple[str, Callable[[Row], Any], Callable[[Row], str]], ...] = (
        ("Time a task, s", lambda r: value(r["seconds_per_task"]),
         lambda r: time_text(r["seconds_per_task"])),
        ("Cost a task, $", lambda r: value(r["usd_per_task"]),
         lambda r: text(r["usd_per_task"])),
        ("Output tok/s", lambda r: value(r["output_tok_s"]), lambda r: text(r["output_tok_s"])),
        ("tok/s a user", lambda r: value(r["tok_s_per_user"]),
         lambda r: text(r["tok_s_per_user"])),
    )  # fmt: skip
    columns = st.columns(2)
    for index, (title, size, label) in enumerate(panels):
        with columns[index % 2]:
            st.markdown(f"**{title}**")
            charts.draw(_bars(rows, size, label), f"compare {index}", tools=False)
    st.markdown("**Memory of one GPU, GiB**")
    charts.draw(_memory(rows), "compare memory", tools=False)
    st.caption(escaped(trust(*(row["output_tok_s"] for row in rows))))


def _bars(rows: list[Row], size: Callable[[Row], Any], label: Callable[[Row], str]) -> go.Figure:
    known = [row for row in rows if size(row) is not None]
    made = charts.bars(
        [row["name"] for row in known], [size(row) for row in known], "", [label(r) for r in known]
    )
    made.update_traces(marker={"color": [charts.colour(rows.index(row)) for row in known]})
    return made


def _memory(rows: list[Row]) -> go.Figure:
    made = charts.figure(110 + 36 * len(rows), barmode="stack", hovermode="closest")
    parts = {"weights": charts.BLUE, "kv_pool": charts.PINK, "activations": charts.ORANGE}
    for part, colour in parts.items():
        made.add_bar(
            x=[row["memory"][f"{part}_gib"] for row in rows],
            y=[row["name"] for row in rows],
            name=part.replace("kv_pool", "KV pool"),
            orientation="h",
            marker={"color": colour},
            hovertemplate="%{y}: %{x:,.1f} GiB<extra>%{fullData.name}</extra>",
        )
    made.update_yaxes(autorange="reversed")
    return made


def _figure(name: str, scale: float = 1.0) -> Callable[[Row], float | None]:
    return lambda row: value(row.get(name), scale)


_COLUMNS: dict[str, Callable[[Row], Any]] = {
    "contender": lambda row: row["name"],
    "tokens a task": lambda row: row["tokens_per_task"],
    "time a task, s": _figure("seconds_per_task"),
    "$ a task": _figure("usd_per_task"),
    "$ per million output": _figure("usd_per_million_output_tokens"),
    "tok/s": _figure("output_tok_s"),
    "tok/s a user": _figure("tok_s_per_user"),
    "TTFT mean ms": lambda row: value(row["ttft_s"]["mean"], MS) if "ttft_s" in row else None,
    "weights GiB": lambda row: row["memory"]["weights_gib"] if "memory" in row else None,
    "KV pool GiB": lambda row: row["memory"]["kv_pool_gib"] if "memory" in row else None,
    "KV tokens": lambda row: row["memory"]["kv_tokens"] if "memory" in row else None,
    "refused": lambda row: row["refused"] or "",
}
