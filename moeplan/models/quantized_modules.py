"""Names of the matrices of each component, to tell which ones a checkpoint leaves unquantised.

`quantization_config` lists modules by their names in the published weights; families spell the same
matrix in different ways. Each matrix carries its share of the component's weights.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import translate
from functools import singledispatch

from moeplan.errors import ModelConfigError
from moeplan.models.architecture import (
    Architecture,
    DenseFFN,
    GatedDeltaNet,
    GroupedQueryAttention,
    LatentAttention,
    Layer,
    Mamba2,
    MoEFFN,
)

PREFIXES = (
    "model.layers.{}",
    "model.language_model.layers.{}",
    "language_model.model.layers.{}",
    "language_model.layers.{}",
    "backbone.layers.{}",
)
ATTENTION = ("self_attn", "mixer")
MLP = ("mlp", "feed_forward", "mixer", "block_sparse_moe")

Matrix = tuple[str, tuple[str, ...], float]
"""Component, the spellings of its name inside a layer, and its weight."""
FormatOf = Callable[[Sequence[str]], str]
"""Storage format of a module, given every spelling of its full name (only one of them exists)."""


def component_formats(arch: Architecture, format_of: FormatOf) -> dict[str, dict[str, float]]:
    """Share of each storage format in every component of the main model that has matrices."""
    weights: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for index, layer in enumerate(arch.layers):
        for component, spellings, weight in layer_matrices(layer, arch.hidden_size):
            fmt = format_of(_full_names(index, spellings))
            weights[component][fmt] += weight
    return {name: _shares(found) for name, found in weights.items()}


def draft_format(arch: Architecture, format_of: FormatOf) -> str | None:
    """Storage format of the draft layers' widest matrix; None without draft layers."""
    if arch.mtp is None:
        return None
    matrices = [m for la in arch.mtp.layers for m in layer_matrices(la, arch.hidden_size)]
    widest = max(matrices, key=lambda matrix: matrix[2])
    own = [f"mtp.layers.0.{spelling}" for spelling in widest[1]]
    return format_of(_full_names(len(arch.layers), widest[1]) + own)


def layer_matrices(layer: Layer, hidden: int) -> Iterator[Matrix]:
    """Matrices of one layer."""
    for part in (layer.mixer, layer.ffn):
        if part is not None:
            yield from _matrices(part, hidden)


def _full_names(index: int, spellings: Iterable[str]) -> list[str]:
    return [f"{prefix.format(index)}.{s}" for prefix in PREFIXES for s in spellings]


def _shares(found: dict[str, float]) -> dict[str, float]:
    total = sum(found.values())
    return {fmt: weight / total for fmt, weight in found.items()}


def _spell(parents: Iterable[str], name: str) -> tuple[str, ...]:
    return tuple(f"{parent}.{name}" for parent in parents)


@singledispatch
def _matrices(part: object, hidden: int) -> Iterator[Matrix]:
    raise TypeError(f"no module names are known for {type(part).__name__} at width {hidden}")


@_matrices.register
def _(part: GroupedQueryAttention, hidden: int) -> Iterator[Matrix]:
    queries = hidden * part.num_heads * part.head_dim
    keys = hidden * part.num_kv_heads * part.head_dim
    gate = 2 if part.output_gate else 1
    yield "attn_proj", _spell(ATTENTION, "q_proj"), queries * gate
    yield "attn_proj", _spell(ATTENTION, "k_proj"), keys
    if not part.k_eq_v:
        yield "attn_proj", _spell(ATTENTION, "v_proj"), keys
    yield "attn_proj", _spell(ATTENTION, "o_proj"), queries


@_matrices.register
def _(part: LatentAttention, hidden: int) -> Iterator[Matrix]:
    heads, rank, latent = part.num_heads, part.q_lora_rank, part.kv_lora_rank
    width = heads * (part.qk_nope_head_dim + part.qk_rope_head_dim)
    if rank:
        yield "mla_q", ("self_attn.q_a_proj",), hidden * rank
        yield "mla_q", ("self_attn.q_b_proj",), rank * width
    else:
        yield "mla_q", ("self_attn.q_proj",), hidden * width
    down = hidden * (latent + part.qk_rope_head_dim)
    up = latent * heads * (part.qk_nope_head_dim + part.v_head_dim)
    yield "mla_kv", ("self_attn.kv_a_proj_with_mqa",), down
    yield "mla_kv", ("self_attn.kv_b_proj",), up
    yield "mla_o", ("self_attn.o_proj",), heads * part.v_head_dim * hidden
    if part.indexer:
        index = part.indexer
        up = rank * index.num_heads * index.head_dim
        yield "indexer", ("self_attn.indexer.wq_b",), up
        yield "indexer", ("self_attn.indexer.wk",), hidden * index.head_dim
        yield "indexer", ("self_attn.indexer.weights_proj",), hidden * index.num_heads


