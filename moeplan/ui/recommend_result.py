"""What a search found: winner, Pareto plot, ranking, refusals, launch text."""

from __future__ import annotations

from typing import Any

import streamlit as st

from moeplan.cli import render
from moeplan.cli.fit import PARTS
from moeplan.cli.simulate import STATISTICS
from moeplan.cli.traffic import TrafficOptions
from moeplan.scenario import Scenario
from moeplan.ui import charts, frame, state
from moeplan.ui.figures import MS, Figure, escaped, interval, text, time_text, trust, value
from moeplan.ui.state import Inputs, picked
from moeplan.ui.tables import fields, save, table

LATENCIES = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2e": "End to end"}
Row = dict[str, Any]


def label(row: Row) -> str:
    """Short name of a deployment."""
    return f"{row['checkpoint']} · {placement(row)} · KV {row['kv_cache_dtype']}"


def placement(row: Row) -> str:
    """Placement of a deployment, and its drafts where it has any."""
    method = row["options"].get("speculative_method")
    drafts = f" {method} {row['options']['num_speculative_tokens']}" if method else ""
    return f"{row['placement']}{drafts}"


def identity(row: Row) -> str:
    """What tells a deployment of a search from the others, for the link."""
    return (
        f"{row['checkpoint']} {placement(row)} {row['kv_cache_dtype']} "
        f"{row['max_num_batched_tokens']} {row['max_num_seqs']}"
    )


def show_one(inputs: Inputs, data: dict[str, Any], words: dict[str, str]) -> None:
    """Everything that one search found."""
    winner = data["winner"]
    _card(data, winner)
    state.carry(_deployment_words(winner, words))
    frame.open_in(("Load curve", "Why", "Timeline"), _deployment_words(winner, words), "winner")
    _pareto(inputs, data, words)
    _ranking(data)
    _counts(data["counts"])
    _launch(winner)


def show_first_look(winner: Row) -> None:
    """The best of a part of the deployments, while the others are searched."""
    st.markdown(f"**First look** {escaped(label(winner))} on {winner['gpus']} GPUs")
    _figures(winner)
    st.caption("Best at one KV format and one token budget; the rest is being searched.")


def _card(data: dict[str, Any], winner: Row) -> None:
    with st.container(border=True):
        deployment = winner["deployment"]
        form = winner["deployment"]["checkpoint"]
        repo = form["repo"] or "hypothetical re-quantisation, nobody has published it"
        st.subheader(f"{deployment['model']} {form['name']} · {placement(winner)}")
        st.markdown(in_words(deployment["placement"]))
        st.caption(escaped(f"{repo} on {winner['gpus']} of {deployment['gpus']}× "
                           f"{deployment['device']}; {_goal(data)}"))  # fmt: skip
        _figures(winner)
        st.markdown(f"**Bottleneck** {escaped(winner['bottleneck'])}")
        _latencies(winner)
        _memory(winner["memory"])
        st.caption(escaped(f"{trust(winner['output_tok_s'])} Price: {_basis(winner)}"))


def in_words(spread: dict[str, Any]) -> str:
    """A placement for those who do not know its short form."""
    ranks, stages, copies = (spread[name] for name in ("tp", "pp", "replicas"))
    engines = "One engine" if copies == 1 else f"{copies} engines behind a router; each"
    ways = [f"splits every layer over {ranks} GPUs"] if ranks > 1 else []
    ways += ["keeps whole experts on each"] if spread["ep"] else []
    ways += [f"runs its layers in {stages} stages one after the other"] if stages > 1 else []
    return f"{engines} {' and '.join(ways) or 'runs on one GPU'}."


def _goal(data: dict[str, Any]) -> str:
    limits = f" that keeps {', '.join(data['limits'])}" if data["limits"] else ""
    return f"wins by {data['objective']}{limits}"


def _basis(winner: Row) -> str:
    return winner["price_basis"] or "none known; give one under Price"


def _figures(row: Row) -> None:
    numbers = {
        "Output tok/s": row["output_tok_s"],
        "tok/s a GPU": row["output_tok_s_per_gpu"],
        "tok/s a user": row["tok_s_per_user"],
    }
    times = {
        "TTFT mean": row["latencies_s"]["ttft"]["mean"],
        "ITL mean": row["latencies_s"]["itl"]["mean"],
    }
    more = {
        "$ per million output": row["usd_per_million_output_tokens"],
        "GPU watts": row["watts"],
    }
    figures = {n: text(f) for n, f in numbers.items()} | {n: time_text(f) for n, f in times.items()}
    intervals = {n: interval(f) for n, f in (numbers | more).items()}
    intervals |= {n: interval(f, form=render.seconds) for n, f in times.items()}
    frame.metrics(figures | {n: text(f) for n, f in more.items()}, intervals)


def _latencies(winner: Row) -> None:
    rows = [
        {"Latency": name} | {s: _unbroken(winner["latencies_s"][metric][s]) for s in STATISTICS}
        for metric, name in LATENCIES.items()
    ]
    steady = {
        "Latency": "TTFT after the first wave",
        "mean": _unbroken(winner["steady_ttft_s"]),
    }
    rows.insert(1, steady | dict.fromkeys(STATISTICS[1:], ""))
    st.table(rows)


def _unbroken(figure: Figure) -> str:
    """A time whose unit stays on its line."""
    return time_text(figure).replace(" ", "\N{NO-BREAK SPACE}")


