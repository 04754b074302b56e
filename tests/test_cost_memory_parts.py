"""The parts of a GPU's memory against counts by hand and vLLM's logs."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.deployments import deployment

from moeplan.cost.activations import profile_peak
from moeplan.cost.allocator import MIB, allocated_bytes, surplus_bytes
from moeplan.cost.engine import resolve_engine
from moeplan.cost.graph_memory import graph_bytes
from moeplan.cost.loaded_extras import loaded_extras, rotary_bytes
from moeplan.cost.memory import memory_map
from moeplan.cost.moe_workspace import fused_expert_bytes, moe_workspace_bytes
from moeplan.cost.mxfp4_layout import mxfp4_layout
from moeplan.hardware_specs import load_hardware
from moeplan.models import load_model
from moeplan.models.architecture import MoEFFN

HARDWARE = load_hardware()
GIB = 2**30
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def asked(model, **options):
    options = {"device": "h100_sxm", "version": "0.24.0", "max_num_seqs": 256} | options
    found = deployment(model, cudagraph_capture_sizes=SIZES, **options)
    return found, resolve_engine(found, HARDWARE, 8192)


def peak_of(model, **options):
    found, engine = asked(model, max_num_batched_tokens=8192, **options)
    return profile_peak(found, HARDWARE, engine, found.architecture.layers, first=True, last=True)


def routed(found):
    return next(x.ffn for x in found.architecture.layers if isinstance(x.ffn, MoEFFN))


# ------------------------------------------------------------- allocator


@pytest.mark.parametrize(
    ("size", "block"),
    [
        (1, 512),
        (9.9 * MIB, 9.9 * MIB),
        (16.17 * MIB, 16.17 * MIB),  # a segment of 18 MiB, whose rest is worth a block
        (19.03 * MIB, 20 * MIB),
        (21 * MIB, 22 * MIB),  # never split
        (28.125 * MIB, 30 * MIB),
        (384 * MIB, 384 * MIB),
    ],
)
def test_blocks_are_those_of_the_caching_allocator(size, block):
    assert allocated_bytes(size) == pytest.approx(block, abs=512)


@given(st.floats(1, 2**32))
def test_a_block_holds_its_tensor_with_less_than_a_segment_step_to_spare(size):
    assert 0 <= surplus_bytes(size) < 2 * MIB


# ---------------------------------------------------------- MXFP4 layouts


def test_triton_on_hopper_pads_scales_and_keeps_the_loaded_ones_until_freed():
    old, _ = asked("gpt-oss-120b")
    new, _ = asked("gpt-oss-120b", version="0.33.0")
    experts, width = 128, 2880
    kept, freed = (mxfp4_layout(d, HARDWARE, routed(d), 1.0) for d in (old, new))
    values = experts * 3 * width * width // 2
    scales = experts * 90 * (5888 + 3072)  # rows to 256: 5760 and 2880
    assert freed.total == values + scales
    assert kept.total - freed.total == experts * 90 * 3 * width
    assert kept.biases == experts * 3 * width * 4  # FP32


def test_a_cut_pads_the_intermediate_width_and_keeps_the_second_bias_whole():
    found, _ = asked("gpt-oss-120b", tp=2)
    layout = mxfp4_layout(found, HARDWARE, routed(found), 0.5)
    assert layout.biases == 128 * (2 * 1472 + 2880) * 4  # 1440 to 64
    marlin, _ = asked("gpt-oss-120b", kernel="marlin")
    plain = mxfp4_layout(marlin, HARDWARE, routed(marlin), 1.0)
    assert plain.total == pytest.approx(128 * 3 * 3072 * 2944 * (0.5 + 1 / 32))


def test_whole_experts_are_counted_and_other_formats_are_not_laid_out():
    spread, _ = asked("gpt-oss-120b", tp=4, ep=True)
    whole, _ = asked("gpt-oss-120b")
    quarter = mxfp4_layout(spread, HARDWARE, routed(spread), 0.25)
    assert quarter.total * 4 == mxfp4_layout(whole, HARDWARE, routed(whole), 1.0).total
    other, _ = asked("qwen3-30b-a3b", checkpoint="bf16")
    assert mxfp4_layout(other, HARDWARE, routed(other), 1.0) is None


# ------------------------------------------------------- beside the weights


@pytest.mark.parametrize(
    ("model", "mib"),
    [
        ("qwen3-30b-a3b", 40_960 * 128 * 2 / MIB),
        ("gpt-oss-120b", 32),  # FP32
        ("qwen3-next-80b-a3b", 262_144 * 64 * 2 / MIB),  # a quarter of 256
        ("nemotron-3-nano-30b-a3b", 0),
        ("glm-4.7-flash", 202_752 * 64 * 2 / MIB),
    ],
)
def test_rotary_tables_hold_all_positions_once(model, mib):
    architecture = load_model(model).architecture
    assert rotary_bytes(architecture, architecture.layers) == pytest.approx(mib * MIB)


def test_blocks_explain_what_nemotron_loads_beyond_its_weights():
    found, _ = asked("nemotron-3-nano-30b-a3b")
    layers = found.architecture.layers
    extras = loaded_extras(found, HARDWARE, layers, first=True, last=True)
    # 23 × (54 - 52.83 + 22 - 21) + 6 × (24 - 23.63 + 22 - 21) + 23 × 2 × (20 - 19.03) MiB
    assert extras == {"allocator_blocks": pytest.approx(0.1004 * GIB, rel=0.01)}
    assert loaded_extras(
        dataclasses.replace(found, engine=dataclasses.replace(found.engine, engine="sglang")),
        HARDWARE, layers, first=True, last=True,
    ) == {}  # fmt: skip


# ---------------------------------------------------------------- workspaces


def test_routed_copies_have_two_rows_in_the_workspace():
    found, engine = asked("qwen3-30b-a3b", max_num_batched_tokens=8192)
    layers = found.architecture.layers
    assert moe_workspace_bytes(found, HARDWARE, engine, layers) == 8192 * 8 * 2 * 2048 * 2
    assert fused_expert_bytes(found, HARDWARE, engine, layers) == 0


def test_kernels_that_route_themselves_keep_nothing():
    found, engine = asked("gpt-oss-20b", max_num_batched_tokens=8192)
    layers = found.architecture.layers
    assert moe_workspace_bytes(found, HARDWARE, engine, layers) == 0
    assert fused_expert_bytes(found, HARDWARE, engine, layers) == 8192 * 4 * 2 * 2880 * 2
    dense, plain = asked("llama-3.1-8b")
    assert moe_workspace_bytes(dense, HARDWARE, plain, dense.architecture.layers) == 0


# --------------------------------------------------------- the profiling run


def test_a_large_vocabulary_makes_the_compiler_the_peak():
    cold, eager = peak_of("gpt-oss-20b"), peak_of("gpt-oss-20b", enforce_eager=True)
    table, hidden = 201_088 * 2880 * 2, 8192 * 2880 * 2
    assert cold.transient + cold.workspace == pytest.approx(table + hidden + 50e6)
    sampler = 201_088 * (256 * 14 + 132 * 4) + hidden
    assert eager.transient == pytest.approx(sampler)
    # two ranks hold half a table each: the sampler is more
    assert peak_of("gpt-oss-20b", tp=2).transient == pytest.approx(sampler)


def test_the_second_runner_samples_in_fewer_buffers():
    first, second = (
        peak_of("qwen3-30b-a3b", version=v, max_num_seqs=1024).transient
        for v in ("0.24.0", "0.33.0")
    )
    assert first - second == pytest.approx(151_936 * (1024 * 8 + 132 * 4))


@given(st.integers(1, 8), st.sampled_from(["qwen3-30b-a3b", "llama-3.1-8b", "glm-4.7-flash"]))
def test_the_peak_grows_with_the_token_budget(factor, model):
    found, engine = asked(model, max_num_batched_tokens=2048)
    more = dataclasses.replace(engine, max_num_batched_tokens=2048 * factor)
    layers = found.architecture.layers
    less, much = (
        profile_peak(found, HARDWARE, e, layers, first=True, last=True) for e in (engine, more)
    )
    assert much.workspace + much.transient >= less.workspace + less.transient


# -------------------------------------------------------------------- graphs


@pytest.mark.parametrize(
    ("model", "checkpoint", "gib"),
    [
        ("gpt-oss-20b", "mxfp4", 0.16),
        ("gpt-oss-120b", "mxfp4", 0.16),
        ("qwen3-30b-a3b", "bf16", 0.19),
        ("qwen3-30b-a3b", "fp8", 0.21),
        ("glm-4.7-flash", "bf16", 0.47),
    ],
)
def test_graphs_take_what_vllm_estimated_on_an_h100(model, checkpoint, gib):
    """validate/evidence/2026-11-27-h100/engines.jsonl, `graph_estimate_gib`."""
    found, engine = asked(model, checkpoint=checkpoint)
    layers = found.architecture.layers
    assert graph_bytes(found, engine, layers, hopper=True) / GIB == pytest.approx(gib, abs=0.035)


def test_default_graphs_take_what_published_logs_estimated():
    """51 and 35 graphs without FlashAttention 3: Qwen2.5-7B 0.53 GiB on an RTX 4090, Gemma 4 26B
    0.83 on an RTX 5090."""
    plain = deployment("llama-3.1-8b", device="rtx_4090", max_num_seqs=256, version="0.22.0")
    engine = resolve_engine(plain, HARDWARE, 8192)
    assert len(engine.cuda_graph_sizes) == 51
    found = graph_bytes(plain, engine, plain.architecture.layers, hopper=False)
    assert 0.5 < found / GIB < 0.85


def test_ranks_share_out_the_heads_that_graphs_accumulate():
    one, two = asked("llama-3.1-8b"), asked("llama-3.1-8b", tp=2)
    layers = one[0].architecture.layers
    alone, shared = (graph_bytes(d, e, layers, hopper=True) for d, e in (one, two))
    assert alone - shared == pytest.approx(32 * 256 * 32 * 128 * 4 / 2)
    eager, without = asked("llama-3.1-8b", enforce_eager=True)
    assert graph_bytes(eager, without, layers, hopper=True) == 0


def test_the_second_runner_counted_no_graphs_when_it_began():
    early, engine = asked("llama-3.1-8b")
    late, newer = asked("llama-3.1-8b", version="0.33.0")
    assert "cuda_graphs" not in memory_map(early, HARDWARE, engine).inside
    assert "cuda_graphs" in memory_map(late, HARDWARE, newer).inside
    routed_model, first = asked("qwen3-30b-a3b")
    assert "cuda_graphs" in memory_map(routed_model, HARDWARE, first).inside
