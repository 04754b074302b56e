"""Kernel launches of one step, counted by what its layers are made of.

Outside a CUDA graph the host launches every kernel; where that takes longer than the GPU computes,
the step takes as long as its launches:

    t_launch = launches x launch_us

Counts are those of the engine's code (`hardware_specs/launches.toml`), the time of one launch is
the host's. A count is effective: custom operators, Triton's launcher and shape checks in Python
take as long as several plain launches, and count as such.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass

from moeplan.cost.collectives import AllReduceOperator
from moeplan.cost.operators import (
    DecodeAttentionOperator,
    ExpertsOperator,
    LinearOperator,
    RecurrentOperator,
)
from moeplan.hardware_specs.schema import Launches

PLAIN_FORMAT = "bf16"
"""Weights in it are multiplied as they are; for any other the activations are quantised first."""


@dataclass(frozen=True, slots=True)
class StepLaunches:
    """Effective launches that a step of one stage takes on the host."""

    eager: float
    """Without a graph."""
    piecewise: float
    """With graphs between the attention operators, which alone are launched one by one."""
    parts: frozenset[str]
    """Rows of the table that count here."""


def step_launches(
    token: Iterable, attention: Iterable[DecodeAttentionOperator], parts: int, table: list[Launches]
) -> StepLaunches:
    """Launches of a stage with these operators and `parts` mixers and feed-forward parts."""
    counts = {row.part: row.count for row in table}
    outside = Counter[str]()
    for op in attention:
        outside[op.part] += op.count
    eager = Counter({"glue": parts, "latent-glue": outside["latent-attention"]}) + outside
    for op in token:
        for name in _parts(op, counts):
            eager[name] += op.count
    piecewise = Counter({"graph": outside.total()}) + outside
    return StepLaunches(
        eager=sum(times * counts[name] for name, times in eager.items()),
        piecewise=sum(times * counts[name] for name, times in piecewise.items()),
        parts=frozenset(eager) | frozenset(piecewise),
    )


def _parts(op: object, known: Container[str]) -> Iterator[str]:
    """Rows of the table that one execution of an operator takes."""
    match op:
        case LinearOperator(per_row=False):
            yield "linear"
            if PLAIN_FORMAT not in op.table.formats:
                yield "quantised-linear"
        case ExpertsOperator():
            own = f"experts-{op.table.family}"
            yield own if own in known else "experts"
        case RecurrentOperator():
            own = f"recurrent-{op.table.family}"
            yield own if own in known else "recurrent"
        case AllReduceOperator():
            yield "all-reduce"
