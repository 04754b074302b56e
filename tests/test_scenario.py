"""From a user's words to a deployment: defaults, names, limits, rules."""

from __future__ import annotations

import math

import pytest

from moeplan.errors import DeploymentError, InputError, UnknownNameError
from moeplan.hardware_specs import load_hardware
from moeplan.options import parse_options
from moeplan.scenario import Scenario, build_deployment

HARDWARE = load_hardware()


def deploy(**words):
    words = {"model": "gpt-oss-120b", "device": "h100_sxm"} | words
    return build_deployment(parse_options(Scenario, words), HARDWARE)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("gpus", 0, "at least 1"),
        ("gpus", -4, "at least 1"),
        ("gpus", 10**9, "at most 16,384"),
        ("tp", 0, "at least 1"),
        ("max_num_seqs", 10**9, "at most 65,536"),
        ("gpu_memory_utilization", math.nan, "finite"),
        ("gpu_memory_utilization", math.inf, "finite"),
        ("gpu_memory_utilization", -0.5, "above 0"),
        ("gpu_memory_utilization", 0.0, "above 0"),
        ("kv", "fp7", "auto, bf16, fp8"),
        ("router", "random", "round_robin, simple-shuffle"),
    ],
)
def test_a_bad_value_is_refused_by_name_and_rule(name, value, rule):
    with pytest.raises(InputError, match=f"^{name} is .*{rule}") as caught:
        deploy(**{name: value})
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_an_unknown_option_names_the_nearest():
    with pytest.raises(UnknownNameError, match="max_num_seqs"):
        deploy(max_num_seq=4)


def test_unknown_names_come_with_the_nearest():
    with pytest.raises(UnknownNameError, match="h100_sxm"):
        deploy(device="h100_smx")
    with pytest.raises(UnknownNameError, match="gpt-oss-120b"):
        deploy(model="gpt-os-120b")
    with pytest.raises(UnknownNameError, match="cx7-200gbe"):
        deploy(device="gb10", gpus=2, fabric="cx7-200gb")
    with pytest.raises(UnknownNameError, match="mxfp4"):
        deploy(checkpoint="mxpf4")


def test_tensor_parallelism_takes_all_gpus_of_a_stage_unless_said():
    assert deploy(gpus=8).placement.tp == 8
    assert deploy(gpus=8, replicas=2).placement.tp == 4
    assert deploy(gpus=8, replicas=2, pp=2).placement.tp == 2
    assert deploy(gpus=8, tp=2).placement.gpus == 2
    assert deploy(tp=2, replicas=2).cluster.devices == 4


def test_nodes_fill_up_unless_their_number_is_said():
    assert [n.devices for n in deploy(gpus=16, tp=8, pp=2).cluster.nodes] == [8, 8]
    assert [n.devices for n in deploy(gpus=2, nodes=2).cluster.nodes] == [1, 1]
    assert [n.devices for n in deploy(device="gb10", gpus=2).cluster.nodes] == [1, 1]


def test_a_fabric_goes_where_its_kind_belongs():
    between = deploy(device="gb10", gpus=2, fabric="ethernet-10g").cluster
    assert between.inter_fabric == "ethernet-10g"
    inside = deploy(device="rtx_pro_6000", gpus=2, fabric="pcie5-no-p2p").cluster
    assert inside.intra_fabric == "pcie5-no-p2p"


def test_a_link_between_nodes_needs_two_of_them():
    with pytest.raises(DeploymentError, match="--nodes 2"):
        deploy(device="rtx_pro_6000", gpus=2, fabric="cx7-200gbe")


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        ({"gpus": 3}, "does not divide the 64 attention heads"),
        ({"gpus": 64, "tp": 1, "pp": 64}, "exceeds the 36 layers"),
        ({"gpus": 2, "tp": 4}, "needs 4 GPUs"),
        ({"gpus": 2, "nodes": 3}, "--nodes 2"),
        ({"gpus": 16, "nodes": 1}, "--nodes 2"),
    ],
)
def test_impossible_placements_say_rule_and_remedy(words, rule):
    with pytest.raises(DeploymentError, match=rule):
        deploy(**words)


def test_engine_options_reach_the_deployment_under_vllms_names():
    engine = deploy(max_num_seqs=32, kv="fp8", enforce_eager=True, engine_version="0.26.0").engine
    assert (engine.max_num_seqs, engine.kv_cache_dtype, engine.enforce_eager) == (32, "fp8", True)
    assert engine.version == "0.26.0"
    assert engine.enable_prefix_caching is None


def test_drafts_take_a_mean_rates_or_what_is_usual():
    def drafts(**words):
        return Scenario(model="m", device="d", speculative_method="mtp", **words).settings()

    mean = drafts(num_speculative_tokens=3, acceptance="2.5").speculation
    assert mean.mean_tokens == pytest.approx(2.5)
    assert drafts(acceptance="0.8,0.5").speculation.acceptance == (0.8, 0.5)
    assert drafts(acceptance="0.8").speculation.acceptance == (0.8,)
    assert drafts().speculation.draft_tokens == 1
    with pytest.raises(InputError, match="'many'"):
        drafts(acceptance="many")
    with pytest.raises(InputError, match="2 rates for 3 draft tokens"):
        drafts(num_speculative_tokens=3, acceptance="0.8,0.5")
    with pytest.raises(InputError, match="--speculative-method"):
        Scenario(model="m", device="d", acceptance="2").settings()


def test_capture_sizes_are_read_sorted_and_reach_the_engine():
    settings = Scenario(model="m", device="d", cudagraph_capture_sizes="4, 1,2").settings()
    assert settings.cudagraph_capture_sizes == (1, 2, 4)
    with pytest.raises(InputError, match="'x'"):
        Scenario(model="m", device="d", cudagraph_capture_sizes="1,x").settings()