def _memory(memory: dict[str, Any]) -> None:
    st.markdown(f"**Memory of one GPU**, {memory['total_gib']:.1f} GiB; the KV pool holds "
                f"{memory['kv_tokens']:,} tokens")  # fmt: skip
    parts = [(name, memory[f"{part}_gib"]) for part, name in PARTS.items()]
    charts.draw(charts.stacked_bar(parts, "GiB"), "memory", tools=False)


def _pareto(inputs: Inputs, data: dict[str, Any], words: dict[str, str]) -> None:
    st.subheader("All simulated deployments")
    rows = data["simulated"]
    made = charts.figure(
        420,
        xaxis_title="tok/s a user (1 / mean TPOT)",
        yaxis_title="output tok/s a GPU",
        hovermode="closest",
    )
    front = sorted(data["front"], key=lambda row: row["tok_s_per_user"]["value"])
    series = (("simulated", rows, "markers", charts.SKY, "circle"),
              ("Pareto front", front, "lines+markers", charts.BLUE, "diamond"),
              ("winner", [data["winner"]], "markers", charts.RED, "star"))  # fmt: skip
    for name, points, mode, colour, symbol in series:
        made.add_scatter(
            x=[value(row["tok_s_per_user"]) for row in points],
            y=[value(row["output_tok_s_per_gpu"]) for row in points],
            customdata=[[identity(row)] for row in points],
            text=[_hover(row) for row in points],
            mode=mode,
            name=name,
            marker={"color": colour, "symbol": symbol, "size": 16 if name == "winner" else 9},
            hovertemplate="%{text}<extra></extra>",
        )
    event = charts.draw(made, "pareto", on_select="rerun", selection_mode="points")
    points = event.selection.points if event else []
    if points:
        inputs.put("pick", points[0]["customdata"][0])
        inputs.publish()
    _picked(inputs, rows, words)


def _hover(row: Row) -> str:
    latencies = row["latencies_s"]
    return "<br>".join(
        (
            f"<b>{label(row)}</b>, {row['gpus']} GPUs",
            f"budget {row['max_num_batched_tokens']:,}, sequences {row['max_num_seqs']:,}",
            f"{text(row['output_tok_s'])} tok/s, {text(row['tok_s_per_user'])} a user",
            f"TTFT {time_text(latencies['ttft']['mean'])}, "
            f"ITL {time_text(latencies['itl']['mean'])}",
        )
    )


def _picked(inputs: Inputs, rows: list[Row], words: dict[str, str]) -> None:
    """The deployment that was clicked."""
    row = next((row for row in rows if identity(row) == inputs.get("pick")), None)
    if row is None:
        st.caption("Click a point to see that deployment.")
        return
    with st.container(border=True):
        st.markdown(f"**{escaped(label(row))}**, {row['gpus']} GPUs, token budget "
                    f"{row['max_num_batched_tokens']:,}")  # fmt: skip
        _figures(row)
        frame.open_in(("Load curve", "Why", "Timeline"), _deployment_words(row, words), "picked")


def _ranking(data: dict[str, Any]) -> None:
    st.subheader("Ranking")
    rows = [data["winner"] | {"why_not": "wins"}, *data["runners_up"]]
    columns: dict[str, Any] = {
        "weights": lambda row: row["checkpoint"],
        "placement": placement,
        "GPUs": lambda row: row["gpus"],
        "KV": lambda row: row["kv_cache_dtype"],
        "budget": lambda row: row["max_num_batched_tokens"],
        "tok/s": lambda row: value(row["output_tok_s"]),
        "tok/s a GPU": lambda row: value(row["output_tok_s_per_gpu"]),
        "tok/s a user": lambda row: value(row["tok_s_per_user"]),
        "TTFT ms": lambda row: value(row["latencies_s"]["ttft"]["mean"], MS),
        "ITL ms": lambda row: value(row["latencies_s"]["itl"]["mean"], MS),
        "loses by": lambda row: row["why_not"],
    }
    table("Ranking", rows, columns)
    reasons = [f"- **{escaped(placement(row))}** {escaped(row['why_not'])}"
               for row in data["runners_up"]]  # fmt: skip
    if reasons:
        st.markdown("Why not the others:\n" + "\n".join(reasons))


def _counts(counts: dict[str, Any]) -> None:
    refused = sum(counts["refused"].values())
    line = (
        f"{counts['built']:,} deployments built, {refused:,} refused, "
        f"{counts['screened']:,} screened out by a bound, {counts['simulated']:,} simulated"
    )
    with st.expander(f"What did not fit, and why: {line}"):
        rows = [
            {"rule": rule, "deployments": n, "example": counts["refusal_examples"][rule]}
            for rule, n in counts["refused"].items()
        ]
        table("Refused", rows, fields("rule", "deployments", "example"))


def _launch(winner: Row) -> None:
    st.subheader("Start it")
    script = "\n".join(winner["commands"])
    st.code(script, language=None, wrap_lines=True)
    save("Shell script", f"#!/usr/bin/env bash\n{script}\n", "start.sh", "text/x-shellscript")


def _deployment_words(row: Row, words: dict[str, str]) -> dict[str, str]:
    """A deployment of the search, and its traffic, in the words of the other commands."""
    pinned = {n: str(v) for n, v in row["options"].items() if v not in (None, False)}
    rest = {n: w for n, w in picked(words, SERVING).items() if n not in DRAFTING}
    return rest | pinned


DRAFTING = ("speculative_method", "num_speculative_tokens", "acceptance")
"""Words that only some of the searched deployments keep."""
SERVING = (*Scenario.model_fields, *TrafficOptions.model_fields, "ttft", "itl", "tpot", "e2e")
"""Words that describe a deployment, its traffic and its limits."""
