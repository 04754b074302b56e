"""Bounds that no simulated run can beat: what lets the search skip deployments safely.

A run of T seconds on R replicas has R T seconds of each pipeline stage to spend, and c T seconds of
requests in flight (c of them at most). A pure decode step of m sequences takes τ(m) of the slowest
stage, holds m requests for ℓ(m), the time through all stages, and yields m tokens. With a price λ/R
on stage time and (1 − λ)/c on request time a decode token costs at least

    φ = min over m of (λ τ(m) / R + (1 − λ) m ℓ(m) / c) / m,

and a step with p prefill tokens at least C(p), its own price less φ for every decode that rides in
it. The least of C(p) / p over steps that can occur is ψ, so for every λ from 0 to 1

    T ≥ ψ (prompt tokens) + φ (decode tokens).

Requests that decode together for long must have joined: of two that share steps the later one's
prompt ended while the other was decoding, and they share at most O − 1 steps, O being the longest
output. Hence, over all steps with d decodes and e ends of prompts,

    Σ d (d − 1) / 2 ≤ (O − 1) Σ (d e + e (e − 1) / 2),

which enters with a price of its own: it keeps the bound from prefilling on empty replicas only.

Drafts yield several tokens a step: decode steps are then counted by the mean that is accepted,
less what a request may be ahead of it.

Which steps can occur: vLLM gives a prompt all that the token budget leaves. A step either exhausts
its budget, which cuts one prompt short, or it ends all its prompts; and it is shorter than the
shortest prompt only if it ends one that was cut. So short steps come at most one to a full one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from moeplan.cost.batch import StepBatch
from moeplan.cost.least_time import LeastQuery, LeastTimes
from moeplan.cost.predictor import Prepared
from moeplan.planner.chunks import chunk_steps
from moeplan.planner.demand import Demand
from moeplan.planner.running import Preemption, most_running, preemption
from moeplan.planner.slo import STATISTICS
from moeplan.simulation.metrics import distribution

_SHARES = np.linspace(0, 1, 9)
_PAIR_SHARES = np.linspace(0, 1, 3)
_RIDING_POINTS = 17
_SLACK = 1 - 1e-9


class _Prices(NamedTuple):
    """Prices to try, arrays of one length: a stage second, a request second, a pair in a step."""

    stage: np.ndarray
    request: np.ndarray
    pair: np.ndarray


@dataclass(frozen=True, slots=True)
class Bounds:
    """The best that a deployment could do."""

    output_tok_s: float
    latencies: dict[str, dict[str, float]]
    """Least seconds by metric and statistic, as in `Score`."""

    def times(self, parts: int) -> Bounds:
        """Those of so many twins that do the same side by side."""
        return replace(self, output_tok_s=self.output_tok_s * parts)

    @property
    def tok_s_per_user(self) -> float:
        """Most output tokens a second of one user."""
        return 1 / max(self.latencies["tpot"]["mean"], 1e-12)


def bounds(prepared: Prepared, demand: Demand, *, whole_loops: bool = True) -> Bounds:
    """Optimistic throughput and latencies of a deployment under a demand.

    `whole_loops` takes time for a better bound of the mean end-to-end time in a closed loop.
    """
    return _Bounder(prepared, demand).bounds(whole_loops=whole_loops)


class _Bounder:
    def __init__(self, prepared: Prepared, demand: Demand):
        placement = prepared.deployment.placement
        self.prepared, self.demand = prepared, demand
        self.replicas, self.piped = placement.replicas, placement.pp > 1
        self.uncached = demand.uncached(prefix_caching=prepared.engine.prefix_caching)
        before = demand.inputs - self.uncached
        self.largest = most_running(prepared, demand)
        self.chunks = chunk_steps(prepared, demand.inputs, before, self.largest)
        self.counted = self.chunks.counted(demand.inputs, before)
        self.preemption = preemption(prepared, demand, self.largest)
        query = LeastQuery(
            largest=self.largest,
            sizes=self.chunks.sizes,
            prompts=demand.inputs,
            before=before,
            shortest=demand.shortest_attended,
            mean=demand.mean_attended,
            usual=min(self.largest, demand.in_flight / self.replicas),
        )
        self.by_step = prepared.timer.least_by_step(query)
        self.by_work = prepared.timer.least_by_work(query)

    def bounds(self, *, whole_loops: bool) -> Bounds:
        """Everything together."""
        demand = self.demand
        steps = self._least_steps(demand.outputs - 1)
        e2e_s = self._first_token_s + steps * self._gap_s
        last = float((demand.arrivals_s - demand.arrivals_s[0] + e2e_s).max())
        seconds = max(last, self._run_seconds(len(demand)))
        e2e = _statistics(e2e_s)
        if whole_loops:
            e2e["mean"] = max(e2e["mean"], self._closed_loop_e2e_s())
        return Bounds(
            output_tok_s=float(demand.outputs.sum()) / (seconds * _SLACK),
            latencies={
                "ttft": self._ttft(),
                "e2e": e2e,
                "tpot": self._tpot(steps),
                "itl": self._itl(steps),
            },
        )

    def _tpot(self, steps: np.ndarray) -> dict[str, float]:
        if self.prepared.engine.speculation is None and not self._late_s:
            return dict.fromkeys(STATISTICS, self._gap_s * _SLACK)
        later = self.demand.outputs - 1
        between = np.maximum(steps * self._gap_s - self._late_s, 0.0)
        found = _statistics(between / np.where(later > 0, later, np.nan))
        return {name: value if value == value else 0.0 for name, value in found.items()}

    def _itl(self, steps: np.ndarray) -> dict[str, float]:
        """A token that is told late shortens the time to the next: only the mean has a bound.

        Tokens of one step are told together: gaps are steps; lateness counts most in the fewest.
        """
        gap = self._gap_s * _SLACK
        if not self._late_s:
            return dict.fromkeys(STATISTICS, gap)
        gaps = max(float(steps.sum()), 1.0)
        mean = max(gap - self._late_s * len(self.demand) / gaps, 0.0)
        return dict.fromkeys(STATISTICS, 0.0) | {"mean": mean}

    @cached_property
    def _late_s(self) -> float:
        """Most time for which a core that launches leaves a token that a step has sampled."""
        placement, engine = self.prepared.deployment.placement, self.prepared.engine
        if placement.tp > 1 or self.piped or not engine.async_scheduling:
            return 0.0
        timer, budget = self.prepared.timer, engine.max_num_batched_tokens
        return max(timer.launched_seconds(StepBatch((), ((n, 0),), 1))[1] for n in (1, budget))

    def _least_steps(self, tokens: np.ndarray) -> np.ndarray:
        """Least steps that decode so many tokens of a request.

        The simulation accepts drafts in evenly spread turns: over n steps the accepted drafts of a
        position miss their mean by less than 2 + ln n (found by counting, up to 200,000 steps).
        """
        drafts = self.prepared.engine.speculation
        if drafts is None:
            return tokens
        most = drafts.draft_tokens * (2 + np.log(np.maximum(tokens, 1)))
        usual = np.ceil((tokens - most) / drafts.mean_tokens)
        return np.maximum(-(-tokens // drafts.tokens_a_step), usual)

    # Latencies of single requests

    @cached_property
    def _gap_s(self) -> float:
        """Least time between two steps of a request."""
        return float(self.by_step.step_decode.min())

    @cached_property
    def _first_token_s(self) -> float:
        """Least time to the first token: one step of a whole prompt, or one that is exhausted."""
        place = self.chunks.alone
        alone = self.by_work.step_prefill[place] + self._attention_of_each.sum()
        seconds = max(
            float(self.by_step.step_prefill[place]),
            float(alone),
            float(self._turns_s(np.ones(1, int))[0]),
        )
        return self.prepared.engine.host.ttft_us * 1e-6 + seconds

    @cached_property
    def _attention_of_each(self) -> np.ndarray:
        """Least seconds of one prompt's attention by stage; 0 where prompts are unlike."""
        like = bool((self.demand.inputs == self.demand.inputs[0]).all())
        return self.by_work.prompt_attention / len(self.demand) * like

    def _turns_s(self, prompts: np.ndarray) -> np.ndarray:
        """Least time of the slowest stage for so many prompts, the shortest ones."""
        tokens = np.cumsum(np.sort(self.counted))[prompts - 1][:, None]
        by_step, by_work = (
            tokens * self.chunks.least_per_token(times.prefill)
            for times in (self.by_step, self.by_work)
        )
        attention = prompts[:, None] * self._attention_of_each
        return np.maximum(by_step, by_work + attention).max(axis=1)

    def _ttft(self) -> dict[str, float]:
        """The prompts of the first wave are computed in turns, on all replicas at a time."""
        first = np.full(len(self.demand), self._first_token_s)
        wave = self.demand.first_wave
        if wave:
            turns = -(-np.arange(1, wave + 1) // self.replicas)
            first[:wave] = np.maximum(first[:wave], self._turns_s(turns))
        return _statistics(first)

    def _closed_loop_e2e_s(self) -> float:
        """Least mean by Little's law: every slot is taken until the last request is sent.

        By then all requests but `in_flight` have ended.
        """
        demand = self.demand
        ended = len(demand) - demand.in_flight
        if not demand.closed or ended <= 0:
            return 0.0
        return _SLACK * self._run_seconds(ended) * demand.in_flight / len(demand)

    # Whole runs

    def _run_seconds(self, requests: int) -> float:
        """Least time in which that many requests, the shortest ones, are served."""
        demand = self.demand
        prompts = float(np.sort(self.counted)[:requests].sum())
        decodes = float(self._least_steps(np.sort(demand.outputs - 1)[:requests]).sum())
        attention = self.by_work.prompt_attention
        if requests < len(demand):
            attention = self._attention_of_each * requests
        return max(
            self._by_stage(times, stage, prompts, decodes, float(extra[stage]))
            for times, extra in ((self.by_step, 0 * attention), (self.by_work, attention))
            for stage in self._slowest_stages(times)
        )

    def _slowest_stages(self, times: LeastTimes) -> set[int]:
        usual = max(min(self.largest, self.demand.in_flight // self.replicas), 1)
        return {int(times.decode[:, usual - 1].argmax()), int(times.prefill[:, -1].argmax())}

    def _by_stage(
        self, times: LeastTimes, stage: int, prompts: float, decodes: float, attention: float
    ) -> float:
        """T ≥ ψ prompts + φ decodes + the stage's attention, by the best prices."""
        prices = self._prices(times)
        batches = np.arange(1, self.largest + 1)
        token_price = np.full(len(prices.stage), np.inf)
        for preempting in self._preempting:
            held, tokens = preempting.counted(batches)
            token = np.outer(prices.stage, times.decode[stage])
            token += np.outer(prices.request, held * times.step_decode)
            token += np.outer(prices.pair, batches * (batches - 1) / 2)
            token_price = np.minimum(token_price, (token / tokens).min(axis=1))
        step = self._step_costs(times, stage, prices, token_price)
        prompt_price = self.chunks.least_per_token(step)
        total = prompt_price * prompts + token_price * decodes + prices.stage * attention
        return float(total.max())

    @cached_property
    def _preempting(self) -> tuple[Preemption, ...]:
        """Kinds of steps: those that preempt nobody, and those that do."""
        plain = Preemption(running=0, victims=0)
        return (plain,) if self.preemption is None else (plain, self.preemption)

    def _prices(self, times: LeastTimes) -> _Prices:
        """Prices to try: shares of stage and request time, and of pairs where they count."""
        in_flight = min(self.demand.in_flight, self.replicas * self.largest)
        if self.replicas == 1 and not self.piped:  # stage time and request time are the same
            return _Prices(np.ones(1), np.zeros(1), np.zeros(1))
        shares, pairs = np.meshgrid(_SHARES, _PAIR_SHARES if self._pairs_count else np.zeros(1))
        request = (1 - shares.ravel()) / in_flight
        longest = max(int(self.demand.outputs.max()) - 1, 1)
        through = times.step_prefill[self.chunks.shorts]
        pair = pairs.ravel() * request * through / longest
        return _Prices(shares.ravel() / self.replicas, request, pair)

    @property
    def _pairs_count(self) -> bool:
        """Whether requests that decode together must have joined in steps with prefill."""
        engine = self.prepared.engine
        return (
            engine.mixed_prefill
            and not self.piped
            and self.preemption is None
            and self.chunks.greedy
            and self.largest < engine.max_num_batched_tokens
        )

    def _step_costs(
        self, times: LeastTimes, stage: int, prices: _Prices, token_price: np.ndarray
    ) -> np.ndarray:
        """Cost of a step with prefill less the worth of what it yields, shape (prices, sizes)."""
        riding = self._riding
        most = np.append(riding[1:] - 1, riding[-1:])  # one price for all up to the next
        seconds = times.prefill[stage][:, None] + times.riding[stage][riding]
        through = times.step_prefill[:, None] + times.riding.sum(axis=0)[riding]
        stage_price, request_price, pair_price, token_price = (
            price[:, None, None] for price in (*prices, token_price)
        )
        joined = pair_price * max(int(self.demand.outputs.max()) - 1, 1)
        costs = np.inf
        for ends in (np.ones(len(through)), self.chunks.most_ends):  # concave between them
            ends = ends[:, None]
            worth = joined * (most * ends + ends * (ends - 1) / 2)
            worth = worth - pair_price * riding * (riding - 1) / 2
            for preempting in self._preempting:
                # In a pipeline chunks of a prompt may overlap.
                held, _ = preempting.counted(riding + (0 if self.piped else ends))
                _, tokens = preempting.counted(most)
                cost = stage_price * seconds + request_price * held * through
                costs = np.minimum(costs, cost - token_price * tokens - worth)
        costs = costs.min(axis=-1)
        return np.where(prices.pair[:, None] > 0, costs, np.maximum(costs, 0.0))

    @cached_property
    def _riding(self) -> np.ndarray:
        """Numbers of decodes in a step with prefill to look at."""
        if not self.prepared.engine.mixed_prefill:
            return np.zeros(1, int)
        return np.unique(np.linspace(0, self.largest, _RIDING_POINTS).round().astype(int))


def _statistics(seconds: np.ndarray) -> dict[str, float]:
    values = asdict(distribution(seconds * _SLACK))
    return {name: values[name] for name in STATISTICS}
