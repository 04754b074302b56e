"""The step-time model: two ways to price a step agree, and physics points the right way."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeplan.cost.batch import StepBatch
from moeplan.cost.explain import effective_bit_work, operator_shares
from moeplan.cost.predictor import Prepared, prepare
from moeplan.deployment import Cluster, Deployment, EngineSettings, Node, Placement
from moeplan.hardware_specs import load_hardware
from moeplan.models import load_model

HARDWARE = load_hardware()
MODELS = ["gpt-oss-120b", "qwen3.5-35b-a3b", "deepseek-v3.2", "nemotron-3-super-120b-a12b"]


def prepared(
    model: str = "gpt-oss-120b",
    hardware=HARDWARE,
    device: str = "b200",
    placement: Placement | None = None,
    **engine,
) -> Prepared:
    entry = load_model(model)
    spec = hardware.devices[device]
    cluster = Cluster(
        (Node(device, spec.max_devices_per_node),), spec.intra_node_fabric, spec.inter_node_fabric
    )
    deployment = Deployment(
        entry.architecture,
        entry.default_checkpoint,
        cluster,
        placement or Placement(tp=8),
        engine=EngineSettings(**engine),
    )
    return prepare(deployment, hardware, 32768)


def decode(contexts: list[int]) -> StepBatch:
    return StepBatch(decode_contexts=contexts, sampled_rows=len(contexts))


@pytest.mark.parametrize("model", MODELS)
@settings(max_examples=25, deadline=None)
@given(
    contexts=st.lists(st.integers(1, 20_000), min_size=1, max_size=80),
    steps=st.integers(1, 200),
)
def test_a_run_of_decode_steps_equals_its_steps_one_by_one(model, contexts, steps):
    timer = prepared(model).timer
    run = timer.decode_seconds(np.array(contexts), steps)
    single = [timer.step_seconds(decode([c + j for c in contexts])) for j in range(steps)]
    assert run == pytest.approx(single, rel=1e-12)


@pytest.mark.parametrize("model", MODELS)
def test_explained_operators_add_up_to_the_step(model):
    deployment = prepared(model)
    batch = decode([4096] * 24)
    rows = operator_shares(deployment.stages, batch, deployment.engine)
    small = HARDWARE.kernel_set("b200").small
    glue = deployment.stages[0].layer_equivalents * small.decode_us_per_layer * 1e-6
    exposed = 24 * deployment.engine.host.exposed_us_per_sequence * 1e-6
    total = sum(row.seconds for row in rows) + glue + exposed
    assert deployment.timer.step_seconds(batch) == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_pipeline_stages_hold_every_layer_once(model):
    whole = prepared(model)
    cut = prepared(model, placement=Placement(tp=4, pp=2))
    layers = sum(stage.layer_equivalents for stage in cut.stages)
    assert layers == whole.stages[0].layer_equivalents
    assert len(cut.timer.stage_seconds(decode([100]))) == 2


def test_more_bandwidth_is_never_slower():
    faster = {
        address: 2 * value
        for address, (value, _) in HARDWARE.parameters().items()
        if address.startswith("kernels/b200") and address.endswith("bandwidth_tb_per_s")
    }
    assert faster
    quick = HARDWARE.with_overrides(faster)
    for batch in (1, 16, 64):
        step = decode([8192] * batch)
        slow_seconds = prepared().timer.step_seconds(step)
        assert prepared(hardware=quick).timer.step_seconds(step) < slow_seconds


@given(st.integers(1, 300), st.integers(1, 300))
@settings(max_examples=40, deadline=None)
def test_a_larger_batch_is_never_faster(a, b):
    timer = prepared().timer
    low, high = sorted((a, b))
    assert timer.step_seconds(decode([2048] * low)) <= timer.step_seconds(decode([2048] * high))


def test_prefill_beside_decodes_costs_more_than_either_alone():
    timer = prepared().timer
    chunk = ((8000, 0),)  # long enough that the GPU, not the host's launching, takes the time
    both = timer.step_seconds(StepBatch([1000] * 16, chunk, 17))
    assert both > timer.step_seconds(StepBatch((), chunk, 1))
    assert both > timer.step_seconds(decode([1000] * 16))


def test_a_later_chunk_attends_to_more():
    timer = prepared("llama-3.3-70b").timer
    first = timer.step_seconds(StepBatch((), ((2048, 0),), 1))
    later = timer.step_seconds(StepBatch((), ((2048, 30_000),), 1))
    assert later > 1.1 * first


def test_synchronous_scheduling_adds_the_host_to_every_step():
    host = prepared().engine.host
    hidden = prepared(async_scheduling=True).timer.step_seconds(decode([100]))
    shown = prepared(async_scheduling=False).timer.step_seconds(decode([100]))
    assert shown - hidden == pytest.approx(
        (host.step_us + host.step_us_per_sequence) * 1e-6, rel=1e-6
    )


def test_window_layers_stop_growing_at_their_window():
    timer = prepared("gpt-oss-120b").timer
    full = prepared("qwen3-30b-a3b").timer
    growth = [
        t.step_seconds(decode([30_000] * 64)) - t.step_seconds(decode([10_000] * 64))
        for t in (timer, full)
    ]
    assert 0 < growth[0] < growth[1]


def test_bit_work_of_a_uniform_checkpoint_is_active_weights_times_bits():
    entry = load_model("qwen3-30b-a3b")
    bits = effective_bit_work(entry.architecture, entry.checkpoint("bf16"))
    assert bits == pytest.approx(16 * 3.042e9, rel=0.001)


def test_padding_reaches_the_experts_until_vllm_skips_it():
    old, new = (
        prepared(version=version, max_num_seqs=64).timer for version in ("0.24.0", "0.33.0")
    )
    nine, sixteen = decode([100] * 9), decode([100] * 16)
    assert old.step_seconds(sixteen) - old.step_seconds(nine) < 1e-3 * old.step_seconds(nine) + (
        7 * prepared().engine.host.exposed_us_per_sequence * 1e-6 + 2e-5
    )
    assert new.step_seconds(nine) < old.step_seconds(nine)


def test_shared_experts_run_beside_the_routed_ones():
    """Since vLLM 0.12, in steps of up to 256 tokens: floors are hidden, bytes are not."""
    versions = ("0.11.0", "0.12.0")
    models = {version: prepared("glm-4.5-air", version=version) for version in versions}
    small, large = (decode([512] * n) for n in (4, 300))
    seconds = {
        version: [model.timer.step_seconds(batch) for batch in (small, large)]
        for version, model in models.items()
    }
    assert seconds["0.12.0"][0] < seconds["0.11.0"][0]
    assert seconds["0.12.0"][1] == pytest.approx(seconds["0.11.0"][1])
