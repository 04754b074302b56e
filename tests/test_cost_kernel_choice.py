"""Kernel families picked by vLLM's predicates."""

from __future__ import annotations

import pytest

from moeplan.cost.backend_rules import expert_preference, linear_preference
from moeplan.cost.engine import resolve_engine
from moeplan.cost.kernel_choice import choose_kernels
from moeplan.deployment import Cluster, Deployment, EngineSettings, Node, Placement
from moeplan.errors import DeploymentError, InputError, UnknownNameError
from moeplan.hardware_specs import load_hardware
from moeplan.models import load_model

HARDWARE = load_hardware()


def choose(slug, checkpoint, device, tp=1, ep=False, **settings):
    model = load_model(slug)
    cluster = Cluster((Node(device, tp),), "nvlink4", "ib-ndr")
    deployment = Deployment(
        model.architecture,
        model.checkpoint(checkpoint, hypothetical=True),
        cluster,
        Placement(tp=tp, ep=ep),
        engine=EngineSettings(**settings),
    )
    engine = resolve_engine(deployment, HARDWARE, 4096)
    return choose_kernels(deployment, HARDWARE, engine)


@pytest.mark.parametrize(
    ("fmt", "capability", "backend"),
    [
        ("bf16", (8, 0), "triton"),
        ("bf16", (9, 0), "triton"),
        ("bf16", (10, 0), "flashinfer-trtllm"),
        ("bf16", (12, 1), "cutlass"),
        ("fp8_block", (8, 0), "marlin"),
        ("fp8_block", (8, 9), "triton"),
        ("fp8_block", (9, 0), "triton"),
        ("fp8_block", (10, 3), "flashinfer-trtllm"),
        ("fp8_block", (12, 0), "triton"),
        ("fp8", (9, 0), "cutlass"),
        ("fp8", (12, 0), "cutlass"),
        ("nvfp4", (8, 6), "marlin"),
        ("nvfp4", (9, 0), "marlin"),
        ("nvfp4", (10, 0), "flashinfer-trtllm"),
        ("nvfp4", (12, 1), "cutlass"),
        ("mxfp4", (8, 0), "marlin"),
        ("mxfp4", (9, 0), "triton"),
        ("mxfp4", (10, 0), "flashinfer-trtllm"),
        ("mxfp4", (12, 0), "marlin"),
        ("int4", (10, 0), "marlin"),
    ],
)
def test_expert_backends_of_vllm_0_24(fmt, capability, backend):
    picked = expert_preference("vllm", "0.24.0", fmt, capability, whole_experts=False)
    assert picked[0] == backend


def test_expert_backends_change_with_version_and_expert_parallelism():
    assert expert_preference("vllm", "0.33.0", "nvfp4", (9, 0), whole_experts=False) == (
        "humming",
        "marlin",
    )
    new = expert_preference("vllm", "0.33.0", "fp8_block", (12, 0), whole_experts=False)
    assert new[0] == "deepgemm"
    whole = expert_preference("vllm", "0.33.0", "fp8_block", (9, 0), whole_experts=True)
    assert whole[0] == "cutlass"


def test_weight_only_formats_run_through_marlin_on_old_gpus():
    for fmt in ("fp8", "fp8_block", "nvfp4", "mxfp4", "int4"):
        assert linear_preference("vllm", fmt, (8, 0)) == ("marlin",)
    assert linear_preference("vllm", "bf16", (8, 0)) == ("cublas",)


@pytest.mark.parametrize(
    ("slug", "checkpoint", "device", "family"),
    [
        ("gpt-oss-120b", "mxfp4", "h100_sxm", "triton-mxfp4"),
        ("gpt-oss-120b", "mxfp4", "b200", "flashinfer-trtllm-mxfp4"),
        ("gpt-oss-120b", "mxfp4", "gb10", "marlin-mxfp4"),
        ("qwen3-30b-a3b", "bf16", "a100_80g_sxm", "triton-bf16"),
        ("qwen3-30b-a3b", "fp8", "h200", "triton-fp8-block"),
        ("nemotron-3-super-120b-a12b", "nvfp4", "gb10", "cutlass-nvfp4"),
    ],
)
def test_expert_tables_of_real_deployments(slug, checkpoint, device, family):
    pick = choose(slug, checkpoint, device).experts
    assert pick.table.family == family
    assert pick.exact


def test_a_mixed_checkpoint_gets_a_table_for_every_format():
    kernels = choose("nemotron-3-super-120b-a12b", "nvfp4", "gb10")
    assert set(kernels.linears) == {"bf16", "fp8"}
    assert kernels.linear("bf16").family == "cublas-bf16"
    assert kernels.linear("fp8").family == "cutlass-fp8"
    assert kernels.moe().family == "cutlass-nvfp4"
    assert kernels.recurrent().floor_us > 0


