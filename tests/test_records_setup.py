"""From a record to the deployment and workload that it describes, rule by rule."""

from __future__ import annotations

from typing import Any

import pytest

from moeplan.cost.predictor import prepare
from moeplan.cost.routing import ROUTING_SIGMA
from moeplan.deployment import Deployment
from moeplan.hardware_specs import load_hardware
from moeplan.records.published import published_records
from moeplan.records.record import RunRecord
from moeplan.records.rules import NotCovered
from moeplan.records.setup import Setup, deployment_of

HARDWARE = load_hardware()


def record(**changes: Any) -> RunRecord:
    """A closed loop of gpt-oss-120b on one H100; `changes` replace fields, "a__b" nested ones."""
    fields: dict[str, Any] = {
        "id": "a",
        "source": {"title": "test", "date": "2026-02-20"},
        "engine": {"name": "vllm", "version": "0.26.0", "flags": []},
        "settings": {},
        "tool": "vllm bench serve",
        "model": "openai/gpt-oss-120b",
        "architecture": "gpt-oss-120b",
        "weight_format": "mxfp4",
        "hardware": "h100_sxm",
        "gpus": 1,
        "parallelism": {"tp": 1},
        "workload": {
            "mode": "closed_loop",
            "input_tokens": 1024,
            "output_tokens": 128,
            "concurrency": 4,
        },
        "measured": {"output_tok_s": 300.0},
    }
    for name, value in changes.items():
        outer, _, inner = name.partition("__")
        fields[outer] = {**fields[outer], inner: value} if inner else value
    return RunRecord.model_validate(fields)


def setup(**changes: Any) -> Setup:
    return deployment_of(record(**changes), HARDWARE)


def test_what_is_said_is_taken() -> None:
    found = setup(
        parallelism={"tp": 2},
        gpus=2,
        kv_cache_format="fp8",
        settings={"max_num_seqs": 64, "enforce_eager": True, "gpu_memory_utilization": 0.8},
    )
    assert found.deployment.placement.tp == 2
    assert found.deployment.cluster.devices == 2
    assert found.deployment.engine.kv_cache_dtype == "fp8"
    assert found.deployment.engine.max_num_seqs == 64
    assert found.deployment.engine.enforce_eager
    assert found.deployment.engine.gpu_memory_utilization == 0.8
    assert found.deployment.engine.version == "0.26.0"


@pytest.mark.parametrize(
    ("said", "date", "version"),
    [
        ("0.19.1rc1.dev42+gd56e95223", "2026-04-07", "0.19.1"),
        ("vllm-node-20260405 (0.19.x)", None, "0.19.0"),
        ("0.1.dev12777 (vllm-node-mxfp4)", "2026-03-22", "0.17.1"),
        ("nightly (Feb 2026)", "2026-02-16", "0.15.1"),
        (None, "2025-10", "0.11.0"),
        (None, "2026-03-01", "0.16.0"),
        (None, None, "0.32.0"),
    ],
)
def test_engine_version_is_said_or_the_newest_at_the_date(
    said: str | None, date: str | None, version: str
) -> None:
    found = setup(engine__version=said, source__date=date)
    assert found.deployment.engine.version == version
    assert any(rule.startswith("engine version") for rule in found.rules)


@pytest.mark.parametrize(
    ("model", "slug", "weights", "dtype"),
    [
        ("nvidia/Llama-3.3-70B-Instruct-FP8", "llama-3.3-70b", "fp8", "auto"),
        ("openai/gpt-oss-120b", "gpt-oss-120b", "mxfp4", "bf16"),
        ("Sehyo/Qwen3.5-122B-A10B-NVFP4", "qwen3.5-122b-a10b", "nvfp4", "bf16"),
        ("Some Qwen3.5-122B NVFP4", "qwen3.5-122b-a10b", "nvfp4", "bf16"),
    ],
)
def test_kv_format_is_the_checkpoints_own_where_it_has_one(
    model: str, slug: str, weights: str, dtype: str
) -> None:
    found = setup(
        model=model, architecture=slug, weight_format=weights, parallelism={"tp": 4}, gpus=4
    )
    assert found.deployment.engine.kv_cache_dtype == dtype


