"""One HTML file: predicted against measured, stage by stage, tables and plots."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from moeplan.validate.compare import SHOWN, Comparison, Row
from moeplan.validate.engines import engine_name
from moeplan.validate.measured import MeasuredRun
from moeplan.validate.plan import now
from moeplan.validate.report_plots import attribution_plot, scatter_plot, step_plot
from moeplan.version import __version__

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: .7rem 0 1.3rem }
th, td { padding: .25rem .8rem; border-bottom: 1px solid #ddd; text-align: right }
th:first-child, td:first-child { text-align: left }
.bad { color: #b00020; font-weight: 600 } .note { color: #555 }
"""
GOOD = 0.05
"""Errors up to this are within the noise of repeated measurements and are not marked."""


def render(pairs: Sequence[tuple[MeasuredRun, Comparison]], problems: Sequence[str]) -> str:
    """The page; `problems` are what the store could not use."""
    comparisons = [comparison for _, comparison in pairs]
    parts = [
        "<h1>Predicted against measured</h1>",
        _note(f"moeplan {__version__}, written {now()}. Predictions are those stored before each "
              "run; errors are predicted / measured − 1; ± is half the range over repeats."),
        "<h2>Overview</h2>", _overview(comparisons),
        _plot(scatter_plot(comparisons), first=True),
        _plot(attribution_plot(comparisons)),
        *_engine_sections(pairs),
        _problems(problems),
    ]  # fmt: skip
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>moeplan validation</title>'
        f"<style>{_STYLE}</style><body>{body}</body></html>\n"
    )


def _engine_sections(pairs: Sequence[tuple[MeasuredRun, Comparison]]) -> Iterator[str]:
    """Each engine's set-up, then its runs."""
    engines = dict.fromkeys(engine_name(run.plan) for run, _ in pairs)
    for name in engines:
        mine = [pair for pair in pairs if engine_name(pair[0].plan) == name]
        yield f"<h2>{_text(name)}</h2>" + _setup(mine[0][0])
        yield from (_run_section(run, comparison) for run, comparison in mine)


def _setup(run: MeasuredRun) -> str:
    plan, facts = run.plan, run.facts
    rows = [
        ("deployment", ", ".join(f"{k} = {v}" for k, v in plan.deployment.items())),
        ("plan written", f"{plan.written}, moeplan {plan.moeplan_version}"),
        ("calibration", plan.calibration.sha256[:12] if plan.calibration else "none"),
        ("routing assumed", plan.routing),
        ("engine", f"vLLM {facts.version}"),
        ("attention", facts.attention_backend or "not said"),
        ("experts", facts.moe_backend or "not said"),
        ("all-reduce", ", ".join(facts.all_reduce_backends) or "none"),
        ("weights", "from a folder" if plan.launch.model else "dummy"),
        ("GPUs", ", ".join(gpu["name"] for gpu in run.engine["host"]["gpus"]) or "none"),
        ("facts that the log did not tell", ", ".join(facts.unread) or "none"),
    ]
    return _table(("setup", ""), ((name, _text(value)) for name, value in rows))


def _overview(comparisons: Sequence[Comparison]) -> str:
    def cells(item: Comparison) -> list[str]:
        found = {row.name: row for row in item.client}
        return [_text(item.key), _text(item.role), *(_short(found.get(name)) for name in SHOWN)]

    return _table(("run", "role", *SHOWN), map(cells, comparisons))


def _short(row: Row | None) -> str:
    return "–" if row is None else f"{_figure(row.measured)} ({_error(row)})"


def _run_section(run: MeasuredRun, found: Comparison) -> str:
    stages: list[tuple[str, str]] = [
        ("1. Memory", _rows(found.memory)),
        ("2. Schedule", _rows(found.schedule) + _replay(found)),
        ("3. Step times", _step_table(found)),
        ("4. What the client saw", _rows(found.client)),
    ]
    plot = _plot(step_plot(run, found)) if found.step_errors else ""
    body = "".join(f"<h4>{title}</h4>{content}" for title, content in stages if content)
    notes = "".join(_note(text) for text in found.notes)
    return f"<h3>{_text(found.key)}</h3>{_note(found.why)}{_cause(found)}{body}{plot}{notes}"


def _cause(found: Comparison) -> str:
    """Which stage the duration's error comes from."""
    parts = found.attribution
    if parts is None:
        return ""
    shares = {
        "the schedule": parts.schedule_s,
        "step times": parts.step_times_s,
        "time outside of steps": parts.outside_s,
    }
    off = parts.predicted_s - parts.measured_s
    largest = max(shares, key=lambda name: abs(shares[name]))
    each = ", ".join(f"{name} {seconds:+.2f} s" for name, seconds in shares.items())
    return _note(
        f"Duration: {parts.predicted_s:.2f} s predicted, {parts.measured_s:.2f} s measured "
        f"({off:+.2f} s): {each}. The largest part is {largest}."
    )


def _replay(found: Comparison) -> str:
    replay = found.replay
    if replay is None:
        return ""
    verdict = (
        "equal in every step"
        if replay.exact
        else f"batches different in {len(replay.differing)} steps, free blocks in "
        f"{len(replay.blocks_differing)} more; first: {replay.first_difference}"
    )
    return _note(
        f"Recorded arrivals through moeplan's scheduler: {replay.steps} steps, {verdict}; "
        f"{replay.recorded_preemptions} preemptions, {replay.chunked_prefills} chunked prefills, "
        f"{replay.recorded_hit_tokens} tokens from the prefix cache."
    )


def _step_table(found: Comparison) -> str:
    if not found.step_errors:
        return ""
    rows = (
        (e.kind, f"{e.steps}", f"{e.median_ms:.3g}", f"{e.median_error:.1%}", _signed(e.bias))
        for e in found.step_errors
    )
    return _table(("kind", "steps", "median ms", "median error", "bias"), rows)


def _rows(rows: Sequence[Row]) -> str:
    return _table(
        ("figure", "predicted", "measured", "±", "error"),
        (
            (
                _text(row.name),
                _figure(row.predicted),
                _figure(row.measured),
                f"{row.spread:.1%}" if row.spread else "",
                _error(row),
            )
            for row in rows
        ),
    )


def _problems(problems: Sequence[str]) -> str:
    if not problems:
        return ""
    listed = "".join(f"<li>{_text(problem)}</li>" for problem in problems)
    return f"<h2>Not used</h2><ul>{listed}</ul>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f"<th>{_text(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def _plot(figure: Figure | None, first: bool = False) -> str:
    """A figure as HTML; the first carries plotly's script for all."""
    if figure is None:
        return ""
    return figure.to_html(full_html=False, include_plotlyjs=first)


def _note(text: str) -> str:
    return f'<p class="note">{_text(text)}</p>'


_text: Callable[[str], str] = html.escape


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _signed(share: float) -> str:
    text = f"{share:+.1%}"
    return text if abs(share) <= GOOD else f'<span class="bad">{text}</span>'


def _error(row: Row) -> str:
    if row.error is None:
        return "equal" if row.predicted == row.measured else "measured 0"
    return _signed(row.error)