@_matrices.register
def _(part: GatedDeltaNet, hidden: int) -> Iterator[Matrix]:
    keys, values = part.num_k_heads * part.k_head_dim, part.num_v_heads * part.v_head_dim
    joined = "linear_attn.in_proj_qkvz"
    yield "gdn_proj", ("linear_attn.in_proj_qkv", joined), hidden * (2 * keys + values)
    yield "gdn_proj", ("linear_attn.in_proj_z", joined), hidden * values
    yield "gdn_proj", ("linear_attn.out_proj",), hidden * values


@_matrices.register
def _(part: Mamba2, hidden: int) -> Iterator[Matrix]:
    inner = part.num_heads * part.head_dim
    wide = 2 * inner + 2 * part.n_groups * part.state_size + part.num_heads
    yield "mamba_proj", ("mixer.in_proj",), hidden * wide
    yield "mamba_proj", ("mixer.out_proj",), hidden * inner


@_matrices.register
def _(part: DenseFFN, hidden: int) -> Iterator[Matrix]:
    weight = hidden * part.intermediate_size
    yield from _mlp("dense_mlp", [f"{p}." for p in MLP], weight, part.gated)


@_matrices.register
def _(part: MoEFFN, hidden: int) -> Iterator[Matrix]:
    width = part.latent_size or hidden
    experts = part.num_experts * width * part.moe_intermediate_size
    # Gemma 4 keeps its experts beside the dense MLP, not inside it.
    parents = ("",) if part.parallel_dense_intermediate else tuple(f"{p}." for p in MLP)
    yield from _mlp("routed_experts", [p + "experts.0." for p in parents], experts, part.gated)
    if part.shared_intermediate_size:
        shared = hidden * part.shared_intermediate_size
        names = [f"{p}.{name}." for p in MLP for name in ("shared_experts", "shared_expert")]
        yield from _mlp("shared_experts", names, shared, part.gated)
    if part.parallel_dense_intermediate:
        dense = hidden * part.parallel_dense_intermediate
        yield from _mlp("dense_mlp", ["mlp."], dense, part.gated)
    if part.latent_size:
        for name in ("fc1_latent_proj", "fc2_latent_proj"):
            yield "latent_proj", (f"mixer.{name}",), hidden * part.latent_size


def _mlp(component: str, parents: Sequence[str], weight: float, gated: bool) -> Iterator[Matrix]:
    for name in ("gate_proj", "up_proj", "down_proj")[0 if gated else 1 :]:
        yield component, tuple(parent + name for parent in parents), weight


class ModulePatterns:
    """Names of modules as exclusion lists give them: plain, with `*`, or `re:` expressions.

    A plain name excludes every module whose dotted name contains it part for part ("self_attn",
    "model.layers.0.mlp.gate"), as transformers and vLLM read such lists.
    """

    def __init__(self, patterns: Iterable[str], where: str):
        self._plain: set[str] = set()
        globs: list[str] = []
        expressions: list[str] = []
        for pattern in patterns:
            if not isinstance(pattern, str):
                raise ModelConfigError(f"{where}: {pattern!r}: must be a module name")
            if pattern.startswith("re:"):
                expressions.append(pattern.removeprefix("re:"))
            elif "*" in pattern:
                globs += [translate(pattern), translate(pattern + ".*")]
            else:
                self._plain.add(pattern)
        if globs:  # one expression: some files list hundreds
            expressions.append("|".join(globs))
        self._expressions = [_compiled(text, where) for text in expressions]

    def match(self, names: Iterable[str]) -> bool:
        """Whether any pattern names the module, or one that contains it, under any spelling."""
        return any(self._plainly(n) or any(e.match(n) for e in self._expressions) for n in names)

    def _plainly(self, name: str) -> bool:
        if not self._plain:
            return False
        parts = name.split(".")
        size = len(parts)
        return any(
            ".".join(parts[i:j]) in self._plain for i in range(size) for j in range(i + 1, size + 1)
        )


def _compiled(text: str, where: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ModelConfigError(f"{where}: {text!r}: not a regular expression: {error}") from error