def test_number_of_prompts_defaults_to_ten_a_client() -> None:
    assert setup().workload.num_prompts == 40
    assert setup(workload__num_prompts=7).workload.num_prompts == 7


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("closed", 4, None)),
        ({"workload__mode": "single_stream"}, ("closed", 1, None)),
        ({"tool": "llama-benchy"}, ("rounds", 4, None)),
        ({"workload__mode": "offline", "workload__num_prompts": 9}, ("offline", None, None)),
        ({"workload__mode": "open_loop", "workload__request_rate": "inf"}, ("closed", 4, None)),
        ({"workload__mode": "open_loop", "workload__request_rate": 2.0}, ("poisson", 4, 2.0)),
    ],
)
def test_arrivals(changes: dict, expected: tuple) -> None:
    changes = {"workload__num_prompts": 40, **changes}
    workload = setup(**changes).workload
    assert (workload.arrivals, workload.concurrency, workload.request_rate) == expected


def test_all_at_once_without_a_cap_is_offline() -> None:
    workload = setup(
        workload={
            "mode": "open_loop",
            "input_tokens": 128,
            "output_tokens": 4,
            "request_rate": "inf",
            "num_prompts": 1000,
        }
    ).workload
    assert (workload.arrivals, workload.num_prompts) == ("offline", 1000)


def test_burstiness_and_client_cap_are_read_from_the_notes() -> None:
    open_loop = {"workload__mode": "open_loop", "workload__request_rate": 0.5}
    more = {**open_loop, "workload__num_prompts": 50}
    gamma = setup(**more, notes="Poisson-like arrivals (burstiness 0.7)")
    assert (gamma.workload.arrivals, gamma.workload.burstiness) == ("gamma", 0.7)
    even = setup(**more, tool="guidellm", notes="constant-rate profile; client cap 512")
    assert even.workload.concurrency == 512
    assert even.workload.burstiness > 1000


def test_lengths_follow_the_range_or_the_mean() -> None:
    ranged = setup(workload__length_range=[0.8, 1.0], workload__mean_input_tokens=922.0).workload
    assert (ranged.input_tokens, ranged.input_range) == (1024, (0.8, 1.0))
    mean = setup(workload__mean_input_tokens=229.6, workload__mean_output_tokens=217.2).workload
    assert (mean.input_tokens, mean.output_tokens) == (230, 217)


@pytest.mark.parametrize(
    ("tool", "words", "preset"),
    [
        ("vllm bench serve", "fixed", "random"),
        ("vllm bench serve", "ShareGPT (mean lengths given)", "chat"),
        ("llama-benchy", "fixed", "domain"),
        (None, None, "default"),
    ],
)
def test_routing_preset_is_that_of_the_traffic(
    tool: str | None, words: str | None, preset: str
) -> None:
    found = setup(tool=tool, workload__length_distribution=words)
    assert found.workload.routing == preset
    assert any(preset in rule for rule in found.rules)


def test_a_counted_spread_of_routing_stands_above_the_preset() -> None:
    check = {
        "method": "counted",
        "batch_tokens": 16,
        "distinct_experts_mean": 38.6,
        "expected_distinct_experts": 45.3,
    }
    assumed = setup(engine_facts={"routing": check}, workload__routing="random")
    assert assumed.workload.routing_sigma == ROUTING_SIGMA["random"]
    counted = setup(engine_facts={"routing": check | {"sigma": 1.25}}, workload__routing="random")
    assert counted.workload.routing_sigma == 1.25
    assert "routing: spread 1.25, as counted" in counted.rules
    even = setup(engine_facts={"routing": check | {"sigma": 0.0}})
    assert even.workload.routing_sigma == 0.0


