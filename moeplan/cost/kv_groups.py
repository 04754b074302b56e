"""How the layers' caches share one pool of blocks: pages, groups and blocks of one deployment.

vLLM's rules (`v1/core/kv_cache_utils.py`, `v1/kv_cache_interface.py`, `platforms/interface.py`):
one page holds one block of one layer; layers of one kind are cut into groups of equal size, all
groups draw blocks from one pool, and a block is as large as the pages of one group together.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, replace

from moeplan.cost.drafter import drafter_of
from moeplan.cost.engine import ResolvedEngine
from moeplan.cost.engine_profile import vllm_has
from moeplan.cost.kv_layout import KVCacheSpec, KVGroup
from moeplan.cost.kv_pages import LayerCache, layer_caches
from moeplan.cost.stages import split_layers
from moeplan.deployment import Deployment
from moeplan.errors import DeploymentError
from moeplan.models.architecture import Layer

MLA_HYBRID_ALIGNMENT = 128
"""Blocks of models with both latent attention and recurrent layers are a multiple of this."""
PADDING_LIMIT = 1.5
"""Below this ratio of the largest kind's layers to the smallest's the smaller kind is padded."""


@dataclass(frozen=True, slots=True)
class KVPlan:
    """Groups of a deployment and what one block of the pool takes on a GPU of each stage."""

    groups: tuple[KVGroup, ...]
    block_size: int
    bytes_per_block: tuple[int, ...]
    """By pipeline stage; 0 where a stage holds no cache."""
    state_bytes_per_sequence: tuple[int, ...]
    """Recurrent state of one sequence by stage, without padding and copies."""

    def cache_spec(
        self, pool_bytes: tuple[float, ...], engine: ResolvedEngine, override: int | None = None
    ) -> KVCacheSpec:
        """Pool for these bytes a GPU by stage; the poorest stage decides, `override` fixes it."""
        counts = [
            int(pool // block)
            for pool, block in zip(pool_bytes, self.bytes_per_block, strict=True)
            if block
        ]
        return KVCacheSpec(
            num_blocks=override or min(counts, default=1),
            block_size=self.block_size,
            groups=self.groups,
            max_in_flight_tokens=engine.max_in_flight_tokens,
            frees_in_flight=engine.frees_in_flight,
        )


def kv_plan(deployment: Deployment, engine: ResolvedEngine) -> KVPlan:
    """Plan the cache of one replica.

    Raises `DeploymentError` where a prefix-cached hybrid model's block exceeds the token budget in
    a vLLM that demands otherwise.
    """
    stages = _cached_layers(deployment)
    tp = deployment.placement.tp
    caches, stage_of = [], []
    for stage, layers in enumerate(stages):
        found = [c for layer in layers for c in layer_caches(layer.mixer, tp, engine.kv_format)]
        caches += found
        stage_of += [stage] * len(found)
    state = tuple(
        sum(c.state_bytes for c, s in zip(caches, stage_of, strict=True) if s == stage)
        for stage in range(len(stages))
    )
    block_size = _hybrid_block_size(caches, engine)
    if deployment.engine.disable_hybrid_kv_cache_manager:
        caches = _promote_windows(caches)
    pages = _unified_pages(caches, block_size)
    buckets = _grouped_layers(pages)
    _check_budget(deployment, engine, state, block_size)
    return KVPlan(
        groups=tuple(_group(pages[members[0]], engine, block_size) for members in buckets),
        block_size=math.lcm(*(pages[m[0]].block_size for m in buckets)) if buckets else block_size,
        bytes_per_block=tuple(
            max(
                (
                    sum(pages[i].bytes for i in members if stage_of[i] == stage)
                    for members in buckets
                ),
                default=0,
            )
            for stage in range(len(stages))
        ),
        state_bytes_per_sequence=state,
    )


def _cached_layers(deployment: Deployment) -> list[tuple[Layer, ...]]:
    """Layers of each stage; those of a drafter share the pool of the last."""
    stages = split_layers(deployment.architecture, deployment.placement.pp)
    drafter = drafter_of(deployment)
    return [*stages[:-1], stages[-1] + (drafter.architecture.layers if drafter else ())]


def _check_budget(
    deployment: Deployment, engine: ResolvedEngine, state: tuple[int, ...], block_size: int
) -> None:
    """vLLM before 0.27 demands a budget of at least one block where it caches recurrent states.

    Refused only where the user asked for prefix caching: published runs with defaults served models
    whose blocks, by this count, exceed the budget (Nemotron-3-Super on GB10, vLLM 0.26).
    """
    budget = engine.max_num_batched_tokens
    asked = deployment.engine.enable_prefix_caching
    if not any(state) or not asked or block_size <= budget:
        return
    if engine.engine == "vllm" and not vllm_has(deployment.engine, "blocks beyond the budget"):
        raise DeploymentError(
            f"max_num_batched_tokens {budget} is below the block of {block_size} tokens that "
            f"prefix caching of recurrent layers needs in vLLM {engine.version}; raise it to "
            f"{block_size} or turn prefix caching off"
        )


@dataclass(frozen=True, slots=True)
class _Page:
    """One layer's part of one block."""

    cache: LayerCache
    block_size: int
    bytes: int


