"""Fit what requests spend outside of the engine core to recorded arrivals and client times.

    minimise  Σ ( error / noise )²  +  Σ ( log(value / prior) / spread )²  +  log( back / 1 ms )²

where back is what the way to the client takes without tokens, a figure of these runs alone with a
prior of 1 ms (spread 1, so wide that a few ways back say it), and the error of a request of a burst
is log(predicted / recorded arrival). The core takes
requests in only between steps, so that an arrival is known to lie between two looks: within them
there is no error. A burst counts as one observation, however many requests it has. Tokens of
answers are told by the core at once and reach the client later, the later the more come with the
step: that slope is what a streamed token takes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moeplan.calibration.fit import NARROWED
from moeplan.calibration.summary import FittedParameter, determined_values
from moeplan.hardware_specs.schema import Hardware, Provenance
from moeplan.simulation.front_end import STREAM_LOOPS, FrontEndCosts, burst_arrivals_s

SPREAD = {
    "ttft_us": 0.7,
    "request_us": 1.2,
    "prompt_token_us": 1.2,
    "stream_us_per_token": 0.5,
}
"""Host constants that lie outside of the core, and the standard deviation of log(value) before any
measurement. An assumption: hosts of like GPUs differ twofold, clients more."""
NOISE = 0.15
"""Standard deviation of log(arrival) that bursts of one host differ by, and of log(way back)."""
_MICRO = 1e-6


@dataclass(frozen=True, slots=True)
class Burst:
    """Like requests sent together while the engine was idle. Seconds after the first was begun."""

    run: str
    prompt_tokens: int
    absent_s: tuple[float, ...]
    """When the core last looked before it took each in, in order of arrival; where it was idle, as
    `taken_s`."""
    taken_s: tuple[float, ...]
    """When it took each in."""

    def errors(self, costs: FrontEndCosts, beside_s: float) -> np.ndarray:
        """log(predicted / recorded), 0 within what is known, shape (requests,).

        `beside_s` is that part of the fixed time that does not lie before the core.
        """
        count = len(self.taken_s)
        predicted = np.array(burst_arrivals_s(costs, count, self.prompt_tokens))
        low, high = (np.array(s) + beside_s for s in (self.absent_s, self.taken_s))
        return np.log(predicted / np.clip(predicted, low, high))


@dataclass(frozen=True, slots=True)
class WayBack:
    """From a decode step's result to its tokens at the client, median of like steps."""

    run: str
    tokens: int
    """That come with the step."""
    seconds: float


@dataclass(frozen=True)
class FrontEndData:
    """What runs show of the front end of one host."""

    bursts: tuple[Burst, ...]
    ways_back: tuple[WayBack, ...]
    beside_s: float
    """Of a lone request's fixed time, the way back of its first token and the host's own in an idle
    engine, which the simulation overlaps with steps that are not there."""


@dataclass(frozen=True)
class FrontEndFit:
    """Outcome; `covariance` is that of log(value), in the order of the determined ones."""

    parameters: tuple[FittedParameter, ...] = ()
    covariance: tuple[tuple[float, ...], ...] = ()

    @property
    def overrides(self) -> dict[str, float]:
        """Determined parameters by address."""
        return determined_values(self.parameters)


def fit_front_end(
    hardware: Hardware, tables: Sequence[Provenance], data: FrontEndData
) -> FrontEndFit:
    """Fit the host's constants; `tables` are those that a deployment of these runs uses.

    One whose spread the runs do not narrow keeps its prior and says so.
    """
    if not data.bursts and not data.ways_back:
        return FrontEndFit()
    known = _known(hardware, tables)
    everything = _solve(known, list(known), data)
    chosen = [f for f in known if everything.spread[f] < NARROWED * SPREAD[f]]
    final = _solve(known, chosen, data) if len(chosen) < len(known) else everything
    return FrontEndFit(
        tuple(_fitted(field, *known[field], final, everything) for field in known),
        tuple(map(tuple, final.covariance.tolist())),
    )


_Known = dict[str, tuple[str, float, Provenance]]
"""Address, prior and table of each field."""


@dataclass(frozen=True)
class _Solution:
    values: dict[str, float]
    covariance: np.ndarray
    spread: dict[str, float]


def _known(hardware: Hardware, tables: Sequence[Provenance]) -> _Known:
    """Of two tables that state a field, a device's override comes after the engine's own."""
    used = {id(table) for table in tables}
    found: _Known = {}
    for address, (value, table) in hardware.parameters().items():
        field = address.rsplit("/", 1)[-1]
        if field in SPREAD and id(table) in used and value > 0:
            found[field] = (address, value, table)
    return {field: found[field] for field in SPREAD if field in found}


def _solve(known: _Known, chosen: Sequence[str], data: FrontEndData) -> _Solution:
    """Fit the chosen fields and the way back of no token, the other fields at their priors."""
    from scipy.optimize import least_squares

    spread = np.array([SPREAD[field] for field in chosen])
    priors = {field: prior for field, (_, prior, _) in known.items()}

    def values(x: np.ndarray) -> dict[str, float]:
        moved = zip(chosen, np.exp(spread * x[:-1]), strict=True)
        return priors | {field: priors[field] * float(factor) for field, factor in moved}

    def residuals(x: np.ndarray) -> np.ndarray:
        at = values(x)
        return np.concatenate([_burst_errors(at, data), _back_errors(at, x[-1], data), x])

    found = least_squares(residuals, np.zeros(len(chosen) + 1), diff_step=1e-4)
    inverse = np.linalg.inv(found.jac.T @ found.jac)[:-1, :-1]
    covariance = inverse * np.outer(spread, spread)
    return _Solution(
        values(found.x),
        covariance,
        dict(zip(chosen, np.sqrt(np.diag(covariance)).tolist(), strict=True)),
    )


def _burst_errors(values: Mapping[str, float], data: FrontEndData) -> np.ndarray:
    costs = FrontEndCosts(
        *(values.get(field, 0.0) * _MICRO for field in ("ttft_us", "request_us", "prompt_token_us"))
    )
    runs = [burst.run for burst in data.bursts]
    found = [
        burst.errors(costs, data.beside_s)
        / (NOISE * math.sqrt(len(burst.taken_s) * runs.count(burst.run)))
        for burst in data.bursts
    ]
    return np.concatenate([np.empty(0), *found])


def _back_errors(values: Mapping[str, float], log_ms: float, data: FrontEndData) -> np.ndarray:
    """`log_ms`: logarithm of the milliseconds that the way back takes without tokens."""
    token_s = STREAM_LOOPS * values.get("stream_us_per_token", 0.0) * _MICRO
    predicted = [1e-3 * math.exp(log_ms) + token_s * way.tokens for way in data.ways_back]
    return np.log(np.array(predicted) / [way.seconds for way in data.ways_back]) / NOISE


def _fitted(
    field: str,
    address: str,
    prior: float,
    table: Provenance,
    final: _Solution,
    everything: _Solution,
) -> FittedParameter:
    determined = field in final.spread
    return FittedParameter(
        address=address,
        prior=prior,
        prior_spread=SPREAD[field],
        prior_source=f"{table.grade}: {table.source}",
        value=final.values[field],
        spread=(final if determined else everything).spread[field],
        determined=determined,
    )
