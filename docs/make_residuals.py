"""Rewrites moeplan/records/residuals.json: how far moeplan is off published runs.

    python docs/make_residuals.py RECORDS...

Simulates runs of the files of records that generate at most `MOST_TOKENS`, and at most `MOST` of
one source, GPU, model and band of concurrency (evenly spaced in the file: sources weigh alike, so
that more of the same say little), and keeps ln(measured / predicted) of each family of metrics.
Doubted figures are left out, and those that are off by more than `LOST`. Takes some minutes.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from moeplan.errors import MoeplanError
from moeplan.hardware_specs import Hardware, load_hardware
from moeplan.records.annotations import is_doubted, with_facts
from moeplan.records.reader import read_many
from moeplan.records.record import RunRecord
from moeplan.records.report import FAMILIES, concurrency_band
from moeplan.records.residuals import Residual
from moeplan.records.score import RecordScore, score
from moeplan.records.setup import deployment_of

TARGET = Path(__file__).parents[1] / "moeplan" / "records" / "residuals.json"
KEPT = ("tpot", "itl", "ttft", "throughput")
"""Families that intervals are printed for; end-to-end times stand in too few sources."""
MOST = 6
MOST_TOKENS = 600_000
"""Output tokens of a run times its pipeline stages: what simulating it takes time for."""
LOST = math.log(5)
"""A figure that is off by more is another setup than its record says, not an error of a model."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Score the records and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", type=Path, nargs="+")
    read = read_many(parser.parse_args(arguments).records)
    hardware = load_hardware()
    chosen = sample([with_facts(record) for record in read.records], hardware)
    print(f"{len(chosen)} of {len(read.records)} records", file=sys.stderr)
    rows = [row for item in scored(chosen, hardware) for row in residuals_of(item)]
    lines = ",\n".join(json.dumps(row) for row in sorted(rows))
    TARGET.write_text(f'{{"rows": [\n{lines}\n]}}\n', encoding="utf-8")
    print(f"{len(rows)} residuals in {TARGET}", file=sys.stderr)


def scored(records: Sequence[RunRecord], hardware: Hardware) -> Iterator[RecordScore]:
    """Scores of the records that moeplan covers; progress on stderr."""

    def show(share: float) -> None:
        print(f"\r{share:.0%}", end="", file=sys.stderr)

    for item in score(records, hardware, jobs=1, progress=show):
        if item.covered:
            yield item


def sample(records: Sequence[RunRecord], hardware: Hardware) -> list[RunRecord]:
    """At most `MOST` records of a kind, evenly spaced; long ones left out."""
    kinds: dict[tuple, list[RunRecord]] = {}
    for record in records:
        if not 0 < generated(record, hardware) <= MOST_TOKENS:
            continue
        band = concurrency_band(RecordScore(record, False))
        model = record.architecture or record.model
        kind = (source_of(record), record.hardware, model, record.engine.name, band)
        kinds.setdefault(kind, []).append(record)
    return [record for kind in kinds.values() for record in _spaced(kind)]


def _spaced(records: list[RunRecord]) -> list[RunRecord]:
    count = min(MOST, len(records))
    return [records[i * len(records) // count] for i in range(count)]


def generated(record: RunRecord, hardware: Hardware) -> float:
    """Output tokens × pipeline stages; 0 where the run cannot be predicted."""
    try:
        setup = deployment_of(record, hardware)
    except MoeplanError:
        return 0.0
    return setup.workload.size * setup.workload.output_tokens * setup.deployment.placement.pp


SAME_RUNS = {
    "ai-dynamo/aiconfigurator": "InferenceX",
    "SemiAnalysisAI/InferenceX": "InferenceX",
    "togethercomputer/InferenceX": "InferenceX",
}
"""Collections that publish runs of one benchmark: one source."""


def source_of(record: RunRecord) -> str:
    """Who measured."""
    site = record.source.repo_or_site or record.source.title
    name = site.removeprefix("https://").removeprefix("github.com/")
    return SAME_RUNS.get(name, name)


def residuals_of(item: RecordScore) -> Iterator[list]:
    """One row a family, its fields in the order of `Residual`."""
    record = item.record
    for family in KEPT:
        name = next((name for name in FAMILIES[family] if name in item.metrics), None)
        if name is None or is_doubted(record, name):
            continue
        ratio = -item.metrics[name].log_ratio
        if abs(ratio) < LOST and record.hardware:
            row = Residual(
                source=source_of(record),
                device=record.hardware,
                engine=record.engine.name,
                model=record.architecture or record.model,
                family=family,
                log_ratio=round(ratio, 4),
            )
            yield list(vars_of(row))


def vars_of(row: Residual) -> Iterator[str | float]:
    """Values of the fields, in order."""
    return (getattr(row, name) for name in Residual.__slots__)


if __name__ == "__main__":
    main()
