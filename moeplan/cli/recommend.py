"""`moeplan recommend`: the best deployment of a model on the user's GPUs for a workload."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import Field

from moeplan.cli import render
from moeplan.cli.near import near_data
from moeplan.cli.options import CalibrationFile, JsonFlag, with_options
from moeplan.cli.price import PriceOptions
from moeplan.cli.progress import progress_bar
from moeplan.cli.recommendation import recommendation_data, show_recommendation
from moeplan.cli.session import read_hardware, with_smallest_fit
from moeplan.cli.traffic import TrafficOptions, build_workloads
from moeplan.deployment import Deployment, Router
from moeplan.errors import DoesNotFitError, InputError
from moeplan.scenario import (
    MOST_GPUS,
    EngineOptions,
    MachineOptions,
    build_cluster,
    find_checkpoint,
)

if TYPE_CHECKING:
    from moeplan.deployment import Cluster, Placement
    from moeplan.hardware_specs import Hardware
    from moeplan.models import ModelEntry
    from moeplan.planner.candidates import Space
    from moeplan.planner.search import Request

PlotFile = Annotated[
    Path | None, typer.Option("--plot", help="Write the Pareto front to this .html file.")
]


class PlanOptions(PriceOptions):
    """What the search may vary and what counts as good."""

    tp: int | None = Field(None, ge=1, le=MOST_GPUS, description="Only this tensor parallelism.")
    pp: int | None = Field(None, ge=1, le=MOST_GPUS, description="Only this many pipeline stages.")
    replicas: int | None = Field(None, ge=1, le=MOST_GPUS, description="Only this many engines.")
    router: Router = Field("round_robin", description="How requests reach the replicas.")
    objective: Literal["throughput", "latency", "cost"] = Field(
        "throughput", description="What to rank by, among those that meet the limits."
    )
    ttft: str | None = Field(
        None, description="Limit of the time to first token: 2s, 300ms, p99:4s.  [mean unless said]"
    )
    tpot: str | None = Field(None, description="Limit of the time per output token.")
    itl: str | None = Field(None, description="Limit of the gap between tokens.")
    e2e: str | None = Field(None, description="Limit of the time to the last token.")
    top: int = Field(5, ge=0, le=1000, description="Runners-up to show.")
    exhaustive: bool = Field(False, description="Simulate also what a bound rules out.")


@with_options
def recommend(
    machine: MachineOptions,
    traffic: TrafficOptions,
    plan: PlanOptions,
    engine: EngineOptions,
    plot: PlotFile = None,
    calibration: CalibrationFile = None,
    as_json: JsonFlag = False,
) -> None:
    """Find the best deployment for a workload."""
    from moeplan.cli.plots import check_plot_path, save_pareto

    check_plot_path(plot)
    with progress_bar("searching") as bar:
        hardware = read_hardware(calibration)
        data = recommend_answer(machine, traffic, plan, engine, hardware, bar)
    data["measured_runs"] = near_data(data["winner"]["deployment"], [data["workload"]])
    render.emit(data, as_json, show_recommendation)
    if plot is not None:
        save_pareto(data, plot)


def recommend_answer(
    machine: MachineOptions,
    traffic: TrafficOptions,
    plan: PlanOptions,
    engine: EngineOptions,
    hardware: Hardware,
    progress: Callable[[float], None],
) -> dict[str, Any]:
    """Search and describe what was found; `progress` gets the share that is done.

    Raises `DoesNotFitError` with the smallest deployment that would do, and `NoFeasiblePlanError`
    with the nearest.
    """
    from moeplan.models import load_model
    from moeplan.planner.search import recommend as search

    model = load_model(machine.model)
    request = build_request(machine, traffic, plan, engine, hardware, model)
    try:
        found = search(
            request,
            hardware,
            exhaustive=plan.exhaustive,
            progress=lambda share, _text: progress(share),
        )
    except DoesNotFitError as error:
        form = request.space.checkpoints[0]
        base = Deployment(model.architecture, form, request.cluster, engine=request.engine)
        longest = request.workload.longest_tokens
        raise with_smallest_fit(error, base, model, hardware, longest) from None
    return recommendation_data(found, request, hardware, plan.top)


def build_request(
    machine: MachineOptions,
    traffic: TrafficOptions,
    plan: PlanOptions,
    engine: EngineOptions,
    hardware: Hardware,
    model: ModelEntry,
) -> Request:
    """The search that these options ask for; raises `InputError` where they make none."""
    from moeplan.planner.search import Request
    from moeplan.planner.slo import METRICS, parse_limit

    workloads = build_workloads(traffic)
    if len(workloads) > 1:
        raise InputError("concurrency and rate take one value here; `moeplan simulate` sweeps them")
    cluster = build_cluster(machine, hardware, machine.gpus or 1)
    given = {metric: getattr(plan, metric) for metric in METRICS}
    limits = tuple(parse_limit(metric, text) for metric, text in given.items() if text)
    return Request(
        architecture=model.architecture,
        cluster=cluster,
        space=_space(machine, plan, engine, model, cluster),
        workload=workloads[0],
        engine=engine.settings(),
        objective=plan.objective,
        limits=limits,
        pricing=plan.pricing(),
        runners_up=plan.top,
    )


def _space(
    machine: MachineOptions,
    plan: PlanOptions,
    engine: EngineOptions,
    model: ModelEntry,
    cluster: Cluster,
) -> Space:
    """Everything that the user leaves open; of several checkpoints of one format the first."""
    from moeplan.planner.candidates import Space

    forms = {form.name: form for form in reversed(model.checkpoints)}
    named = [find_checkpoint(model, machine.checkpoint)] if machine.checkpoint else None
    varied: dict[str, Any] = {}
    if engine.kv != "auto":
        varied["kv_formats"] = (engine.kv,)
    if engine.max_num_batched_tokens:
        varied["token_budgets"] = (engine.max_num_batched_tokens,)
    if engine.max_num_seqs:
        varied["running_limits"] = (engine.max_num_seqs,)
    return Space(
        checkpoints=tuple(named or reversed(forms.values())),
        placements=_placements(plan, cluster),
        router=plan.router,
        **varied,
    )


def _placements(plan: PlanOptions, cluster: Cluster) -> tuple[Placement, ...] | None:
    """Those that the user's pins leave; None without pins."""
    from moeplan.planner.candidates import placements

    pins = {n: getattr(plan, n) for n in ("tp", "pp", "replicas") if getattr(plan, n)}
    if not pins:
        return None
    nodes = [node.devices for node in cluster.nodes]
    found = tuple(placements(nodes, **pins))
    if not found:
        text = ", ".join(f"{name} {value}" for name, value in pins.items())
        raise InputError(
            f"{text}: no placement on {sum(nodes)} GPUs, up to {max(nodes)} a node; raise --gpus "
            "or lower them"
        )
    return found
