"""Why a deployment wins, why another loses, and what takes its time."""

from __future__ import annotations

from collections import defaultdict

from moeplan.cost.batch import StepBatch
from moeplan.cost.explain import OperatorShare, operator_shares
from moeplan.cost.predictor import Prepared
from moeplan.planner.objective import Objective
from moeplan.planner.recommendation import Candidate
from moeplan.planner.slo import Limit

WAITING = "waiting for prefills and other batches"
_SAME = 0.005
"""Relative difference below which two figures read as equal."""


def decode_shares(prepared: Prepared, batch: int, context: int) -> list[OperatorShare]:
    """Operators of a decode step of `batch` sequences at `context` tokens, slowest first."""
    batch = max(1, min(batch, prepared.engine.max_num_seqs))
    engine = prepared.engine
    step = StepBatch([context] * batch, (), batch, engine.tokens_a_decode)
    shares = operator_shares(prepared.stages, step, engine, prepared.tables.drafter)
    return sorted(shares, key=lambda row: -row.seconds)


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


def why_it_loses(winner: Candidate, other: Candidate, objective: Objective) -> str:
    """One phrase: by how much another deployment is behind, and where its tokens lose time."""
    if other.missed:
        return "misses " + ", ".join(_missed(other, limit) for limit in other.missed)
    behind = _behind(winner, other, objective)
    mine, theirs = _token_seconds(winner), _token_seconds(other)
    growth = {name: seconds - mine.get(name, 0.0) for name, seconds in theirs.items()}
    worst = max(growth, key=growth.__getitem__)
    if growth[worst] < _SAME * sum(mine.values()):
        return behind
    return f"{behind}; {worst} +{growth[worst] * 1e3:.3g} ms a token"


def _token_seconds(candidate: Candidate) -> dict[str, float]:
    """Where a user's time per token goes: the operators of a decode step, and the rest."""
    seconds: dict[str, float] = defaultdict(float)
    drafts = candidate.prepared.engine.speculation
    for row in typical_shares(candidate):
        seconds[row.name] += row.seconds / (drafts.mean_tokens if drafts else 1.0)
    rest = candidate.score.latencies["tpot"]["mean"] - sum(seconds.values())
    return {**seconds, WAITING: max(rest, 0.0)}


def _missed(other: Candidate, limit: Limit) -> str:
    return f"{limit} ({other.score.latency(limit) * 1e3:.0f} ms)"


def _behind(winner: Candidate, other: Candidate, objective: Objective) -> str:
    what, worse = {
        "throughput": ("throughput", other.merit / winner.merit),
        "latency": ("end-to-end time", winner.merit / other.merit),
        "cost": ("cost per token", winner.merit / other.merit),
    }[objective]
    if abs(worse - 1) < _SAME:
        more = other.gpus - winner.gpus
        return f"equal {what}" + (f", {more} more GPUs" if more > 0 else "")
    return f"{worse - 1:+.0%} {what}" if abs(worse - 1) >= 0.01 else f"{worse - 1:+.1%} {what}"
