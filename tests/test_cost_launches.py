"""Launches: counted by what a layer is made of, waited for only where no graph runs."""

from collections import Counter
from dataclasses import replace
from functools import lru_cache

import pytest

from moeplan.cost.batch import StepBatch
from moeplan.cost.launches import step_launches
from moeplan.cost.predictor import Prepared, prepare
from moeplan.deployment import EngineSettings
from moeplan.hardware_specs import load_hardware
from moeplan.models import load_model
from moeplan.scenario import Scenario, build_deployment

HARDWARE = load_hardware()
COUNTS = {row.part: row.count for row in HARDWARE.launches}
LAUNCH = "engines/vllm-0.33/host/launch_us"


@lru_cache
def ready(model: str = "gpt-oss-20b", launch_us: float = 1000.0, **options) -> Prepared:
    """On a host whose launches take so long that every launched step waits for them."""
    hardware = HARDWARE.with_overrides({LAUNCH: launch_us})
    scenario = Scenario(model=model, device="h100_sxm", engine_version="0.33.0", **options)
    return prepare(build_deployment(scenario, hardware), hardware, 16384, 0.0)


def prompt(tokens: int) -> StepBatch:
    return StepBatch((), [(tokens, 0)], 1)


def decodes(batch: int) -> StepBatch:
    return StepBatch([100] * batch, (), batch)


def test_a_dense_layer_is_the_sum_of_its_parts():
    layer = 2 * COUNTS["glue"] + 4 * COUNTS["linear"] + COUNTS["attention"]
    assert ready("llama-3.1-8b").stages[0].launches.eager == pytest.approx(32 * layer)


def test_experts_count_by_kernel_family():
    layers = len(load_model("gpt-oss-20b").architecture.layers)
    by_triton = ready("gpt-oss-20b").stages[0].launches.eager
    by_marlin = ready("gpt-oss-20b", kernel="marlin").stages[0].launches.eager
    apart = COUNTS["experts-triton-mxfp4"] - COUNTS["experts"]
    assert by_triton - by_marlin == pytest.approx(layers * apart)


def test_quantised_linears_launch_more():
    bf16, fp8 = (
        ready("qwen3-30b-a3b", checkpoint=form).stages[0].launches for form in ("bf16", "fp8")
    )
    assert fp8.eager > bf16.eager
    assert fp8.piecewise == bf16.piecewise


def test_tensor_parallelism_launches_all_reduces():
    one, two = (ready("gpt-oss-20b", tp=tp).stages[0].launches for tp in (1, 2))
    assert two.eager - one.eager == pytest.approx(24 * 2 * COUNTS["all-reduce"])


def test_every_mixer_is_counted():
    known = ready().hardware.launches
    for model in ("qwen3.5-35b-a3b", "deepseek-v3.2", "nemotron-3-super-120b-a12b"):
        scenario = Scenario(model=model, device="b200", tp=8)
        found = prepare(build_deployment(scenario, HARDWARE), HARDWARE, 4096).stages[0]
        kinds = Counter(op.part for op in found.decode_attention)
        assert set(kinds) <= {row.part for row in known}
        assert 0 < found.launches.piecewise < found.launches.eager


def test_decodes_in_a_graph_wait_for_no_launch():
    slow, fast = ready(), ready(launch_us=0.0)
    batch = decodes(64)
    assert slow.timer.step_seconds(batch) == fast.timer.step_seconds(batch)


def test_a_prompt_above_the_largest_graph_waits_for_every_launch():
    found = ready()
    launches, top = found.stages[0].launches, found.engine.cuda_graph_max_tokens
    assert found.timer.step_seconds(prompt(top + 1)) == pytest.approx(launches.eager * 1e-3)
    assert found.timer.step_seconds(prompt(top)) == pytest.approx(launches.piecewise * 1e-3)


def test_decodes_beyond_the_largest_graph_are_launched():
    found = ready()
    batch = decodes(found.engine.cuda_graph_max_tokens + 1)
    assert found.timer.step_seconds(batch) == pytest.approx(found.stages[0].launches.eager * 1e-3)


def test_enforce_eager_launches_every_step():
    found = ready(enforce_eager=True)
    expected = found.stages[0].launches.eager * 1e-3
    for batch in (decodes(1), decodes(64), prompt(16), prompt(600)):
        assert found.timer.step_seconds(batch) == pytest.approx(expected)


def test_only_vllm_runs_prompts_in_graphs():
    engine = ready().engine
    assert engine.piecewise_graphs
    assert not replace(engine, engine="sglang").piecewise_graphs
    assert not replace(engine, cuda_graph_sizes=()).piecewise_graphs


def test_a_long_prompt_hides_its_launches():
    usual, none = ready(launch_us=7.5), ready(launch_us=0.0)
    long = prompt(8192)
    assert usual.timer.step_seconds(long) == none.timer.step_seconds(long)


def test_no_layers_launch_nothing():
    assert step_launches([], [], 0, HARDWARE.launches).eager == 0


def test_grace_hosts_launch_slower_than_x86():
    profile = next(p for p in HARDWARE.engines if p.min_version == "0.33")
    assert profile.host_on("gb200").launch_us > profile.host_on("b200").launch_us
    assert EngineSettings().engine == profile.engine
