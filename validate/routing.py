"""Routing that is known: routers of a dummy model drawn anew, and the experts they touch counted.

With dummy weights a router sends nearly every token to the same few experts, and a step reads a
fraction of the weights that it would really read. The worker extension draws router weights such
that tokens pick experts with given probabilities; here those of a lognormal popularity of some
spread are asked for, and checked on real requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from moeplan.cost.routing import distinct_experts, inclusion_probabilities
from moeplan.models.architecture import Architecture, MoEFFN
from moeplan.validate.launch import Engine
from moeplan.validate.load import Driver
from moeplan.validate.workloads import ClosedLoop

EXTENSION = "moeplan_routing.RoutedWorker"
CHECK_BATCHES = (1, 4, 16)
"""Sequences that decode together while experts are counted."""
TOLERANCE = 0.08
"""Share by which the experts touched may miss what the drawn popularity implies."""
MOST_SIGMA = 4.0
"""Spread of popularity at which nearly every token picks the same experts."""
_CHECK_INPUT, _CHECK_OUTPUT = 64, 8


@dataclass(frozen=True, slots=True)
class Touched:
    """Distinct experts that steps of some size touched, mean over layers and steps."""

    batch_tokens: int
    calls: int
    distinct: float
    expected: float
    standard_error: float = 0.0
    """Of `distinct`, over the router calls."""

    @property
    def off(self) -> float:
        """distinct / expected - 1."""
        return self.distinct / self.expected - 1


@dataclass(frozen=True, slots=True)
class RoutingCheck:
    """What was asked of the routers and what they did."""

    sigma: float
    routers: int
    num_experts: int
    experts_per_token: int
    touched: list[Touched] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """Batch sizes at which the routers did something else."""
        return [
            f"routing: {t.distinct:.1f} experts touched by {t.batch_tokens} tokens, "
            f"{t.expected:.1f} expected"
            for t in self.touched
            if abs(t.distinct - t.expected) > TOLERANCE * t.expected + 3 * t.standard_error
        ]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return asdict(self)


def moe_layer(architecture: Architecture) -> MoEFFN | None:
    """The first routed layer, None for a dense model."""
    ffns = (layer.ffn for layer in architecture.layers)
    return next((ffn for ffn in ffns if isinstance(ffn, MoEFFN)), None)


def set_routing(driver: Driver, moe: MoEFFN, sigma: float, max_seqs: int) -> RoutingCheck:
    """Draw the routers with that spread of popularity and count what they touch.

    Raises `EngineFailedError` where the engine does not carry the worker extension.
    """
    engine = driver.engine
    shares = inclusion_probabilities(moe.num_experts, moe.num_experts_per_tok, sigma)
    answer = _call(engine, "moeplan_set_routing", shares=shares.round(9).tolist())
    check = RoutingCheck(sigma, int(answer["routers"]), moe.num_experts, moe.num_experts_per_tok)
    _call(engine, "moeplan_count_on", top_k=moe.num_experts_per_tok)
    try:
        for batch in CHECK_BATCHES:
            if batch <= max_seqs:
                driver.measure(_check_load(batch), attempts=1)
    finally:
        counted = _call(engine, "moeplan_count_off")
    check.touched.extend(touched_experts(counted["distinct"], moe, sigma))
    return check


def touched_experts(distinct: dict[str, list[int]], moe: MoEFFN, sigma: float) -> list[Touched]:
    """Counts by tokens in the step, against the expectation; sizes seen once are left out."""
    found = []
    for tokens, counts in sorted(distinct.items(), key=lambda item: int(item[0])):
        size = int(tokens)
        if size in CHECK_BATCHES:
            expected = distinct_experts(
                moe.num_experts, moe.num_experts_per_tok, sigma, float(size)
            )
            error = float(np.std(counts) / np.sqrt(len(counts)))
            mean = float(np.mean(counts))
            found.append(Touched(size, len(counts), mean, float(expected), error))
    return found


def counted_sigma(touched: Sequence[Touched], check: Mapping[str, Any]) -> float | None:
    """Spread of popularity that explains the experts counted at the largest batch.

    `check` holds `num_experts` and `experts_per_token`. None where only single tokens were counted:
    those always touch as many experts as one token picks.
    """
    from scipy.optimize import brentq

    largest = max(touched, key=lambda t: t.batch_tokens, default=None)
    if largest is None or largest.batch_tokens < 2:
        return None

    def excess(sigma: float) -> float:
        experts, picked = check["num_experts"], check["experts_per_token"]
        return float(distinct_experts(experts, picked, sigma, float(largest.batch_tokens))) - (
            largest.distinct
        )

    if excess(0.0) <= 0:
        return 0.0
    return float(brentq(excess, 0.0, MOST_SIGMA)) if excess(MOST_SIGMA) < 0 else MOST_SIGMA


def _check_load(batch: int) -> ClosedLoop:
    return ClosedLoop(
        concurrency=batch,
        input_tokens=_CHECK_INPUT,
        output_tokens=_CHECK_OUTPUT,
        num_prompts=2 * batch,
    )


def _call(engine: Engine, method: str, **arguments: object) -> dict[str, Any]:
    """A method of the worker extension; the answer of the first rank."""
    words = {name: str(value) for name, value in arguments.items()}
    try:
        answer = engine.post("/collective_rpc", {"method": method, "kwargs": words}, 300.0)
        return answer["results"][0]
    except (OSError, KeyError, IndexError, TypeError, ValueError) as error:
        raise engine.failure(f"{method} failed in the worker: {error}") from None
