"""From the layers of a model to the operators that one GPU of a tensor-parallel group executes.

Cuts follow vLLM: attention heads, feed-forward widths, recurrent heads and the vocabulary are
divided by the ranks; routers, norms, latent projections and MLA's down-projections are replicated;
KV heads are replicated where there are fewer of them than ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from moeplan.cost.kernel_choice import KernelChoice
from moeplan.cost.operators import (
    DecodeAttentionOperator,
    ExpertsOperator,
    LinearOperator,
    PrefillAttentionOperator,
    RecurrentOperator,
)
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
from moeplan.models.checkpoint import BYTES_PER_WEIGHT, Checkpoint

BF16_BYTES = 2.0
INDEXER_KEY_BYTES = 1.03
"""The sparse indexer caches FP8 keys of 128 elements and one FP32 scale: 132 bytes (vLLM)."""


@dataclass(frozen=True)
class Cut:
    """How the layers are cut, and the kernels that run the pieces."""

    architecture: Architecture
    checkpoint: Checkpoint
    kernels: KernelChoice
    tp: int
    expert_ranks: int
    """Ranks that share the experts whole (expert parallelism); 1 where TP cuts each expert."""
    sigma: float
    kv_bytes: float
    """Bytes of one cached element."""
    shared_beside_tokens: int = 0
    """Tokens up to which shared experts run beside the routed ones."""

    def linear(
        self, name: str, component: str, n: float, k: float, *, cut_n: int = 1, cut_k: int = 1
    ) -> Iterator[tuple[str, float, LinearOperator]]:
        """GEMM operators of one n × k matrix; one operator a storage format of the component."""
        n, k = n / cut_n, k / cut_k
        for fmt, share in self.kernels.formats(self.checkpoint, component).items():
            yield LinearOperator(
                name=name,
                count=share,
                table=self.kernels.linear(fmt),
                params=n * k,
                weight_bytes=n * k * BYTES_PER_WEIGHT[fmt],
                smallest_width=int(min(n, k)),
            )


@dataclass(frozen=True)
class LayerOperators:
    """Operators of one layer, by what they depend on."""

    token: tuple
    """Priced by a `Load`: GEMMs, experts, recurrent updates."""
    decode_attention: tuple[DecodeAttentionOperator, ...] = ()
    prefill_attention: tuple[PrefillAttentionOperator, ...] = ()


def layer_operators(layer: Layer, cut: Cut) -> LayerOperators:
    """Operators of one layer on one GPU; counts are per layer."""
    mixer = _mixer_operators(layer.mixer, cut)
    ffn = tuple(_ffn_operators(layer.ffn, cut)) if layer.ffn else ()
    return LayerOperators(mixer.token + ffn, mixer.decode_attention, mixer.prefill_attention)


def _mixer_operators(mixer: object, cut: Cut) -> LayerOperators:
    match mixer:
        case None:
            return LayerOperators(())
        case GroupedQueryAttention():
            return _grouped_query(mixer, cut)
        case LatentAttention():
            return _latent(mixer, cut)
        case GatedDeltaNet():
            return LayerOperators(tuple(_gated_delta(mixer, cut)))
        case Mamba2():
            return LayerOperators(tuple(_mamba2(mixer, cut)))
    raise TypeError(f"no cost is known for the mixer {type(mixer).__name__}")


def _grouped_query(mixer: GroupedQueryAttention, cut: Cut) -> LayerOperators:
    hidden, tp = cut.architecture.hidden_size, cut.tp
    heads = mixer.num_heads / tp
    kv_heads = max(1.0, mixer.num_kv_heads / tp)
    q_width = heads * mixer.head_dim * (2 if mixer.output_gate else 1)
    kv_width = kv_heads * mixer.head_dim * (1 if mixer.k_eq_v else 2)
    token = (
        *cut.linear("QKV projection", "attn_proj", q_width + kv_width, hidden),
        *cut.linear("attention output", "attn_proj", hidden, heads * mixer.head_dim),
    )
    kind = mixer.kind
    decode = DecodeAttentionOperator(
        name=f"{kind} attention, decode",
        count=1.0,
        table=cut.kernels.attention_decode("gqa"),
        bytes_per_context_token=2 * kv_heads * mixer.head_dim * cut.kv_bytes,
        flops_per_context_token=4.0 * heads * mixer.head_dim,
        cap=mixer.window,
    )
    prefill = PrefillAttentionOperator(
        name=f"{kind} attention, prefill",
        count=1.0,
        table=cut.kernels.attention_prefill(),
        flops_per_context_token=4.0 * heads * mixer.head_dim,
        window=mixer.window,
        floor_us=decode.table.floor_us,
    )
    return LayerOperators(token, (decode,), (prefill,))


def _latent(mixer: LatentAttention, cut: Cut) -> LayerOperators:
    hidden, tp = cut.architecture.hidden_size, cut.tp
    heads = mixer.num_heads / tp
    head_width = mixer.qk_nope_head_dim + mixer.qk_rope_head_dim
    latent = mixer.kv_lora_rank + mixer.qk_rope_head_dim
    up_width = mixer.qk_nope_head_dim + mixer.v_head_dim
    token = [
        *_latent_query(mixer, cut, heads * head_width, latent),
        *cut.linear("MLA key-value up", "mla_kv", heads * up_width, mixer.kv_lora_rank),
        *cut.linear("attention output", "mla_o", hidden, heads * mixer.v_head_dim),
    ]
    decode = [_latent_decode(mixer, cut, heads, latent)]
    if mixer.indexer:
        index = mixer.indexer
        width = index.num_heads * index.head_dim
        token += cut.linear("indexer projections", "indexer", width, mixer.q_lora_rank or hidden)
        decode.append(_indexer_decode(mixer, cut))
    prefill = PrefillAttentionOperator(
        name="MLA attention, prefill",
        count=1.0,
        table=cut.kernels.attention_prefill(),
        flops_per_context_token=2.0 * heads * (head_width + mixer.v_head_dim),
        window=None,
        floor_us=decode[0].table.floor_us,
    )
    return LayerOperators(tuple(token), tuple(decode), (prefill,))


def _latent_query(mixer: LatentAttention, cut: Cut, width: float, latent: int) -> Iterator:
    """Down projections of query and latent in one GEMM, then up; or one full query projection."""
    hidden = cut.architecture.hidden_size
    yield from cut.linear("MLA down projections", "mla_q", mixer.q_lora_rank + latent, hidden)
    yield from cut.linear("MLA query", "mla_q", width, mixer.q_lora_rank or hidden)


def _latent_decode(
    mixer: LatentAttention, cut: Cut, heads: float, latent: int
) -> DecodeAttentionOperator:
    return DecodeAttentionOperator(
        name="MLA attention, decode",
        count=1.0,
        table=cut.kernels.attention_decode("mla"),
        bytes_per_context_token=latent * cut.kv_bytes,
        # Absorbed form: scores over latent and rope parts, values over the latent.
        flops_per_context_token=2.0 * heads * (latent + mixer.kv_lora_rank),
        cap=mixer.indexer.topk if mixer.indexer else None,
        part="latent-attention",
    )


def _indexer_decode(mixer: LatentAttention, cut: Cut) -> DecodeAttentionOperator:
    index = mixer.indexer
    return DecodeAttentionOperator(
        name="sparse indexer, decode",
        count=1.0,
        table=cut.kernels.attention_decode("mla"),
        bytes_per_context_token=index.head_dim * INDEXER_KEY_BYTES,
        flops_per_context_token=2.0 * index.num_heads * index.head_dim,
        cap=None,
        part="sparse-indexer",
    )


def _gated_delta(mixer: GatedDeltaNet, cut: Cut) -> Iterator:
    hidden, tp = cut.architecture.hidden_size, cut.tp
    key = mixer.num_k_heads * mixer.k_head_dim / tp
    value = mixer.num_v_heads * mixer.v_head_dim / tp
    yield from cut.linear("DeltaNet in", "gdn_proj", 2 * key + 2 * value, hidden)
    yield from cut.linear("DeltaNet gates", "gdn_small", 2 * mixer.num_v_heads / tp, hidden)
    yield from cut.linear("DeltaNet out", "gdn_proj", hidden, value)
    state = mixer.num_v_heads * mixer.k_head_dim * mixer.v_head_dim / tp
    conv = (mixer.conv_kernel - 1) * (2 * key + value) * BF16_BYTES
    yield RecurrentOperator(
        name="gated DeltaNet",
        count=1.0,
        table=cut.kernels.recurrent(),
        state_bytes=state * mixer.state_bytes + conv,
        flops_per_token=7.0 * state,
    )


def _mamba2(mixer: Mamba2, cut: Cut) -> Iterator:
    hidden, tp = cut.architecture.hidden_size, cut.tp
    inner = mixer.num_heads * mixer.head_dim / tp
    groups = max(1.0, mixer.n_groups / tp)
    conv_width = inner + 2 * groups * mixer.state_size
    heads = mixer.num_heads / tp
    yield from cut.linear("Mamba in", "mamba_proj", inner + conv_width + heads, hidden)
    yield from cut.linear("Mamba out", "mamba_proj", hidden, inner)
    state = inner * mixer.state_size
    yield RecurrentOperator(
        name="Mamba-2 state",
        count=1.0,
        table=cut.kernels.recurrent(),
        state_bytes=state * mixer.state_bytes + (mixer.conv_kernel - 1) * conv_width * BF16_BYTES,
        flops_per_token=5.0 * state,
    )


def _mlp(cut: Cut, name: str, component: str, width: float, gated: bool) -> Iterator:
    hidden, tp = cut.architecture.hidden_size, cut.tp
    up = (2 if gated else 1) * width
    yield from cut.linear(f"{name} up", component, up, hidden, cut_n=tp)
    yield from cut.linear(f"{name} down", component, hidden, width, cut_k=tp)


def _ffn_operators(ffn: DenseFFN | MoEFFN, cut: Cut) -> Iterator:
    if isinstance(ffn, DenseFFN):
        yield from _mlp(cut, "MLP", "dense_mlp", ffn.intermediate_size, ffn.gated)
        return
    hidden = cut.architecture.hidden_size
    yield from cut.linear("router", "router", ffn.num_experts, hidden)
    if ffn.latent_size:
        yield from cut.linear("latent in", "latent_proj", ffn.latent_size, hidden)
    yield _experts(ffn, cut)
    if ffn.latent_size:
        yield from cut.linear("latent out", "latent_proj", hidden, ffn.latent_size)
    if ffn.shared_intermediate_size:
        width = ffn.shared_intermediate_size
        shared = _mlp(cut, "shared experts", "shared_experts", width, ffn.gated)
        yield from (replace(op, beside_tokens=cut.shared_beside_tokens) for op in shared)
    if ffn.parallel_dense_intermediate:
        width = ffn.parallel_dense_intermediate
        yield from _mlp(cut, "parallel MLP", "dense_mlp", width, ffn.gated)


def _experts(ffn: MoEFFN, cut: Cut) -> ExpertsOperator:
    width_in = ffn.latent_size or cut.architecture.hidden_size
    slices = 1 if cut.expert_ranks > 1 else cut.tp
    width = ffn.moe_intermediate_size / slices
    params = (3 if ffn.gated else 2) * width_in * width
    formats = cut.kernels.formats(cut.checkpoint, "routed_experts")
    bytes_per_weight = sum(share * BYTES_PER_WEIGHT[fmt] for fmt, share in formats.items())
    return ExpertsOperator(
        name="routed experts",
        count=1.0,
        table=cut.kernels.moe(),
        num_experts=ffn.num_experts,
        experts_per_token=ffn.num_experts_per_tok,
        sigma=cut.sigma,
        expert_params=params,
        expert_bytes=params * bytes_per_weight,
        width=width,
        expert_share=1 / cut.expert_ranks,
    )


def head_operators(cut: Cut) -> tuple[LinearOperator, ...]:
    """The LM head: a GEMM over sampled rows, the vocabulary cut by the ranks."""
    arch = cut.architecture
    component = "embed" if arch.tie_word_embeddings else "lm_head"
    return tuple(
        replace(op, per_row=True)
        for op in cut.linear("LM head", component, arch.vocab_size / cut.tp, arch.hidden_size)
    )
