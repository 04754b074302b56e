"""Why a deployment wins, why another loses, and what takes its time."""

from __future__ import annotations

from collections import defaultdict

from moeplan.cost.batch import StepBatch
from moeplan.cost.explain import OperatorShare, operator_shares
from moeplan.cost.predictor import Prepared
from moeplan.planner.objective import Objective
from moeplan.planner.recommendation import Candidate
from moeplan.planner.slo import Limit

_SAME = 0.005
"""Relative difference below which two figures read as equal."""


def decode_shares(prepared: Prepared, batch: int, context: int) -> list[OperatorShare]:
    """Operators of a decode step of `batch` sequences at `context` tokens, slowest first."""
    batch = max(1, min(batch, prepared.engine.max_num_seqs))
    step = StepBatch(decode_contexts=[context] * batch, sampled_rows=batch)
    return sorted(
        operator_shares(prepared.stages, step, prepared.engine), key=lambda row: -row.seconds
    )


def typical_shares(candidate: Candidate) -> list[OperatorShare]:
    """Operators of a decode step at the run's mean batch and context."""
    score = candidate.score
    return decode_shares(
        candidate.prepared, round(score.mean_decode_batch), round(score.mean_context)
    )


def bottleneck(candidate: Candidate) -> str:
    """The operator or link that takes most of a typical decode step, and what binds it."""
    rows = typical_shares(candidate)
    total = sum(row.seconds for row in rows)
    top = rows[0]
    return f"{top.name}: {top.seconds / total:.0%} of a decode step, {top.bound}-bound"


def _seconds_by_name(candidate: Candidate) -> dict[str, float]:
    seconds: dict[str, float] = defaultdict(float)
    for row in typical_shares(candidate):
        seconds[row.name] += row.seconds
    return seconds


def why_it_loses(winner: Candidate, other: Candidate, objective: Objective) -> str:
    """One phrase: by how much another deployment is behind, and where its steps lose time."""
    if other.missed:
        return "misses " + ", ".join(_missed(other, limit) for limit in other.missed)
    behind = _behind(winner, other, objective)
    mine, theirs = _seconds_by_name(winner), _seconds_by_name(other)
    growth = {name: theirs[name] - mine.get(name, 0.0) for name in theirs}
    worst = max(growth, key=growth.__getitem__)
    if growth[worst] <= 0:
        return behind
    return f"{behind}; {worst} +{growth[worst] * 1e3:.1f} ms a step"


def _missed(other: Candidate, limit: Limit) -> str:
    return f"{limit} ({other.score.latency(limit) * 1e3:.0f} ms)"


def _behind(winner: Candidate, other: Candidate, objective: Objective) -> str:
    if objective == "latency":
        mine, theirs = (c.score.latencies["e2e"]["mean"] for c in (winner, other))
        return _phrase(theirs / mine - 1, "end-to-end time")
    if objective == "cost":
        mine, theirs = (c.score.usd_per_million_output_tokens or 0.0 for c in (winner, other))
        return _phrase(theirs / mine - 1, "cost per token") if mine else "no price"
    return _phrase(other.score.output_tok_s / winner.score.output_tok_s - 1, "throughput")


def _phrase(relative: float, what: str) -> str:
    return f"equal {what}, more GPUs" if abs(relative) < _SAME else f"{relative:+.0%} {what}"
