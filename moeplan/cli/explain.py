"""`moeplan explain`: one engine step taken apart, operator by operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from moeplan.cli import render
from moeplan.cli.describe import assumptions, show_assumptions
from moeplan.cli.near import show_near, step_near_data
from moeplan.cli.options import CalibrationFile, JsonFlag, with_options
from moeplan.cli.session import prepare_scenario, read_hardware
from moeplan.errors import InputError
from moeplan.estimate import COVERED
from moeplan.options import Options
from moeplan.scenario import MOST_SEQUENCES, MOST_TOKENS, Scenario

if TYPE_CHECKING:
    from moeplan.cost.batch import StepBatch
    from moeplan.cost.explain import ExpertCoverage
    from moeplan.cost.predictor import Prepared
    from moeplan.hardware_specs.schema import Hardware
    from moeplan.models import ModelEntry
    from moeplan.planner.changes import Change

GIGA = 1e9


class StepOptions(Options):
    """What the step computes."""

    batch: int = Field(1, ge=0, le=MOST_SEQUENCES, description="Sequences that decode.")
    context: int = Field(
        1024, ge=1, le=MOST_TOKENS, description="Tokens in the cache of each of them."
    )
    prefill: int = Field(
        0, ge=0, le=MOST_TOKENS, description="Tokens of one prompt computed in the same step."
    )
    what_helps: bool = Field(
        False, description="Also price the step after single changes of the deployment."
    )

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence in the step."""
        return max(self.context + 1 if self.batch else 1, self.prefill)


@with_options
def explain(
    scenario: Scenario,
    step: StepOptions,
    calibration: CalibrationFile = None,
    as_json: JsonFlag = False,
) -> None:
    """Take one engine step apart.

    Each operator's bytes, FLOPs and seconds, the limit that binds, its kernel family and source.
    """
    data = explain_answer(scenario, step, read_hardware(calibration))
    data["measured_runs"] = step_near_data(data["deployment"], step.batch)
    render.emit(data, as_json, _show)


def explain_answer(scenario: Scenario, step: StepOptions, hardware: Hardware) -> dict[str, Any]:
    """The step taken apart; raises `InputError` where it computes nothing or too much."""
    if not step.batch + step.prefill:
        raise InputError("batch and prefill are both 0; a step needs --batch or --prefill")
    from moeplan.models import load_model

    prepared = prepare_scenario(scenario, hardware, step.longest)
    data = explain_data(prepared, step)
    if step.what_helps:
        data["changes"] = _changes(prepared, step, load_model(scenario.model))
    return data


def _changes(prepared: Prepared, step: StepOptions, model: ModelEntry) -> list[Change]:
    from moeplan.planner.changes import priced_changes

    return priced_changes(prepared, model.checkpoints, _batch(prepared, step), step.longest)


def explain_data(prepared: Prepared, step: StepOptions) -> dict[str, Any]:
    """Operators, their sum and what the step takes beyond it, by pipeline stage."""
    from moeplan.calibration.trust import step_trust
    from moeplan.cost.explain import effective_bit_work, expert_coverage, operator_shares

    batch = _batch(prepared, step)
    padded = prepared.engine.padded_tokens(batch.tokens)
    shares = operator_shares(prepared.stages, batch, prepared.engine, prepared.tables.drafter)
    stages = prepared.timer.stage_seconds(batch)
    deployment = prepared.deployment
    return {
        "deployment": assumptions(prepared),
        "step": step.model_dump(exclude={"what_helps"})
        | {"tokens": batch.tokens, "padded_tokens": padded},
        "operators": shares,
        "stages": [
            {"stage": stage, "operator_seconds": used, "other_seconds": total - used}
            for stage, total in enumerate(stages)
            for used in [sum(s.seconds for s in shares if s.stage == stage)]
        ],
        "step_seconds": step_trust(prepared, batch).estimate(
            prepared.timer.step_seconds(batch), "step"
        ),
        "expert_coverage": expert_coverage(deployment.architecture, prepared.sigma, batch.tokens),
        "effective_bit_work": effective_bit_work(deployment.architecture, deployment.checkpoint),
    }


