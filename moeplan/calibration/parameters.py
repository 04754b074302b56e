"""Which parameters price the steps of a deployment, and how far each may be from its prior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moeplan.calibration.observations import Dataset
from moeplan.cost.predictor import Prepared, prepare
from moeplan.cost.used_tables import used_tables
from moeplan.hardware_specs.schema import Hardware, Provenance

PRIOR_SPREAD: dict[str, float] = {
    "measured": 0.15,
    "fit": 0.3,
    "derived": 0.3,
    "nominal": 0.4,
    "estimate": 0.7,
    "general knowledge": 0.7,
}
"""Standard deviation of log(value) by grade: what calibrations of like devices differ by.

An assumption, wide on purpose: it decides only what the runs leave open.
"""
FIELD_SPREAD: dict[str, float] = {
    "launch_us": 0.5,
    "step_us": 1.2,
    "step_us_per_sequence": 1.2,
    "exposed_us_per_sequence": 0.5,
    "all-reduce/count": 1.5,
}
"""The same for fields that differ by the host more than by what a grade says, by the end of their
address. An assumption too: hosts of like GPUs differ twofold, and in how long ranks that launch
wait for each other tenfold."""

FITTABLE = (
    "floor_us",
    "t0_us",
    "per_expert_us",
    "bandwidth_tb_per_s",
    "serving_rate_fraction",
    "decode_us_per_layer",
    "prefill_us_per_layer",
    "launch_us",
    "count",
    "step_us",
    "step_us_per_sequence",
    "exposed_us_per_sequence",
    "scale",
    "serving_extra_us",
)
"""Fields that a step's duration depends on smoothly. `rate_tflops` is not among them: where a table
has `serving_rate_fraction`, the two only ever act as a product."""
_RATE = "rate_tflops"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One tunable number."""

    address: str
    prior: float
    spread: float
    """Standard deviation of log(value) before any measurement."""
    grade: str
    source: str


def relevant_parameters(hardware: Hardware, datasets: Sequence[Dataset]) -> list[Parameter]:
    """Parameters whose tables price any of these deployments, in order of address.

    Values of 0 cannot be fitted on a logarithmic scale and are left out: they stay 0.
    """
    used = {id(table) for data in datasets for table in used_tables(prepared(hardware, data))}
    known = hardware.parameters()
    return [
        Parameter(address, value, _spread(address, table), table.grade, table.source)
        for address, (value, table) in sorted(known.items())
        if value > 0 and _fits(address, table) and id(table) in used
    ]


def _spread(address: str, table: Provenance) -> float:
    known = (spread for field, spread in FIELD_SPREAD.items() if address.endswith(f"/{field}"))
    return next(known, PRIOR_SPREAD[table.grade])


def prepared(hardware: Hardware, data: Dataset) -> Prepared:
    """The deployment of a dataset on this hardware."""
    return prepare(data.deployment, hardware, data.max_sequence_tokens, data.sigma)


def _fits(address: str, table: Provenance) -> bool:
    field = address.rsplit("/", 1)[-1]
    if field == _RATE:
        return not hasattr(table, "serving_rate_fraction")
    return field in FITTABLE