def _hybrid_block_size(caches: list[LayerCache], engine: ResolvedEngine) -> int:
    """Tokens a block, enlarged until an attention page holds a recurrent state."""
    attention = next((c for c in caches if c.kind != "recurrent"), None)
    state = max((c.state_bytes for c in caches), default=0)
    if attention is None or not state:
        return engine.block_size
    align = max(engine.block_size, MLA_HYBRID_ALIGNMENT if attention.latent else 1)
    return align * math.ceil(state / (align * attention.token_bytes))


def _promote_windows(caches: list[LayerCache]) -> list[LayerCache]:
    """Without the hybrid manager windowed layers keep the whole sequence."""
    if not any(c.kind == "full" for c in caches):
        return caches
    return [
        replace(c, kind="full", window=None) if c.kind in ("sliding", "chunked") else c
        for c in caches
    ]


def _unified_pages(caches: list[LayerCache], block_size: int) -> list[_Page]:
    """Pages of all layers, made equal where kinds share a pool.

    A smaller attention page takes more tokens where it divides the largest, and padding otherwise;
    a recurrent state is padded.
    """
    pages = [_Page(c, block_size, c.token_bytes * block_size or c.state_bytes) for c in caches]
    if len({(c.kind, c.window) for c in caches}) <= 1:
        return pages
    largest = max(page.bytes for page in pages)
    return [_enlarged(page, largest) for page in pages]


def _enlarged(page: _Page, largest: int) -> _Page:
    ratio, rest = divmod(largest, page.bytes)
    stretches = page.cache.kind != "recurrent" and rest == 0
    block_size = page.block_size * ratio if stretches else page.block_size
    return _Page(page.cache, block_size, largest)


def _grouped_layers(pages: list[_Page]) -> list[list[int]]:
    """Indices of the layers of each group; groups of one kind take turns through the model."""
    kinds: dict[tuple, list[int]] = defaultdict(list)
    for index, page in enumerate(pages):
        kinds[page.cache.kind, page.cache.window, page.block_size].append(index)
    if not kinds:
        return []
    counts = [len(members) for members in kinds.values()]
    size = min(counts)
    if max(counts) < PADDING_LIMIT * size:
        size = max(counts)
    groups = []
    for members in kinds.values():
        parts = math.ceil(len(members) / size)
        groups += [members[i::parts] for i in range(parts)]
    return groups


def _group(page: _Page, engine: ResolvedEngine, block_size: int) -> KVGroup:
    kind = page.cache.kind
    if kind != "recurrent":
        return KVGroup(kind, page.block_size, page.cache.window)
    # With prefix caching the state before the running block is kept beside the current one, and
    # one more for each draft: a rejected one goes back to the state before it.
    drafts = engine.tokens_a_decode - 1
    return KVGroup(kind, block_size, fixed_blocks=(2 if engine.prefix_caching else 1) + drafts)
