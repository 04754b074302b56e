"""What a search answers: the winner, those that lost and why, and those that never ran."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from moeplan.calibration.trust import Trust, trust_of
from moeplan.cost.predictor import Prepared
from moeplan.planner.bounds import Bounds
from moeplan.planner.objective import Latencies, Objective
from moeplan.planner.slo import Limit


@dataclass(frozen=True, slots=True)
class Score:
    """Predicted figures of one deployment, the ones that ranking and tables need."""

    output_tok_s: float
    output_tok_s_per_gpu: float
    tok_s_per_user: float
    """1 / mean TPOT."""
    latencies: Latencies
    steady_ttft_s: float | None
    """Mean TTFT after the first wave of requests; None where there is no later wave."""
    usd_per_million_output_tokens: float | None
    watts: float
    """Of all GPUs that the deployment uses."""
    mean_decode_batch: float
    mean_context: float
    preemptions: int

    def latency(self, limit: Limit) -> float:
        """The figure that a limit is about, in seconds."""
        return self.latencies[limit.metric][limit.statistic]


@dataclass(frozen=True)
class Candidate:
    """One simulated deployment."""

    prepared: Prepared
    bounds: Bounds
    score: Score
    missed: tuple[Limit, ...]
    """Service-level objectives that it does not meet."""
    merit: float
    """What the objective maximises."""

    @property
    def gpus(self) -> int:
        """GPUs that it uses."""
        return self.prepared.deployment.placement.gpus

    @property
    def family(self) -> tuple[str, str]:
        """Checkpoint, placement and drafts: other settings make variants of one deployment."""
        return family(self.prepared)

    @property
    def label(self) -> str:
        """Short name: format, placement, KV format and what of the engine was varied."""
        return label(self.prepared)

    @cached_property
    def trust(self) -> Trust:
        """How far its predictions may be off."""
        return trust_of(self.prepared)


def family(prepared: Prepared) -> tuple[str, str]:
    """Checkpoint, and placement with drafts."""
    deployment = prepared.deployment
    form = deployment.checkpoint.repo or deployment.checkpoint.name
    return form, f"{deployment.placement}{_drafts(prepared)}"


def label(prepared: Prepared) -> str:
    """Short name: format, placement, KV format and what of the engine was varied."""
    deployment, engine = prepared.deployment, prepared.engine
    return (
        f"{deployment.checkpoint.name} {deployment.placement} kv {engine.kv_format} "
        f"budget {engine.max_num_batched_tokens} seqs {engine.max_num_seqs}{_drafts(prepared)}"
    )


def _drafts(prepared: Prepared) -> str:
    drafts = prepared.engine.speculation
    return f" {drafts.method} {drafts.draft_tokens}" if drafts else ""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many deployments went where: built = refused + duplicates + screened + simulated."""

    built: int
    refused: dict[str, int]
    """By rule."""
    refusal_examples: dict[str, str]
    duplicates: int
    """Would run step by step like another one."""
    screened: int
    """Skipped because a bound shows that they cannot change the answer."""
    simulated: int


@dataclass(frozen=True)
class Recommendation:
    """The ranked outcome of a search."""

    objective: Objective
    limits: tuple[Limit, ...]
    ranked: tuple[Candidate, ...]
    """Those that meet every objective, best first."""
    front: tuple[Candidate, ...]
    """Pareto front of tok/s per GPU against tok/s per user, over all simulated."""
    simulated: tuple[Candidate, ...]
    counts: Counts

    @property
    def winner(self) -> Candidate:
        """The best deployment."""
        return self.ranked[0]