def test_prompts_counted_in_characters_are_shortened() -> None:
    found = setup(
        tool="llm_decode_bench",
        workload__input_tokens=8192,
        workload__output_tokens=1,
        workload__mode="single_stream",
    )
    assert found.workload.input_tokens == round(0.65 * 8192)


@pytest.mark.parametrize(
    ("said", "router"),
    [
        (None, "round_robin"),
        ("nginx", "round_robin"),
        ("LiteLLM simple-shuffle", "simple-shuffle"),
        ("LiteLLM least-busy", "least-busy"),
    ],
)
def test_routers(said: str | None, router: str) -> None:
    found = setup(parallelism={"tp": 1, "replicas": 2, "router": said}, gpus=2)
    assert found.deployment.router == router


def test_expert_parallelism_within_a_node() -> None:
    found = setup(parallelism={"tp": 4, "ep": 4}, gpus=4)
    assert found.deployment.placement.ep


def test_links_and_nodes() -> None:
    pair = {"parallelism": {"tp": 2}, "gpus": 2, "weight_format": "mxfp4"}
    spark = setup(hardware="gb10", nodes=2, interconnect="cx7-200gbe", **pair).deployment.cluster
    assert [node.devices for node in spark.nodes] == [1, 1]
    assert spark.inter_fabric == "cx7-200gbe"
    cards = setup(hardware="rtx_5090", nodes=1, interconnect="pcie5", gpus=4, parallelism={"tp": 4})
    assert cards.deployment.cluster.intra_fabric == "pcie5-no-p2p"
    patched = setup(
        hardware="rtx_5090",
        interconnect="pcie5",
        gpus=4,
        parallelism={"tp": 4},
        engine__flags=["P2P on"],
    )
    assert patched.deployment.cluster.intra_fabric == "pcie5"


def test_idle_gpus_of_the_host_are_left_out() -> None:
    assert setup(gpus=8, nodes=1, parallelism={"tp": 2}).deployment.cluster.devices == 2


def test_four_bit_forms_may_be_hypothetical_others_not() -> None:
    form = setup(model="someone/GLM-4.6-AWQ", architecture="glm-4.6", weight_format="int4_awq")
    assert form.deployment.checkpoint.hypothetical
    assert any("hypothetical" in rule for rule in form.rules)
    with pytest.raises(NotCovered, match="no mxfp4 checkpoint"):
        setup(model="someone/GLM", architecture="glm-4.6", weight_format="mxfp4")


def test_online_quantisation_and_kernel_words() -> None:
    found = setup(
        hardware="gb10",
        settings={"mxfp4_layers": "moe,qkv,o,lm_head", "kernel_hints": ["marlin", "flashinfer"]},
    )
    online = found.deployment.engine.online_quantization
    assert online == {"attn_proj": "mxfp4", "lm_head": "mxfp4"}
    assert found.deployment.engine.kernel in (None, "marlin")
    attention = setup(settings={"kernel_hints": ["triton"]}, engine__flags=["TRITON_ATTN"])
    assert attention.deployment.engine.kernel is None


def test_options_that_only_flags_hold() -> None:
    found = setup(
        engine__flags=["--max-num-seqs = concurrency", "--async-scheduling", "30 GiB KV"]
    ).deployment.engine
    assert found.max_num_seqs == 4
    assert found.async_scheduling
    assert found.kv_cache_memory_bytes == 30 * 2**30


SIZES = (1, 2, 4, 8)


@pytest.mark.parametrize(
    ("flags", "sizes"),
    [
        (["--cudagraph-capture-sizes", "1", "2", "4", "8", "--max-num-seqs", "256"], SIZES),
        (["--cudagraph-capture-sizes 8 4 2 1 --enforce-eager"], SIZES),
        (['--compilation-config {"cudagraph_capture_sizes": [1, 2, 4, 8], "level": 3}'], SIZES),
        (["--compilation-config.cudagraph_capture_sizes=[1,2,4,8]"], SIZES),
        (['{"cudagraph_capture_sizes": [], "level": 3}'], ()),
        (["--max-cudagraph-capture-size", "512"], ()),
    ],
)
def test_captured_graphs_are_read_from_the_flags(flags: list[str], sizes: tuple) -> None:
    assert setup(engine__flags=flags).deployment.engine.cudagraph_capture_sizes == sizes


