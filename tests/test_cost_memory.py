"""Memory maps obey physics and refuse what cannot fit."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.deployments import deployment

from moeplan.cost.engine import resolve_engine
from moeplan.cost.kv_groups import kv_plan
from moeplan.cost.kv_layout import sequence_blocks
from moeplan.cost.memory import gib, memory_map
from moeplan.cost.weights import stage_weight_bytes
from moeplan.errors import DeploymentError, DoesNotFitError
from moeplan.hardware_specs import load_hardware
from moeplan.models import load_model
from moeplan.models.architecture import (
    DenseFFN,
    LatentAttention,
    Layer,
    MoEFFN,
    SparseIndexer,
)

HARDWARE = load_hardware()
GIB = 2**30


def lay_out(model, longest=8192, **options):
    asked = deployment(model, **options)
    return memory_map(asked, HARDWARE, resolve_engine(asked, HARDWARE, longest))


FITTING = [
    ("gpt-oss-120b", {"device": "h100_sxm", "tp": 2}),
    ("qwen3-next-80b-a3b", {"device": "h100_sxm", "tp": 4}),
    ("glm-4.7-flash", {"device": "b200"}),
    ("gemma-4-26b-a4b", {"device": "gb10"}),
    ("llama-3.1-8b", {"device": "rtx_4090", "gpu_memory_utilization": 0.92}),
    ("llama-3.3-70b", {"device": "h100_sxm", "tp": 2, "pp": 2}),
]


@pytest.mark.parametrize(("model", "options"), FITTING)
def test_the_map_adds_up(model, options):
    found = lay_out(model, longest=4096, **options)
    parts = found.usage.parts
    inside = sum(parts[name] for name in found.inside)
    beside = sum(size for name, size in parts.items() if name not in found.inside)
    assert inside + found.kv_pool + found.remainder == pytest.approx(found.requested)
    assert found.requested + beside + found.outside == pytest.approx(found.total)
    assert 0 <= found.remainder < found.kv_bytes_per_block
    assert found.outside > 0
    table = found.to_dict()
    assert table["kv_pool_gib"] == pytest.approx(gib(found.kv_pool))
    assert sum(table["weights_by_component_gib"].values()) == pytest.approx(table["weights_gib"])


@pytest.mark.parametrize("model", ["gpt-oss-120b", "deepseek-v3", "qwen3.5-397b-a17b", "glm-4.6"])
def test_one_gpu_holds_the_whole_checkpoint_and_ranks_hold_less_each(model):
    entry = load_model(model)
    stored = entry.default_checkpoint
    whole = sum(
        count * stored.bytes_per_weight(name)
        for name, count in entry.architecture.components.items()
    ) + entry.architecture.vision_params * stored.bytes_per_weight("vision")
    sizes = []
    for tp in (1, 2, 4, 8):
        asked = deployment(model, tp=tp)
        layers = asked.architecture.layers
        sizes.append(
            sum(stage_weight_bytes(asked, HARDWARE, layers, first=True, last=True).values())
        )
    if stored.name == "mxfp4":  # Triton keeps biases in FP32 and pads scales on Hopper
        ffn = next(x.ffn for x in layers if isinstance(x.ffn, MoEFFN))
        experts = ffn.num_experts * len(layers)
        whole += experts * (8640 * 2 + (5888 + 3072 - 8640) * 90)
    assert sizes[0] == pytest.approx(whole, rel=0.001)
    for few, many in pairwise(sizes):
        assert few / 2 - 1 <= many < few  # more ranks hold less each, but no weight vanishes


@pytest.mark.parametrize(
    ("model", "checkpoint", "weights_gib", "pool_gib"),
    [
        ("gpt-oss-20b", "mxfp4", 13.58, 57.71),
        ("gpt-oss-120b", "mxfp4", 64.67, 6.62),
        ("qwen3-30b-a3b", "bf16", 56.88, 14.39),
        ("qwen3-30b-a3b", "fp8", 29.08, 42.18),
        ("glm-4.7-flash", "bf16", 55.87, 14.61),
        ("llama-3.1-8b", "bf16", 15.0, 56.51),
    ],
)
def test_memory_that_vllm_reported_on_an_h100(model, checkpoint, weights_gib, pool_gib):
    """Own runs of vLLM 0.24 (validate/evidence/2026-11-27-h100/engines.jsonl)."""
    found = lay_out(
        model,
        device="h100_sxm",
        checkpoint=checkpoint,
        version="0.24.0",
        max_num_seqs=256,
        max_model_len=40960,
        enable_prefix_caching=False,
        cudagraph_capture_sizes=(1, 2, 4, 8, 16, 32, 64, 128, 256),
    )
    assert gib(found.usage.parts["weights"]) == pytest.approx(weights_gib, abs=0.08)
    assert gib(found.kv_pool) == pytest.approx(pool_gib, rel=0.005)


def test_pipeline_stages_hold_every_weight_once():
    asked = deployment("llama-3.3-70b", pp=4)
    whole = deployment("llama-3.3-70b")
    layers = whole.architecture.layers
    stages = [layers[i * 20 : (i + 1) * 20] for i in range(4)]
    parts = [
        stage_weight_bytes(asked, HARDWARE, part, first=i == 0, last=i == 3)
        for i, part in enumerate(stages)
    ]
    everything = stage_weight_bytes(whole, HARDWARE, layers, first=True, last=True)
    for component, size in everything.items():
        assert sum(part.get(component, 0.0) for part in parts) == pytest.approx(size)


def test_a_tied_table_lies_on_the_first_and_the_last_stage():
    asked = deployment("gemma-4-26b-a4b", pp=2)
    half = asked.architecture.layers[:15]
    first = stage_weight_bytes(asked, HARDWARE, half, first=True, last=False)
    last = stage_weight_bytes(asked, HARDWARE, half, first=False, last=True)
    assert first["embed"] == last["embed"] > 0


def test_expert_parallelism_holds_whole_experts():
    cut = lay_out("qwen3-30b-a3b", device="h100_sxm", tp=4)
    whole = lay_out("qwen3-30b-a3b", device="h100_sxm", tp=4, ep=True)
    spread = lay_out("qwen3-30b-a3b", device="h100_sxm", dp=4, ep=True)
    experts = "routed_experts"
    assert whole.usage.weights[experts] == pytest.approx(cut.usage.weights[experts])
    assert spread.usage.weights[experts] == pytest.approx(cut.usage.weights[experts])
    # data-parallel ranks replicate attention
    assert spread.usage.weights["attn_proj"] > 3 * whole.usage.weights["attn_proj"]


def test_fp8_cache_holds_twice_the_tokens():
    bf16 = lay_out("qwen3-30b-a3b", device="h100_sxm", kv_cache_dtype="bf16")
    fp8 = lay_out("qwen3-30b-a3b", device="h100_sxm", kv_cache_dtype="fp8")
    assert fp8.capacity.tokens == pytest.approx(2 * bf16.capacity.tokens, rel=0.001)


def test_kv_heads_are_replicated_beyond_their_number():
    two = lay_out("qwen3.5-35b-a3b", device="h100_sxm", tp=2)
    four = lay_out("qwen3.5-35b-a3b", device="h100_sxm", tp=4)
    assert two.kv.groups[0].block_size == pytest.approx(2 * four.kv.groups[0].block_size, rel=0.02)


def test_latent_caches_are_replicated():
    one, eight = (kv_plan_of("glm-4.7-flash", tp=tp) for tp in (1, 4))
    assert one.bytes_per_block == eight.bytes_per_block


def kv_plan_of(model, **options):
    asked = deployment(model, **options)
    return kv_plan(asked, resolve_engine(asked, HARDWARE, 4096))


def test_sparse_indexers_cache_their_own_keys():
    index = SparseIndexer(32, 128, 2048)
    latent = LatentAttention(4, 64, 512, 128, 64, 128, indexer=index)
    template = load_model("deepseek-v3.2").architecture
    sparse = dataclasses.replace(template, layers=(Layer(latent, DenseFFN(256)),))
    bf16 = kv_plan_of(sparse, kv_cache_dtype="bf16")
    fp8 = kv_plan_of(sparse, kv_cache_dtype="fp8")
    assert bf16.bytes_per_block == (64 * (576 * 2 + 132),)
    assert fp8.bytes_per_block == (64 * (656 + 132),)


def test_window_groups_share_the_pool_and_the_hybrid_manager_pays():
    on = lay_out("gpt-oss-120b", longest=65536, device="h100_sxm", tp=2)
    off = lay_out(
        "gpt-oss-120b",
        longest=65536,
        device="h100_sxm",
        tp=2,
        disable_hybrid_kv_cache_manager=True,
    )
    assert [g.kind for g in on.kv.groups] == ["sliding", "full"]
    assert [g.kind for g in off.kv.groups] == ["full"]
    assert on.capacity.tokens > 1.5 * off.capacity.tokens
    assert on.kv_bytes_per_block * 2 == off.kv_bytes_per_block


def test_unlike_heads_make_pages_equal_by_longer_blocks():
    groups = kv_plan_of("gemma-4-26b-a4b", device="gb10").groups
    assert {(g.kind, g.block_size) for g in groups} == {("sliding", 16), ("full", 32)}
    assert len(groups) == 6  # 25 sliding layers in fives, 5 full ones


def test_prefix_caching_doubles_the_states_of_recurrent_layers():
    one = kv_plan_of("qwen3-next-80b-a3b", device="b200", enable_prefix_caching=False)
    two = kv_plan_of("qwen3-next-80b-a3b", device="b200", enable_prefix_caching=True)
    assert {g.fixed_blocks for g in one.groups} == {0, 1}
    assert {g.fixed_blocks for g in two.groups} == {0, 2}
    assert one.state_bytes_per_sequence == (39_518_208,)  # 37.75 MB and 1.77 MB of convolution


def test_old_vllm_wants_a_budget_of_one_hybrid_block():
    options = {"device": "rtx_pro_6000", "max_num_batched_tokens": 2048, "checkpoint": "int4"}
    options |= {"enable_prefix_caching": True, "max_num_seqs": 128}
    with pytest.raises(DeploymentError, match=r"2048 is below the block of 2096.*raise it to 2096"):
        lay_out("qwen3.5-122b-a10b", version="0.20.2", **options)
    assert lay_out("qwen3.5-122b-a10b", version="0.28.0", **options).kv.block_size == 2096


@settings(max_examples=25, deadline=None)
@given(low=st.floats(0.8, 0.92), more=st.floats(0.001, 0.05))
def test_more_memory_means_more_blocks(low, more):
    a, b = (
        lay_out("qwen3-30b-a3b", device="h100_sxm", gpu_memory_utilization=share)
        for share in (low, low + more)
    )
    assert b.kv.num_blocks > a.kv.num_blocks
    assert b.sequences(4096) >= a.sequences(4096)


@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(1, 30_000),
    model=st.sampled_from(["gpt-oss-120b", "qwen3-next-80b-a3b", "llama-4-scout"]),
)
def test_longer_sequences_hold_no_fewer_blocks(length, model):
    found = lay_out(model, longest=32768, device="b200", tp=4)
    assert sequence_blocks(found.kv, length + 1) >= sequence_blocks(found.kv, length)
    assert found.sequences(length + 1) <= found.sequences(length)
    # what all of them hold is in the pool
    assert found.sequences(length) <= found.kv.num_blocks


@settings(max_examples=25, deadline=None)
@given(budget=st.integers(256, 32768), seqs=st.integers(1, 16).map(lambda n: 16 * n))
def test_a_larger_budget_or_more_sequences_leave_no_more_for_the_cache(budget, seqs):
    def pool(tokens, limit):
        return lay_out(
            "qwen3-30b-a3b",
            device="h100_sxm",
            max_num_batched_tokens=tokens,
            max_num_seqs=limit,
        ).kv_pool

    assert pool(budget + 1024, seqs) <= pool(budget, seqs)
    assert pool(budget, min(2 * seqs, 256)) <= pool(budget, seqs)


def test_block_count_and_pool_bytes_can_be_fixed():
    fixed = lay_out("qwen3-30b-a3b", device="h100_sxm", num_gpu_blocks_override=1000)
    assert fixed.kv.num_blocks == 1000
    assert fixed.remainder == pytest.approx(0, abs=1)
    given_bytes = lay_out("qwen3-30b-a3b", device="h100_sxm", kv_cache_memory_bytes=2 * GIB)
    assert given_bytes.kv.num_blocks == 2 * GIB // given_bytes.kv_bytes_per_block
    low = lay_out(
        "qwen3-30b-a3b",
        device="h100_sxm",
        kv_cache_memory_bytes=2 * GIB,
        gpu_memory_utilization=0.1,
    )
    assert low.kv.num_blocks == given_bytes.kv.num_blocks  # the share no longer counts


def test_weights_that_do_not_fit_say_how_much_is_missing():
    with pytest.raises(DoesNotFitError, match=r"exceed the .* by .* GiB") as caught:
        lay_out("llama-3.3-70b", device="h100_sxm")
    assert caught.value.exit_code == 3
    assert 55 < caught.value.missing_gib < 70


def test_one_sequence_that_does_not_fit_names_the_longest_that_does():
    with pytest.raises(DoesNotFitError, match=r"max_model_len of at most (\d+)") as caught:
        lay_out("llama-3.1-8b", longest=131_072, device="rtx_4090", kv_cache_dtype="bf16")
    longest = int(str(caught.value).split("at most ")[1].split(",")[0])
    found = lay_out("llama-3.1-8b", longest=longest, device="rtx_4090", kv_cache_dtype="bf16")
    assert found.capacity.max_concurrency >= 1
    assert caught.value.missing_gib > 0


def test_a_pool_beyond_the_gpu_is_refused():
    with pytest.raises(DoesNotFitError, match="too little for the CUDA context"):
        lay_out("llama-3.1-8b", device="rtx_4090", kv_cache_memory_bytes=20 * GIB)
    with pytest.raises(DoesNotFitError, match="too little for the CUDA context"):
        lay_out("llama-3.1-8b", device="rtx_4090", gpu_memory_utilization=1.0)


def test_other_engines_share_out_memory_their_own_way():
    vllm, sglang, trtllm = (
        lay_out("llama-3.1-8b", device="h100_sxm", engine=name, version="1.0")
        for name in ("vllm", "sglang", "trtllm")
    )
    assert "context" not in vllm.inside
    assert "activations" not in sglang.inside
    used = sum(trtllm.usage.parts[name] for name in trtllm.inside)
    assert trtllm.kv_pool == pytest.approx(0.9 * (trtllm.total - used), rel=0.001)
    for found in (vllm, sglang, trtllm):
        assert 0 <= found.remainder < found.kv_bytes_per_block


def latent_peak(**options):
    """Activations of GLM-4.7-Flash where they are more than the sampler's."""
    return lay_out("glm-4.7-flash", device="h100_sxm", max_num_seqs=64, **options).usage.activations


def test_latent_attention_takes_room_for_the_context_that_it_expands():
    # 20 heads of 192 + 256 elements in BF16, for 65,536 cached tokens at most
    whole = latent_peak(max_model_len=40_960)
    assert whole == latent_peak(max_model_len=16_384)
    half = latent_peak(longest=4_096, max_model_len=4_096)
    assert whole - half == pytest.approx(32_768 * 20 * 448 * 2)


def test_sparse_and_grouped_attention_expand_no_context():
    for model, tp in (("deepseek-v3.2", 8), ("llama-3.1-8b", 1)):
        peaks = [
            lay_out(
                model, device="h200", tp=tp, max_num_seqs=16, max_num_batched_tokens=8192,
                max_model_len=length,
            ).usage.activations
            for length in (8192, 65_536)
        ]  # fmt: skip
        assert peaks[0] == peaks[1]