def test_dense_models_without_recurrence_have_neither_experts_nor_state():
    kernels = choose("llama-3.1-8b", "bf16", "h100_sxm")
    assert kernels.experts is None
    assert kernels.state is None
    with pytest.raises(LookupError, match="routed experts"):
        kernels.moe()


def test_the_users_kernel_word_replaces_the_choice():
    assert choose("mistral-large-2411", "nvfp4", "gb10").linear("nvfp4").family == "cutlass-nvfp4"
    forced = choose("mistral-large-2411", "nvfp4", "gb10", kernel="marlin")
    assert forced.linear("nvfp4").family == "marlin-nvfp4"
    assert forced.linear("bf16").family == "cublas-bf16"
    assert forced.linears["nvfp4"].reason == "set by the user"


def test_flashinfer_means_its_cutlass_where_there_is_no_trtllm():
    forced = choose("mistral-large-2411", "nvfp4", "rtx_pro_6000", kernel="flashinfer_cutlass")
    assert forced.linear("nvfp4").family == "cutlass-nvfp4"


def test_an_unknown_kernel_word_is_refused_with_what_exists():
    with pytest.raises(
        DeploymentError, match=r"'exllama' fits no operator.*marlin-nvfp4"
    ) as caught:
        choose("mistral-large-2411", "nvfp4", "gb10", kernel="exllama")
    assert isinstance(caught.value, InputError)


def test_a_missing_table_is_replaced_by_the_nearest_and_says_so():
    pick = choose("qwen3-30b-a3b", "nvfp4", "h100_sxm", version="0.33.0").experts
    assert pick.wanted == "humming"
    assert pick.table.family == "marlin-nvfp4"
    assert not pick.exact
    assert "marlin-nvfp4 is nearest" in pick.reason


def test_online_quantisation_changes_the_format_of_a_component():
    plain = choose("gpt-oss-120b", "mxfp4", "gb10")
    online = {"attn_proj": "mxfp4", "lm_head": "mxfp4"}
    quantised = choose("gpt-oss-120b", "mxfp4", "gb10", online_quantization=online)
    checkpoint = load_model("gpt-oss-120b").checkpoint("mxfp4")
    assert plain.formats(checkpoint, "attn_proj") == {"bf16": 1.0}
    assert quantised.formats(checkpoint, "attn_proj") == {"mxfp4": 1.0}
    assert quantised.formats(checkpoint, "router") == {"bf16": 1.0}
    assert "mxfp4" in quantised.linears


def test_online_quantisation_of_nonsense_is_refused():
    with pytest.raises(UnknownNameError, match="attn_proj"):
        choose("gpt-oss-120b", "mxfp4", "gb10", online_quantization={"attn_prj": "mxfp4"})
    with pytest.raises(DeploymentError, match="no such format"):
        choose("gpt-oss-120b", "mxfp4", "gb10", online_quantization={"attn_proj": "fp3"})


def test_attention_tables_follow_kind_and_cache_format():
    bf16 = choose("qwen3-30b-a3b", "bf16", "rtx_pro_6000")
    fp8 = choose("qwen3-30b-a3b", "bf16", "rtx_pro_6000", kv_cache_dtype="fp8")
    assert bf16.attention_decode("gqa").family == "flash-attention-2"
    assert fp8.attention_decode("gqa").family == "flashinfer-fp8"
    latent = choose("glm-4.7-flash", "bf16", "b200", kv_cache_dtype="fp8")
    assert latent.attention_decode("mla").kv_formats == ["fp8"]
    assert latent.attention_prefill().kv_formats == ["bf16"]


@pytest.mark.parametrize("device", sorted(HARDWARE.devices))
@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_every_device_and_engine_serves_every_format(device, engine):
    for slug in ("qwen3-30b-a3b", "gpt-oss-20b"):
        for checkpoint in load_model(slug).checkpoints:
            kernels = choose(slug, checkpoint.name, device, engine=engine, version="1.0")
            assert all(pick.reason for pick in kernels.picks)


def test_weight_only_nvfp4_runs_on_marlin_everywhere():
    for device in ("b200", "rtx_5090", "gb10", "h100_sxm"):
        chosen = choose("Qwen/Qwen3.6-35B-A3B", "nvidia/Qwen3.6-35B-A3B-NVFP4", device)
        assert chosen.moe().family == "marlin-nvfp4"
        assert chosen.linear("nvfp4_a16").family == "marlin-nvfp4"
        assert chosen.experts.exact
