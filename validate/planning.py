"""Which runs to make: those that do most for a user's decision for each minute.

A linear-Gaussian design. Every parameter that prices the deployment's steps has a prior spread; a
candidate load shows certain steps, whose times respond to the parameters in known ways; measuring
them narrows the parameters, and with them the figure that is decided on (`decision.py`): the chance
of choosing wrongly where there is a limit or another deployment, its spread where there is neither.
Runs are picked greedily by what they take off that a minute; a run that says nothing about the
question is never picked. The workload itself is measured last, held out: it judges the calibration
and is never fitted.

Responses are those of representative steps, not of the simulated queue; margins are simulated. Only
the planned deployment is measured: what the other one alone depends on stays open.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from moeplan.calibration.observations import Dataset
from moeplan.calibration.parameters import prepared
from moeplan.errors import InputError
from moeplan.hardware_specs.schema import Hardware
from moeplan.simulation.workload import ROUTING_SIGMA
from moeplan.validate.build import Setup, Wanted, deployment_of
from moeplan.validate.decision import METRIC_NAMES, Decision
from moeplan.validate.information import NO_CHOICE, Design
from moeplan.validate.predict import predict_load
from moeplan.validate.workloads import ClosedLoop

MIN_GAIN = 0.005
"""Stop when no candidate takes this share off the doubt."""
LEAST_DOUBT = 1e-4
"""Nor for less than this: a choice that is clear needs no run."""
_PREFILL_PROMPTS = 8
_SHORT_OUTPUT = 64


@dataclass(frozen=True, slots=True)
class Pick:
    """A chosen load and what measuring it is worth."""

    load: ClosedLoop
    minutes: float
    why: str


def candidates(target: ClosedLoop, max_seqs: int) -> list[ClosedLoop]:
    """Loads to choose from: decode sweeps over batch size at three contexts, and prefills."""
    most = min(2 * target.concurrency, max_seqs)
    batches = [2**power for power in range(int(math.log2(most)) + 1)]
    inputs = sorted({128, max(target.input_tokens // 4, 1), target.input_tokens})
    decodes = [
        ClosedLoop(
            concurrency=batch, input_tokens=n, output_tokens=_SHORT_OUTPUT, num_prompts=2 * batch
        )
        for batch in batches
        for n in inputs
    ]
    lengths = [2**power for power in range(6, int(math.log2(max(target.input_tokens, 64))) + 1)]
    prefills = [
        ClosedLoop(concurrency=1, input_tokens=n, output_tokens=1, num_prompts=_PREFILL_PROMPTS)
        for n in lengths
    ]
    return decodes + prefills


def choose_runs(
    hardware: Hardware,
    data: Dataset,
    target: ClosedLoop,
    minutes: float,
    repeats: int,
    decision: Decision = NO_CHOICE,
    rival: Dataset | None = None,
    margin: float = 0.0,
) -> tuple[list[Pick], Pick]:
    """Loads to fit, best first, and the held-out target, together within `minutes`.

    `rival` and `margin` as in `Design`. Raises `InputError` where not even the target fits into the
    time.
    """
    max_seqs = prepared(hardware, data).engine.max_num_seqs
    loads = [*candidates(target, max_seqs), target]
    design = Design(hardware, data, loads, decision, rival, margin)
    last = len(loads) - 1
    left = minutes - design.minutes(last, repeats)
    if left < 0:
        raise InputError(
            f"minutes {minutes:g}: the workload alone takes {design.minutes(last, repeats):.1f}; "
            "allow more, or lower --num-prompts or --repeats"
        )
    picks: list[Pick] = []
    open_loads = set(range(last))
    while best := _best(design, open_loads, left, repeats):
        picks.append(_pick(design, best, repeats))
        left -= picks[-1].minutes
        design.take(best)
        open_loads.discard(best)
    why = f"held out: your workload judges the calibration; {_expected(design)} by then"
    return picks, Pick(target, design.minutes(last, repeats), why)


def _expected(design: Design) -> str:
    if design.decision.is_choice:
        return (
            f"the chance to decide wrongly {design.decision.question()} is expected to be "
            f"{design.doubt():.1%}"
        )
    return f"its {design.decision.metric} is expected to be known to ±{design.spread():.1%}"


def _best(design: Design, open_loads: set[int], left: float, repeats: int) -> int | None:
    """The load that takes most doubt away a minute; None if none fits or helps."""
    now = design.doubt()
    best, value = None, 0.0
    for load in sorted(open_loads):
        minutes = design.minutes(load, repeats)
        gain = now - design.doubt(design.with_load(load))
        if minutes <= left and gain > max(MIN_GAIN * now, LEAST_DOUBT) and gain / minutes > value:
            best, value = load, gain / minutes
    return best


def _pick(design: Design, load: int, repeats: int) -> Pick:
    before, after = design.doubt(), design.doubt(design.with_load(load))
    parameter = design.narrowed(load)
    what = (
        f"lowers the chance to decide wrongly {design.decision.question()} from {before:.2%} to "
        f"{after:.2%}"
        if design.decision.is_choice
        else f"narrows your workload's {design.decision.metric} from ±{before:.2%} to ±{after:.2%}"
    )
    why = f"{what}; says most about {parameter.address}"
    return Pick(design.loads[load], design.minutes(load, repeats), why)


def wanted_runs(
    setup: Setup,
    target: ClosedLoop,
    folder: Path,
    minutes: float,
    repeats: int,
    decision: Decision = NO_CHOICE,
) -> list[Wanted]:
    """The chosen runs by key, the held-out target last."""
    hardware = setup.hardware(folder)
    data = _dataset(setup, target, folder)
    rival = None
    if decision.against is not None:
        rival = _dataset(replace(setup, scenario=decision.against), target, folder)
    margin = _margin(hardware, data, rival, target, decision) if decision.is_choice else 0.0
    picks, held = choose_runs(hardware, data, target, minutes, repeats, decision, rival, margin)
    runs = [Wanted(_key(p.load), p.why, "fit", p.load, repeats, p.minutes) for p in picks]
    return [*runs, Wanted("workload", held.why, "held-out", target, repeats, held.minutes)]


def _dataset(setup: Setup, target: ClosedLoop, folder: Path) -> Dataset:
    return Dataset(
        deployment=deployment_of(setup, folder),
        max_sequence_tokens=target.input_tokens + target.output_tokens,
        sigma=ROUTING_SIGMA[setup.routing],
        observations=(),
    )


def _margin(
    hardware: Hardware,
    data: Dataset,
    rival: Dataset | None,
    target: ClosedLoop,
    decision: Decision,
) -> float:
    """The decision's log margin, from simulations of the workload."""
    found = []
    for side in [data] if rival is None else [data, rival]:
        metrics = predict_load(prepared(hardware, side), target, Path()).metrics
        found.append(metrics[METRIC_NAMES[decision.metric]])
    gpus = 1.0
    if rival is not None:
        gpus = data.deployment.placement.gpus / rival.deployment.placement.gpus
    return decision.log_margin(found[0], found[1] if rival else None, gpus)


def _key(load: ClosedLoop) -> str:
    if load.output_tokens == 1:
        return f"prefill-{load.input_tokens}"
    return f"decode-{load.concurrency}x{load.input_tokens}"
