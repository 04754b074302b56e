"""KV capacity and memory against what vLLM printed on real machines."""

from __future__ import annotations

import pytest
from support.deployments import deployment

from moeplan.cost.engine import resolve_engine
from moeplan.cost.kv_groups import kv_plan
from moeplan.cost.kv_layout import kv_capacity
from moeplan.cost.memory import gib, memory_map
from moeplan.hardware_specs import load_hardware
from moeplan.models.architecture import (
    Architecture,
    DenseFFN,
    GatedDeltaNet,
    GroupedQueryAttention,
    LatentAttention,
    Layer,
    Mamba2,
)

HARDWARE = load_hardware()
GIB = 2**30
MIB = 2**20


def architecture(*mixers) -> Architecture:
    return Architecture(
        slug="made-up",
        model_type="test",
        hidden_size=128,
        vocab_size=10240,
        tie_word_embeddings=False,
        max_position_embeddings=2**20,
        layers=tuple(Layer(mixer, DenseFFN(256)) for mixer in mixers),
        norms_per_layer=2,
    )


def printed(model, pool_bytes, max_model_len, **options):
    """Capacity for a known number of bytes, and the pool that holds it."""
    options = {"max_num_seqs": 16, "async_scheduling": False} | options
    asked = deployment(model, max_model_len=max_model_len, **options)
    engine = resolve_engine(asked, HARDWARE, max_model_len)
    pool = kv_plan(asked, engine).cache_spec((pool_bytes,), engine)
    return kv_capacity(pool, max_model_len), pool


def lay_out(model, longest=8192, **options):
    asked = deployment(model, **options)
    return memory_map(asked, HARDWARE, resolve_engine(asked, HARDWARE, longest))


FULL = GroupedQueryAttention("full", 4, 2, 64)
SLIDING = GroupedQueryAttention("sliding", 4, 2, 64, window=128)
DELTA = GatedDeltaNet(2, 64, 4, 64, 4)
LATENT = LatentAttention(4, 0, 512, 128, 64, 128)


@pytest.mark.parametrize(
    ("mixers", "pool", "length", "block", "budget", "tokens", "concurrency"),
    [
        ((FULL, FULL), GIB, 2048, 128, 2048, 1_048_576, 512.00),
        ((SLIDING, FULL), GIB, 2048, 128, 2048, 1_016_800, 496.48),
        ((DELTA, DELTA, DELTA, FULL), GIB, 2048, 128, 2048, 1_198_372, 585.14),
        ((LATENT, LATENT), GIB, 2048, 16, 2048, 466_032, 227.55),
        ((SLIDING, FULL), 3 * MIB, 1024, 32, 256, 4_369, 4.27),
    ],
)
def test_capacities_that_vllm_0_32_printed_on_cpu(
    mixers, pool, length, block, budget, tokens, concurrency
):
    capacity, _ = printed(
        architecture(*mixers),
        pool,
        length,
        version="0.32.0",
        block_size=block,
        max_num_batched_tokens=budget,
    )
    assert capacity.tokens == tokens
    assert capacity.max_concurrency == pytest.approx(concurrency, abs=0.005)


def rounded(pool_gib: float) -> tuple[float, float]:
    """Least and most bytes that a log prints as this many GiB."""
    return (pool_gib - 0.005) * GIB, (pool_gib + 0.005) * GIB


@pytest.mark.parametrize(
    ("model", "pool_gib", "length", "options", "tokens"),
    [
        # RTX PRO 6000, vLLM 0.20.2, prefix caching on: blocks of 2096 tokens, 31.20x
        (
            "qwen3.5-122b-a10b",
            14.99,
            8192,
            {
                "version": "0.20.2",
                "device": "rtx_pro_6000",
                "max_num_batched_tokens": 4096,
                "enable_prefix_caching": True,
            },
            255_590,
        ),
        # two RTX 5090, vLLM 0.25.1, FP8 cache (club-3090 BENCHMARKS.md)
        (
            "qwen3.5-35b-a3b",
            17.02,
            262_144,
            {
                "version": "0.25.1",
                "device": "rtx_5090",
                "tp": 2,
                "kv_cache_dtype": "fp8",
                "enable_prefix_caching": True,
                "max_num_batched_tokens": 4096,
            },
            3_382_054,
        ),
        # two H200, vLLM 0.22.1, windows hold the whole 2068 tokens (Nebius InferenceX re-run)
        (
            "gpt-oss-120b",
            88.77,
            2068,
            {
                "version": "0.22.1",
                "device": "h200",
                "tp": 2,
                "max_num_batched_tokens": 8192,
                "max_num_seqs": 64,
            },
            2_560_976,
        ),
        # four RTX PRO 6000 (rtx6kpro models/minimax-m25.md)
        ("minimax-m2.5", 23.62, 65536, {"device": "rtx_pro_6000", "tp": 4}, 399_424),
        # eight RTX PRO 6000, sparse attention (rtx6kpro benchmarks/results.md)
        ("glm-5", 29.32, 65536, {"device": "rtx_pro_6000", "tp": 8}, 314_304),
    ],
)
def test_capacities_that_gpu_servers_printed(model, pool_gib, length, options, tokens):
    options = {"kv_cache_dtype": "bf16"} | options
    fewest, most = (printed(model, pool, length, **options)[0] for pool in rounded(pool_gib))
    assert fewest.tokens <= tokens <= most.tokens
    assert fewest.tokens == pytest.approx(tokens, rel=1e-3)


