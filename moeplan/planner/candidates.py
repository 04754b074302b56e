"""Every deployment worth a look: formats × placements × KV formats × engine settings × drafts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

from moeplan.deployment import Cluster, Deployment, EngineSettings, Placement, Router
from moeplan.errors import DeploymentError
from moeplan.models.architecture import Architecture
from moeplan.models.checkpoint import Checkpoint

TOKEN_BUDGETS = (2048, 4096, 8192, 16384)
"""Token budgets to try beside the engine's default (`--max-num-batched-tokens`)."""


@dataclass(frozen=True, slots=True)
class Space:
    """What the search may vary; a tuple of one value pins it."""

    checkpoints: tuple[Checkpoint, ...]
    kv_formats: tuple[str, ...] = ("bf16", "fp8")
    token_budgets: tuple[int | None, ...] = (None, *TOKEN_BUDGETS)
    running_limits: tuple[int | None, ...] = (None,)
    """Values of `--max-num-seqs`; None is the engine's default."""
    placements: tuple[Placement, ...] | None = None
    """None: every split of up to all GPUs."""
    router: Router = "round_robin"


@dataclass
class Refusals:
    """Deployments that were not built or dropped, by rule, with one example each."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, rule: str, example: str) -> None:
        """Count one refusal under its rule."""
        self.counts[rule] += 1
        self.examples.setdefault(rule, example)

    @property
    def total(self) -> int:
        """All refusals."""
        return sum(self.counts.values())


def placements(
    nodes: Sequence[int],
    *,
    tp: int | None = None,
    pp: int | None = None,
    replicas: int | None = None,
) -> Iterator[Placement]:
    """Every TP × PP × replicas on nodes of so many GPUs, or those with the numbers that are given.

    Ranks and stages otherwise in powers of two (vLLM's custom all-reduce and FlashInfer serve 2, 4,
    8); a replica either fits in one node or takes whole nodes.
    """
    gpus = sum(nodes)
    for ranks in [tp] if tp else _powers_of_two(gpus):
        for stages in [pp] if pp else _powers_of_two(gpus // ranks):
            most = _most_replicas(nodes, ranks * stages)
            for copies in [replicas] if replicas else range(1, most + 1):
                if copies <= most:
                    yield Placement(tp=ranks, pp=stages, replicas=copies)


def _most_replicas(nodes: Sequence[int], size: int) -> int:
    """Replicas of so many GPUs that the nodes hold."""
    largest = max(nodes)
    if size <= largest:
        return sum(node // size for node in nodes)
    if size % largest:
        return 0
    return sum(node == largest for node in nodes) // (size // largest)


def _powers_of_two(limit: int) -> Iterator[int]:
    value = 1
    while value <= limit:
        yield value
        value *= 2


def build_candidates(
    architecture: Architecture,
    cluster: Cluster,
    space: Space,
    engine: EngineSettings,
    in_flight: int,
    refusals: Refusals,
) -> Iterator[Deployment]:
    """Deployments that no rule refuses; those refused are counted in `refusals`.

    `in_flight` requests are open at once at most.
    """
    options = space.placements or tuple(placements([node.devices for node in cluster.nodes]))
    for checkpoint in space.checkpoints:
        for placement in options:
            if placement.replicas > in_flight:
                refusals.add(
                    "more replicas than requests in flight",
                    f"{placement}: {in_flight} in flight",
                )
                continue
            try:
                base = Deployment(
                    architecture, checkpoint, cluster, placement, space.router, engine
                )
            except DeploymentError as error:
                refusals.add(str(error).partition(";")[0], str(error))
                continue
            for settings in _settings(engine, space):
                yield replace(base, engine=settings)


def _settings(engine: EngineSettings, space: Space) -> Iterator[EngineSettings]:
    """All mixes; a drafter is tried beside none."""
    drafts = dict.fromkeys((engine.speculation, None))
    varied = product(space.kv_formats, space.token_budgets, space.running_limits, drafts)
    for kv, budget, limit, speculation in varied:
        yield replace(
            engine,
            kv_cache_dtype=kv,
            max_num_batched_tokens=budget or engine.max_num_batched_tokens,
            max_num_seqs=limit or engine.max_num_seqs,
            speculation=speculation,
        )


def fewer_sequences(deployment: Deployment, in_flight: int) -> Iterator[Deployment]:
    """The deployment with `--max-num-seqs` below a replica's share of the requests in flight."""
    share = in_flight / deployment.placement.replicas
    for limit in _powers_of_two(in_flight):
        if share / 8 <= limit < share:
            yield replace(deployment, engine=replace(deployment.engine, max_num_seqs=limit))
