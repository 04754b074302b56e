"""What the validator's commands print."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from moeplan.calibration.file import Calibration
from moeplan.cli import render
from moeplan.errors import EngineFailedError
from moeplan.validate.compare import Comparison
from moeplan.validate.plan import Plan
from moeplan.validate.run import Outcome

_PRINTED = ("output_tok_s", "tpot_ms_mean", "ttft_ms_mean", "ttft_ms_p99")


def show_plan(made: Plan) -> None:
    """Runs, their durations and predictions, and why each is there."""
    render.print_table(
        [render.text("run"), render.num("minutes"), render.num("tok/s"), render.num("TPOT ms"),
         render.text("why")],
        [
            [
                run.key,
                f"{run.minutes:.1f}",
                f"{run.predicted.metrics['output_tok_s']:.0f}",
                _or_dash(run.predicted.metrics.get("tpot_ms_mean")),
                run.why,
            ]
            for run in made.runs
        ],
        f"{made.minutes:.1f} minutes of runs, and the engine's start",
    )  # fmt: skip


def _or_dash(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def show_outcome(outcome: Outcome, out: Path) -> None:
    """What was measured; raises `EngineFailedError` where a run failed."""
    for problem in outcome.problems:
        print(f"problem: {problem}", file=sys.stderr)
    print(f"{len(outcome.measured)} runs measured, {len(outcome.found)} found complete in {out}")
    if outcome.failed:
        key, reason = next(iter(outcome.failed.items()))
        raise EngineFailedError(
            f"{len(outcome.failed)} runs failed, first {key}: {reason}; run the plan again to "
            "continue"
        )


def show_comparisons(comparisons: Sequence[Comparison]) -> None:
    """Errors of the main metrics, one line a run."""
    rows = []
    for found in comparisons:
        errors = {row.name: row.error for row in found.client}
        cells = [errors.get(name) for name in _PRINTED]
        texts = ["–" if error is None else f"{error:+.1%}" for error in cells]
        replay = found.replay
        exact = "–" if replay is None else f"{replay.steps - len(replay.differing)}/{replay.steps}"
        rows.append([found.key, found.role, exact, *texts])
    head = [render.text("run", keep=True), render.text("role", keep=True), render.num("equal")]
    render.print_table(
        [*head, *map(render.num, _PRINTED)],
        rows,
        "predicted / measured − 1; equal: steps that the simulated schedule has too",
    )


def show_calibration(found: Calibration) -> None:
    """Parameters before and after, and errors of steps."""
    from moeplan.calibration import Calibration

    assert isinstance(found, Calibration)
    rows = [
        [p.address, f"{p.prior:.4g}", f"{p.value:.4g}" if p.determined else "prior kept",
         f"±{p.spread:.0%}"]
        for p in (*found.parameters, *found.host)
    ]  # fmt: skip
    head = [render.text("parameter"), render.num("prior"), render.num("fitted"), render.num("")]
    render.print_table(head, rows, f"{len(found.overrides)} parameters determined")
    for what, before, after in (
        ("fitted", found.before, found.after),
        ("held-out", found.held_out_before, found.held_out_after),
    ):
        if before.cells and before.median_error is not None and after.median_error is not None:
            render.print_line(
                f"{what} steps: median error {before.median_error:.1%} before, "
                f"{after.median_error:.1%} after ({after.cells} groups of steps)"
            )
