"""How well calibrated constants price steps that the fit has not seen.

python -m moeplan.validate.gpu.fit_check EVIDENCE_DIR

Steps of an evidence folder are fitted with one engine left out at a time (model and storage), and
with every third batch composition of all engines left out; the rest is predicted.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path

import numpy as np

from moeplan.calibration import Dataset, StepObservation, fit_steps
from moeplan.calibration.file import calibration_of
from moeplan.calibration.parameters import prepared
from moeplan.calibration.trust import step_trust
from moeplan.cost.batch import StepBatch
from moeplan.estimate import COVERED
from moeplan.hardware_specs import Hardware, load_hardware
from moeplan.validate.gpu.compare_steps import (
    COMPILATION_S,
    MAX_MODEL_LEN,
    checked_sigma,
    engine_deployment,
)
from moeplan.validate.gpu.tables import Record, load, table

Z_P10_P90 = 2.563
"""Standard deviations between the tenth and the ninetieth percentile of a Gaussian."""
_EVERY = 3


@dataclass(frozen=True, slots=True)
class Checked:
    """One step that was predicted before and after a fit that did not see it."""

    engine: str
    kind: str
    before: float
    """ln(predicted / measured) with the constants as shipped."""
    after: float
    inside: bool | None = None
    """Whether the measured time lies in the calibration's interval, which knows fitted steps only;
    None where the calibration says too little about the engine."""


def evidence_datasets(evidence: Path, hardware: Hardware) -> list[Dataset]:
    """Recorded steps of every engine and routing, one dataset each; compilations left out."""
    engines = {(e["model"], e["format"]): e for e in load(evidence / "engines.jsonl")}
    checks = load(evidence / "routing.jsonl")
    rows: dict[tuple[str, str, str], list[Record]] = {}
    for row in load(evidence / "steps.jsonl"):
        rows.setdefault((row["model"], row["format"], row["routing"]), []).append(row)
    return [
        Dataset(
            deployment=engine_deployment(engines[key[:2]], hardware),
            max_sequence_tokens=MAX_MODEL_LEN,
            sigma=checked_sigma(checks, *key),
            observations=tuple(_observations(found)),
        )
        for key, found in rows.items()
    ]


def _observations(rows: Iterable[Record]) -> Iterable[StepObservation]:
    for row in rows:
        if row["kind"] == "prompt_in_chunks" or row["seconds_p90"] > COMPILATION_S:
            continue
        contexts = [round(row["mean_context"])] * row["decodes"]
        chunks = [tuple(chunk) for chunk in row["chunks"]]
        yield StepObservation(
            batch=StepBatch(contexts, chunks, len(contexts) + len(chunks)),
            seconds=row["seconds"],
            steps=row["n"],
            spread=math.log(row["seconds_p90"] / row["seconds_p10"]) / Z_P10_P90,
            run=f"{row['model']} {row['format']}",
            idle=row["kind"] == "prefill",
        )


def check_fit(
    hardware: Hardware, datasets: Sequence[Dataset], left_out: Callable[[str, int], bool]
) -> list[Checked]:
    """Fit all steps but those left out (by run and position), and predict these."""
    places = [[left_out(o.run, i) for i, o in enumerate(d.observations)] for d in datasets]
    seen, unseen = (_chosen(datasets, places, side) for side in (False, True))
    fit = fit_steps(hardware, [data for data in seen if data.observations])
    calibrated = calibration_of(fit, setups=[], sources=[]).applied_to(hardware)
    return [item for data in unseen for item in _predicted(hardware, calibrated, data)]


def _chosen(
    datasets: Sequence[Dataset], places: Sequence[Sequence[bool]], side: bool
) -> list[Dataset]:
    """The datasets with the observations that are left out, or those that are not."""
    return [
        replace(data, observations=tuple(compress(data.observations, (o == side for o in out))))
        for data, out in zip(datasets, places, strict=True)
    ]


def _predicted(hardware: Hardware, calibrated: Hardware, data: Dataset) -> Iterable[Checked]:
    if not data.observations:
        return
    usual, fitted = prepared(hardware, data), prepared(calibrated, data)
    for o in data.observations:
        before, after = (math.log(o.priced(p.timer) / o.seconds) for p in (usual, fitted))
        found = step_trust(fitted, o.batch).estimate(o.priced(fitted.timer), "step")
        inside = found.low <= o.seconds <= found.high if found.bounded else None
        yield Checked(o.run, kind_of(o.batch), before, after, inside)


def kind_of(batch: StepBatch) -> str:
    """What a step computes."""
    if not batch.prefill_chunks:
        return "decode"
    return "a chunk beside decodes" if batch.decode_contexts else "a lone prompt"


def leave_one_engine_out(hardware: Hardware, datasets: Sequence[Dataset]) -> list[Checked]:
    """Every engine predicted by a fit to the others."""
    runs = dict.fromkeys(o.run for data in datasets for o in data.observations)
    return [
        checked
        for left in runs
        for checked in check_fit(hardware, datasets, lambda run, _, left=left: run == left)
    ]


def leave_shapes_out(hardware: Hardware, datasets: Sequence[Dataset]) -> list[Checked]:
    """Every third batch composition predicted by a fit to the others, three times over."""
    return [
        checked
        for first in range(_EVERY)
        for checked in check_fit(
            hardware, datasets, lambda _, place, first=first: place % _EVERY == first
        )
    ]


def errors_table(checked: Sequence[Checked]) -> str:
    """Errors by engine, by kind of step and over all, before and after."""
    groups: dict[str, list[Checked]] = {}
    for item in checked:
        for name in (item.engine, item.kind, "all"):
            groups.setdefault(name, []).append(item)
    order = sorted(groups, key=lambda name: (name == "all", name))
    rows = [[name, len(groups[name]), *_errors(groups[name])] for name in order]
    titles = ["steps", "n", "median before", "p90 before", "median after", "p90 after", "bias"]
    return table([*titles, f"in {COVERED:.0%} interval"], rows)


def _errors(items: Sequence[Checked]) -> list[str]:
    before, after = (np.abs(np.expm1([getattr(i, name) for i in items])) for name in _SIDES)
    figures = [np.median(before), np.quantile(before, 0.9), np.median(after)]
    shown = [f"{value:.1%}" for value in (*figures, np.quantile(after, 0.9))]
    known = [i.inside for i in items if i.inside is not None]
    held = f"{np.mean(known):.0%} of {len(known)}" if known else ""
    return [*shown, f"{np.mean([i.after for i in items]):+.3f}", held]


_SIDES = ("before", "after")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("evidence", type=Path)
    hardware = load_hardware()
    datasets = evidence_datasets(parser.parse_args(arguments).evidence, hardware)
    print("### Engines left out, one at a time\n")
    print(errors_table(leave_one_engine_out(hardware, datasets)))
    print("\n### Every third batch composition left out\n")
    print(errors_table(leave_shapes_out(hardware, datasets)))


if __name__ == "__main__":
    main()
