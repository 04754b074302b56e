"""`moeplan compare`: several models or checkpoints side by side on one deployment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moeplan.cli import render
from moeplan.cli.options import CalibrationFile, JsonFlag, with_options
from moeplan.cli.price import PriceOptions
from moeplan.cli.progress import progress_bar
from moeplan.cli.session import read_hardware
from moeplan.cli.simulate import point_data, prepare_runs
from moeplan.cli.traffic import LoadOptions, TrafficOptions
from moeplan.errors import InputError, MoeplanError
from moeplan.estimate import Estimate
from moeplan.options import parse_option, parse_options
from moeplan.scenario import EngineOptions, HardwareOptions, PlacementOptions, Scenario

if TYPE_CHECKING:
    from moeplan.cost.predictor import Prepared
    from moeplan.hardware_specs.schema import Hardware

Contenders = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL[@CHECKPOINT][=TOKENS]...",
        help="What to compare; TOKENS is what the model spends on a task, reasoning included "
        "(--output for those that say nothing).",
    ),
]
Progress = Callable[[float], None]


class SharedOptions(EngineOptions, PlacementOptions, HardwareOptions):
    """The deployment that all contenders get."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A model in one form of its weights, and the tokens that it spends on a task."""

    model: str
    checkpoint: str | None = None
    tokens: int | None = None


def parse_contender(text: str) -> Contender:
    """Read "model@checkpoint=tokens", the last two optional; raises `InputError`."""
    form, sign, tokens = text.partition("=")
    model, _, checkpoint = form.partition("@")
    if not model or (sign and not tokens):
        raise InputError(f"{text!r} is no MODEL[@CHECKPOINT][=TOKENS], such as gpt-oss-120b=2500")
    count = parse_option(TrafficOptions, "output", tokens) if tokens else None
    return Contender(model, checkpoint or None, count)


@with_options
def compare(
    contenders: Contenders,
    shared: SharedOptions,
    load: LoadOptions,
    price: PriceOptions,
    calibration: CalibrationFile = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare models and checkpoints on one deployment.

    Memory, speed, and what a task costs and takes with the tokens that each model spends on it.
    """
    parsed = [parse_contender(text) for text in contenders]
    with progress_bar("simulating") as bar:
        data = compare_answer(parsed, shared, load, price, read_hardware(calibration), bar)
    render.emit(data, as_json, _show)


def compare_answer(
    contenders: Sequence[Contender],
    shared: SharedOptions,
    load: LoadOptions,
    price: PriceOptions,
    hardware: Hardware,
    progress: Progress,
) -> dict[str, Any]:
    """One row a contender; one that cannot run carries the reason as `refused`."""
    rows = []
    for done, contender in enumerate(contenders):
        progress(done / len(contenders))
        own = {} if contender.tokens is None else {"output": contender.tokens}
        traffic = TrafficOptions(**(load.model_dump() | own))
        rows.append(_row(contender, shared, traffic, price, hardware))
    return {"contenders": rows}


def _row(
    contender: Contender,
    shared: SharedOptions,
    traffic: TrafficOptions,
    price: PriceOptions,
    hardware: Hardware,
) -> dict[str, Any]:
    words = shared.model_dump() | {"model": contender.model, "checkpoint": contender.checkpoint}
    head = {"model": contender.model, "tokens_per_task": traffic.output}
    try:
        scenario = parse_options(Scenario, words)
        prepared, workloads = prepare_runs(scenario, traffic, hardware)
    except MoeplanError as error:
        return head | {"checkpoint": contender.checkpoint, "refused": str(error)}
    if len(workloads) > 1:
        raise InputError("concurrency and rate take one value here; `moeplan simulate` sweeps them")
    from moeplan.simulation.api import predict_prepared

    point = point_data(predict_prepared(prepared, workloads[0]))
    return head | _figures(prepared, point, traffic, price, hardware)


def _figures(
    prepared: Prepared,
    point: dict[str, Any],
    traffic: TrafficOptions,
    price: PriceOptions,
    hardware: Hardware,
) -> dict[str, Any]:
    from moeplan.planner.money import TOKENS, hourly_cost, usd_per_million_output_tokens

    deployment, memory = prepared.deployment, prepared.memory
    cost = hourly_cost(hardware, deployment.device, price.pricing())
    speed = point["output_tok_s"].value
    usd = usd_per_million_output_tokens(cost, deployment.placement.gpus, speed)

    def dollars(value: float | None) -> Estimate | None:
        return None if value is None else Estimate(value, prepared.basis)

    return {
        "checkpoint": deployment.checkpoint.name,
        "published": not deployment.checkpoint.hypothetical,
        "gpus": deployment.placement.gpus,
        "placement": str(deployment.placement),
        "memory": memory.to_dict(),
        **{name: point[name] for name in _POINT},
        "usd_per_million_output_tokens": dollars(usd),
        "usd_per_task": dollars(None if usd is None else usd * traffic.output / TOKENS),
        "seconds_per_task": point["e2e_s"]["mean"],
        "price_basis": cost.basis if cost else None,
        "refused": None,
    }


_POINT = ("output_tok_s", "output_tok_s_per_gpu", "tok_s_per_user", "ttft_s", "itl_s")


def _show(data: dict[str, Any]) -> None:
    rows = data["contenders"]
    ran = [row for row in rows if not row["refused"]]
    text, num = render.text, render.num
    render.print_table(
        [text("model", keep=True), text("weights", keep=True), num("weights GiB"),
         num("tok/s"), num("a user"), num("TTFT"), num("$ / M"), num("tokens"),
         num("$ a task"), num("a task")],
        [_cells(row) for row in ran],
        "GiB on one GPU; a task: prompt and so many tokens, queueing included",
    )  # fmt: skip
    for row in rows:
        if row["refused"]:
            render.print_line(f"{row['model']}: {row['refused']}")
    render.print_trust([row["output_tok_s"] for row in ran])


def _cells(row: dict[str, Any]) -> list[str]:
    memory = row["memory"]
    return [
        row["model"],
        row["checkpoint"] if row["published"] else f"{row['checkpoint']} (hypothetical)",
        f"{memory['weights_gib']:.1f}",
        render.estimate(row["output_tok_s"]),
        render.estimate(row["tok_s_per_user"]),
        render.estimate(row["ttft_s"]["mean"], form=render.seconds),
        render.estimate(row["usd_per_million_output_tokens"]),
        f"{row['tokens_per_task']:,}",
        render.estimate(row["usd_per_task"]),
        render.estimate(row["seconds_per_task"], form=render.seconds),
    ]
