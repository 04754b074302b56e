"""Engine options resolved as vLLM resolves them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeplan.cost.cuda_graphs import capture_sizes
from moeplan.cost.engine import resolve_engine
from moeplan.cost.engine_profile import version_key
from moeplan.deployment import Cluster, Deployment, EngineSettings, Node, Placement
from moeplan.errors import DeploymentError
from moeplan.hardware_specs import load_hardware
from moeplan.models import load_model

HARDWARE = load_hardware()


def resolve(slug="qwen3-30b-a3b", device="h100_sxm", longest=4096, tp=1, pp=1, **settings):
    model = load_model(slug)
    spec = HARDWARE.devices[device]
    cluster = Cluster((Node(device, tp * pp),), spec.intra_node_fabric, spec.inter_node_fabric)
    name = settings.pop("checkpoint", model.default_checkpoint.name)
    deployment = Deployment(
        model.architecture,
        model.checkpoint(name),
        cluster,
        Placement(tp=tp, pp=pp),
        engine=EngineSettings(**settings),
    )
    return resolve_engine(deployment, HARDWARE, longest)


@pytest.mark.parametrize(
    ("device", "version", "tokens", "seqs"),
    [
        ("h100_sxm", "0.33.0", 8192, 1024),
        ("h100_sxm", "0.24.0", 8192, 1024),
        ("a100_80g_sxm", "0.33.0", 2048, 256),
        ("l40s", "0.33.0", 2048, 256),
        ("rtx_pro_6000", "0.33.0", 8192, 1024),
        ("gb10", "0.24.0", 8192, 1024),
        ("gb10", "0.33.0", 2048, 256),
        ("b200", "0.27.1", 8192, 1024),
        ("b200", "0.28.0", 16384, 1024),
        ("gb10", "0.32.0", 8192, 1024),
        ("b200", "0.33.0", 16384, 1024),
    ],
)
def test_batch_limits_by_device_and_version(device, version, tokens, seqs):
    engine = resolve(device=device, version=version)
    assert (engine.max_num_batched_tokens, engine.max_num_seqs) == (tokens, seqs)


def test_budget_is_capped_by_sequences_and_sequences_by_the_budget():
    assert resolve(longest=64, max_num_seqs=4).max_num_batched_tokens == 4 * 64
    assert resolve(max_num_batched_tokens=100).max_num_seqs == 100
    assert resolve(max_num_batched_tokens=512, max_num_seqs=8).max_num_batched_tokens == 512


def test_model_length_is_the_longest_sequence_rounded_up():
    assert resolve(longest=1152).max_model_len == 1152
    assert resolve(longest=1153).max_model_len == 1168
    assert resolve(longest=40960).max_model_len == 40960
    assert resolve(longest=100, max_model_len=3000).max_model_len == 3000


def test_memory_share_is_lower_where_the_cpu_shares_it():
    assert resolve().gpu_memory_utilization == 0.92
    assert resolve(device="gb10").gpu_memory_utilization == 0.85
    bold = resolve(device="gb10", gpu_memory_utilization=0.9)
    assert bold.gpu_memory_utilization == 0.9
    assert "may swap" in bold.reasons["gpu_memory_utilization"]


def test_kv_format_follows_the_checkpoint_unless_the_user_says_otherwise():
    nvfp4 = {"slug": "nemotron-3-super-120b-a12b", "checkpoint": "nvfp4", "device": "b200"}
    assert resolve(**nvfp4).kv_format == "fp8"
    assert resolve(**nvfp4, kv_cache_dtype="bf16").kv_format == "bf16"
    assert resolve().kv_format == "bf16"


@pytest.mark.parametrize(
    ("slug", "device", "rule"),
    [
        ("gpt-oss-20b", "a100_80g_sxm", "attention sinks"),
        ("glm-4.7-flash", "rtx_3090", "latent attention"),
    ],
)
def test_fp8_cache_is_refused_with_rule_and_remedy(slug, device, rule):
    with pytest.raises(DeploymentError, match=rf"{rule}.*8\.9.*--kv bf16"):
        resolve(slug, device, kv_cache_dtype="fp8")
    assert resolve(slug, device, kv_cache_dtype="bf16").kv_format == "bf16"


def test_sparse_attention_needs_a_recent_gpu():
    with pytest.raises(DeploymentError, match="Hopper or Blackwell"):
        resolve("deepseek-v3.2", "a100_80g_sxm", tp=8)


@pytest.mark.parametrize(
    ("slug", "device", "kv", "backend", "block"),
    [
        ("qwen3-30b-a3b", "h100_sxm", "bf16", "flash-attention", 16),
        ("qwen3-30b-a3b", "b200", "bf16", "flashinfer", 16),
        ("qwen3-30b-a3b", "l40s", "fp8", "flashinfer", 16),
        ("gpt-oss-20b", "rtx_5090", "bf16", "triton", 16),
        ("glm-4.7-flash", "h100_sxm", "bf16", "flash-attention-mla", 16),
        ("glm-4.7-flash", "h100_sxm", "fp8", "flashmla", 64),
        ("glm-4.7-flash", "b200", "bf16", "flashinfer-mla", 32),
        ("glm-4.7-flash", "gb10", "bf16", "triton-mla", 16),
    ],
)
def test_attention_backend_and_its_block(slug, device, kv, backend, block):
    engine = resolve(slug, device, kv_cache_dtype=kv)
    assert (engine.attention.name, engine.block_size) == (backend, block)


def test_prefix_caching_of_recurrent_models_depends_on_the_version():
    hybrid = "qwen3-next-80b-a3b"
    assert not resolve(hybrid, "b200", version="0.24.0").prefix_caching
    assert not resolve(hybrid, "b200", version="0.25.1").prefix_caching
    assert resolve(hybrid, "b200", version="0.26.0").prefix_caching
    assert resolve(hybrid, "b200", version="0.24.0", enable_prefix_caching=True).prefix_caching
    assert resolve(version="0.24.0").prefix_caching


def test_batches_in_flight_by_scheduling_stages_and_version():
    assert resolve(async_scheduling=False).max_concurrent_batches == 1
    assert resolve().max_concurrent_batches == 2
    assert resolve(pp=2).max_concurrent_batches == 3
    assert resolve(pp=2, version="0.24.0").max_concurrent_batches == 2
    assert resolve().max_in_flight_tokens == 2 * 8192
    assert resolve(version="0.25.1").max_in_flight_tokens == 8192


def test_graph_sizes_step_by_8_then_16():
    sizes = capture_sizes(512, 8192)
    assert sizes[:5] == (1, 2, 4, 8, 16)
    assert 248 in sizes
    assert 256 in sizes
    assert 264 not in sizes
    assert sizes[-1] == 512
    assert len(sizes) == 3 + 31 + 17


def test_padding_goes_to_the_next_captured_size():
    engine = resolve()
    assert [engine.padded_tokens(n) for n in (1, 3, 9, 17, 257)] == [1, 4, 16, 24, 272]
    assert engine.cuda_graph_max_tokens == 512
    assert engine.padded_tokens(513) == 513


def test_graph_ceiling_by_sequences_device_and_eager():
    assert resolve(max_num_seqs=20).cuda_graph_sizes[-2:] == (32, 40)
    assert 20 in resolve(max_num_seqs=20).cuda_graph_sizes
    assert 20 not in resolve(max_num_seqs=20, version="0.24.0").cuda_graph_sizes
    assert resolve(device="b200").cuda_graph_max_tokens == 1024
    assert resolve(device="b200", version="0.27.1").cuda_graph_max_tokens == 512
    eager = resolve(enforce_eager=True)
    assert eager.cuda_graph_sizes == ()
    assert eager.padded_tokens(9) == 9


@given(top=st.integers(1, 2048), tokens=st.integers(1, 4096))
def test_padding_is_monotone_and_never_below_the_batch(top, tokens):
    sizes = capture_sizes(top, 8192)
    engine = resolve(max_num_seqs=top, max_num_batched_tokens=8192)
    assert list(sizes) == sorted(set(sizes))
    assert engine.padded_tokens(tokens) >= tokens
    assert engine.padded_tokens(tokens) <= engine.padded_tokens(tokens + 1)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"max_num_seqs": 0}, "max_num_seqs is 0"),
        ({"max_num_batched_tokens": -5}, "max_num_batched_tokens is -5"),
        ({"gpu_memory_utilization": 1.5}, "gpu_memory_utilization is 1.5"),
        ({"gpu_memory_utilization": float("nan")}, "gpu_memory_utilization is nan"),
        ({"max_model_len": 16}, "max_model_len 16 is shorter"),
        ({"max_model_len": 10**6}, "1000000 tokens exceed the 40960 positions"),
        ({"max_num_batched_tokens": 8, "max_num_seqs": 16}, "below max_num_seqs 16"),
        ({"version": "nightly"}, "'nightly' has no number"),
    ],
)
def test_bad_options_are_refused_by_name(settings, named):
    with pytest.raises(DeploymentError, match=named):
        resolve(**settings)


def test_versions_compare_by_number():
    assert version_key("0.19.0 (NGC 26.04-py3)") < version_key("0.33.0") < version_key("0.100")
    assert version_key("v0.17.0rc1") == (0, 17, 0)


def test_every_choice_has_a_reason_and_nothing_is_left_open():
    engine = resolve()
    fields = {name: getattr(engine, name) for name in engine.__slots__}
    assert fields.pop("speculation") is None  # nobody drafts unless asked to
    assert None not in fields.values()
    assert set(engine.reasons) >= {
        "max_num_batched_tokens",
        "max_num_seqs",
        "max_model_len",
        "kv_cache_dtype",
        "prefix_caching",
        "gpu_memory_utilization",
        "block_size",
        "cuda_graph_sizes",
        "speculation",
    }