def _batch(prepared: Prepared, step: StepOptions) -> StepBatch:
    from moeplan.cost.batch import StepBatch

    _check_limits(prepared, step)
    return StepBatch(
        decode_contexts=[step.context] * step.batch,
        prefill_chunks=[(step.prefill, 0)] if step.prefill else [],
        sampled_rows=step.batch + (1 if step.prefill else 0),
        tokens_a_decode=prepared.engine.tokens_a_decode,
    )


def _check_limits(prepared: Prepared, step: StepOptions) -> None:
    engine = prepared.engine
    if step.batch > engine.max_num_seqs:
        raise InputError(
            f"batch {step.batch} exceeds max_num_seqs {engine.max_num_seqs}; "
            f"lower it or set --max-num-seqs {step.batch}"
        )
    tokens = step.batch + step.prefill
    if tokens > engine.max_num_batched_tokens:
        raise InputError(
            f"{tokens} tokens exceed max_num_batched_tokens {engine.max_num_batched_tokens}; "
            f"lower --prefill or set --max-num-batched-tokens {tokens}"
        )


def _show(data: dict[str, Any]) -> None:
    show_assumptions(data["deployment"])
    step, total = data["step"], data["step_seconds"]
    render.print_line(
        f"step of {step['tokens']} tokens: {step['batch']} decodes at {step['context']:,} cached "
        f"tokens, {step['prefill']:,} prefill tokens"
    )
    several = len(data["stages"]) > 1
    sources = render.Footnotes()
    text, num = render.text, render.num
    render.print_table(
        [*([num("stage")] if several else []), text("operator", keep=True), num("×"), num("MB"),
         num("GFLOP"), num("µs"), num("share"), text("bound", keep=True),
         text("kernel family"), num("source")],
        [_row(share, total.value, several, sources) for share in data["operators"]]
        + [_other(stage, total.value, several) for stage in data["stages"]],
        "Operators on one GPU, all layers together",
    )  # fmt: skip
    sources.print("Sources")
    interval = render.interval(total, form=render.seconds)
    shown = f" ({COVERED:.0%} interval {interval})" if interval else ""
    render.print_line(f"step: {render.estimate(total, form=render.seconds)}{shown}", bold=True)
    render.print_line(
        f"effective bit-work: {render.number(data['effective_bit_work'] / GIGA)} Gbit a token "
        "(active parameters × bits)"
    )
    _show_coverage(data["expert_coverage"], step["tokens"])
    _show_changes(data.get("changes", []), total.value)
    show_near(data["measured_runs"])
    render.print_trust([total])


def _show_coverage(found: ExpertCoverage | None, tokens: int) -> None:
    if found is None:
        return
    here = next(point for point in found.points if point.tokens == tokens)
    render.print_line(
        f"experts that the step touches in a layer: {here.experts:.1f} of {found.num_experts} "
        f"({found.experts_per_token} a token)"
    )


def _show_changes(changes: Sequence[Change], now: float) -> None:
    if not changes:
        return
    render.print_table(
        [render.text("change", keep=True), render.num("GPUs"), render.num("step"),
         render.num("saves"), render.text("refused")],
        [
            [c.change, str(c.gpus), render.estimate(c.step_seconds, form=render.seconds),
             f"{1 - c.step_seconds.value / now:.1%}" if c.step_seconds else "", c.refused or ""]
            for c in changes
        ],
        "The same step after one change",
    )  # fmt: skip


def _row(share: Any, total: float, several: bool, sources: render.Footnotes) -> list[str]:
    row = [
        share.name, f"{share.count:g}", render.number(share.bytes / 1e6),
        render.number(share.flops / GIGA), render.number(share.seconds * 1e6),
        f"{share.seconds / total:.1%}", share.bound, share.family,
        sources.mark(f"{share.source} ({share.grade})"),
    ]  # fmt: skip
    return [str(share.stage), *row] if several else row


def _other(stage: dict[str, Any], total: float, several: bool) -> list[str]:
    other = stage["other_seconds"]
    name = "glue, launches, host" if other >= 0 else "overlap"
    row = [name, "", "", "", render.number(other * 1e6), f"{other / total:.1%}", "", "", ""]
    return [str(stage["stage"]), *row] if several else row