def test_captured_graphs_of_the_settings_win_and_leave_room_for_more_tokens() -> None:
    flags = ["--cudagraph-capture-sizes", "1", "2"]
    settings = {"cudagraph_capture_sizes": [1, 2, 4, 8]}
    made = setup(engine__flags=flags, settings=settings)
    assert not any("from the flags" in rule for rule in made.rules)
    found = made.deployment
    assert found.engine.cudagraph_capture_sizes == SIZES

    def tokens(deployment: Deployment) -> int:
        return prepare(deployment, HARDWARE, 1152, 0.8).memory.capacity.tokens

    assert tokens(found) > tokens(setup().deployment)


def test_drafts_with_the_acceptance_that_was_counted() -> None:
    said = {"method": "eagle3", "draft_tokens": 3, "mean_accepted_length": 2.5}
    found = setup(speculative=said)
    drafts = found.deployment.engine.speculation
    assert drafts is not None
    assert (drafts.method, drafts.draft_tokens) == ("eagle3", 3)
    assert drafts.mean_tokens == pytest.approx(2.5)
    assert not any("acceptance" in rule for rule in found.rules)


def test_drafts_without_a_count_take_the_usual_acceptance() -> None:
    found = setup(speculative={"method": "nextn", "draft_tokens": 6}, engine__name="sglang")
    drafts = found.deployment.engine.speculation
    assert drafts is not None
    assert (drafts.method, drafts.draft_tokens) == ("mtp", 5)  # the verified token counted
    assert any("the usual" in rule for rule in found.rules)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"speculative": {"method": "medusa", "draft_tokens": 1}}, "decoding by 'medusa'"),
        ({"speculative": {"method": "ngram", "draft_tokens": 3}}, "without their acceptance"),
        ({"parallelism": {"tp": 8, "dp": 8, "dp_attention": True}}, "attention data parallelism"),
        ({"parallelism": {"tp": 1, "disagg": {"prefill_gpus": 4}}}, "separate servers"),
        ({"parallelism": {"tp": None}}, "parallelism not said"),
        ({"parallelism": {"tp": 2, "ep": 2}, "nodes": 2}, "expert parallelism across nodes"),
        ({"parallelism": {"tp": 8, "ep": 2}}, "part of the tensor-parallel group"),
        ({"hardware": "mi300x"}, "hardware mi300x is not described"),
        ({"hardware": None}, "hardware not said"),
        ({"architecture": "no-such-model", "model": "x/y"}, "no-such-model is not in the"),
        ({"architecture": None, "model": "/etc/passwd"}, "/etc/passwd is not in the catalogue"),
        ({"weight_format": "int3"}, "int3"),
        ({"kv_cache_format": "int4"}, "KV cache in 'int4'"),
        ({"interconnect": "carrier pigeon"}, "link 'carrier pigeon'"),
        ({"parallelism": {"tp": 1, "router": "dice"}}, "router 'dice'"),
        ({"workload__concurrency": None}, "closed loop without concurrency"),
        ({"workload__prefix_hit_tokens": 512}, "prefix was cached"),
        ({"workload__mode": "offline", "workload__concurrency": None}, "offline run without"),
    ],
)
def test_what_cannot_be_predicted_has_a_reason(changes: dict, reason: str) -> None:
    with pytest.raises(NotCovered, match=reason):
        setup(**changes)


def test_every_shipped_row_is_covered_and_settings_left_out_are_known() -> None:
    setups = {item.id: deployment_of(item, HARDWARE) for item in published_records()}
    assert len(setups) == 101
    limited = [s for name, s in setups.items() if "kubis-gptoss" in name]
    assert len(limited) == 28
    assert all(s.deployment.engine.max_num_seqs == 32 for s in limited)