NANO_4B = [
    *[Mamba2(96, 80, 8, 128, 4, True)] * 21,
    *[GroupedQueryAttention("full", 40, 8, 128)] * 4,
]
# Three draft tokens keep three more columns of each convolution; the draft layer has a cache too.
SUPER_WITH_3_DRAFTS = [
    *[Mamba2(128, 64, 8, 128, 4 + 3, True)] * 40,
    *[GroupedQueryAttention("full", 32, 2, 128)] * 9,
]


@pytest.mark.parametrize(
    ("model", "pool_gib", "kv", "tokens"),
    [
        ("qwen3.5-35b-a3b", 47.55, "bf16", 623_040),
        (architecture(*NANO_4B), 103.39, "fp8", 1_934_432),
        (architecture(*SUPER_WITH_3_DRAFTS), 36.25, "fp8", 1_399_712),
    ],
)
def test_capacities_in_gb10_boot_logs(model, pool_gib, kv, tokens):
    """vLLM before 0.20 printed blocks // groups × tokens a block (djangodevreng boot logs).

    The logs of Nemotron-3-Nano-4B and Super do not name the cache format and the draft tokens: FP8
    and three are those that fit.
    """
    options = {
        "version": "0.19.0",
        "device": "gb10",
        "kv_cache_dtype": kv,
        "enable_prefix_caching": False,
    }
    found = set()
    for pool in rounded(pool_gib):
        _, spec = printed(model, pool, 32_768, **options)
        found.add(spec.num_blocks // len(spec.groups) * spec.block_size)
    assert tokens in found


def test_behemoth_on_one_gb10_against_its_model_card():
    """KaletoAI: 66.0 GiB of weights and 42.9 GiB of KV pool at 0.90.

    The card's figures add up to 0.90 × 121 GiB without any buffers; ours keep 2.1 GiB of buffers.
    """
    found = lay_out(
        "mistral-large-2411",
        device="gb10",
        checkpoint="nvfp4",
        kv_cache_dtype="bf16",
        gpu_memory_utilization=0.9,
    )
    assert gib(found.usage.parts["weights"]) == pytest.approx(66.0, rel=0.02)
    assert gib(found.kv_pool) == pytest.approx(42.9, rel=0.05)


@pytest.mark.parametrize(
    ("model", "checkpoint", "options", "weights_gib"),
    [
        # Marlin rounds gpt-oss's experts up
        ("gpt-oss-120b", "mxfp4", {"device": "h200", "tp": 2, "kernel": "marlin"}, 34.38),
        ("minimax-m2.5", None, {"device": "rtx_pro_6000", "tp": 4}, 53.75),
        ("qwen3.5-122b-a10b", "int4", {"device": "rtx_pro_6000"}, 68.36),
        ("nemotron-3-super-120b-a12b", "nvfp4", {"device": "gb10"}, 69.5),
    ],
)
def test_weights_that_servers_reported(model, checkpoint, options, weights_gib):
    options |= {"max_num_seqs": 128, "max_num_batched_tokens": 4096}
    found = lay_out(model, checkpoint=checkpoint, **options)
    assert gib(found.usage.parts["weights"]) == pytest.approx(weights_gib, rel=0.005)


def test_pool_of_gpt_oss_on_two_h200():
    """Nebius re-run: 2,560,976 tokens are 88.77 GiB at 0.90; graphs up to 2,048 tokens there."""
    found = lay_out(
        "gpt-oss-120b",
        longest=2068,
        device="h200",
        tp=2,
        version="0.22.1",
        kernel="marlin",
        max_model_len=2068,
        max_num_batched_tokens=8192,
        max_num_seqs=64,
        gpu_memory_utilization=0.9,
    )
    assert gib(found.kv_pool) == pytest.approx(88.77, rel=0.02)
