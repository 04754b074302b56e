"""What drafts cost: verification, the drafter's passes, memory, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.deployments import deployment

from moeplan.cost.batch import StepBatch
from moeplan.cost.drafter import drafter_of
from moeplan.cost.engine import resolve_engine
from moeplan.cost.explain import operator_shares
from moeplan.cost.predictor import Prepared, prepare
from moeplan.errors import DeploymentError
from moeplan.hardware_specs import load_hardware
from moeplan.speculation import Speculation, speculation

HARDWARE = load_hardware()
GIB = 2**30
CASES = [
    ("deepseek-v3", {"device": "h200", "tp": 8}, "mtp"),
    ("qwen3.5-122b-a10b", {"device": "h200", "tp": 2}, "mtp"),
    ("nemotron-3-super-120b-a12b", {"device": "b200", "checkpoint": "nvfp4"}, "mtp"),
    ("gpt-oss-120b", {"device": "h100_sxm"}, "eagle3"),
    ("llama-3.1-8b", {"device": "rtx_4090", "gpu_memory_utilization": 0.92}, "eagle3"),
]


def drafting(model: str, method: str, drafts: int = 2, **options) -> Prepared:
    chosen = speculation(method, drafts, None)
    return prepare(deployment(model, speculation=chosen, **options), HARDWARE, 4096)


def plain(model: str, **options) -> Prepared:
    return prepare(deployment(model, **options), HARDWARE, 4096)


def decode(prepared: Prepared, batch: int, context: int = 1024) -> StepBatch:
    return StepBatch([context] * batch, (), batch, prepared.engine.tokens_a_decode)


@pytest.mark.parametrize(("model", "options", "method"), CASES)
def test_a_step_with_drafts_costs_more_and_less_than_its_tokens_apart(model, options, method):
    with_drafts, without = drafting(model, method, **options), plain(model, **options)
    one = without.timer.step_seconds(decode(without, 8))
    verified = with_drafts.timer.step_seconds(decode(with_drafts, 8))
    assert one < verified < 3 * one


@pytest.mark.parametrize(("model", "options", "method"), CASES)
def test_each_further_draft_adds_one_pass(model, options, method):
    times = [
        prepared.timer.step_seconds(decode(prepared, 4))
        for prepared in (drafting(model, method, drafts, **options) for drafts in (1, 2, 3))
    ]
    assert times == sorted(times)


@pytest.mark.parametrize(("model", "options", "method"), CASES)
@pytest.mark.parametrize("chunks", [(), ((512, 0),)])
def test_operators_add_up_to_the_step(model, options, method, chunks):
    prepared = drafting(model, method, **options)
    step = replace(decode(prepared, 32), prefill_chunks=chunks, sampled_rows=32 + len(chunks))
    rows = operator_shares(prepared.stages, step, prepared.engine, prepared.tables.drafter)
    total, used = prepared.timer.step_seconds(step), sum(row.seconds for row in rows)
    assert any(row.name.startswith("drafter: ") for row in rows)
    assert used <= total * (1 + 1e-6)
    if not chunks:  # prefill may wait for its launches
        assert used > 0.8 * total


def test_an_idle_start_hides_no_host_time_and_drafts_all_the_same():
    prepared = drafting("qwen3.5-122b-a10b", "mtp", device="h200", tp=2)
    batch = decode(prepared, 8)
    host = prepared.engine.host
    hidden = (host.step_us + 8 * host.step_us_per_sequence) * 1e-6
    busy, idle = prepared.timer.step_seconds(batch), prepared.timer.idle_seconds(batch)
    assert idle - busy == pytest.approx(hidden)


def test_n_grams_cost_their_verification_only():
    ngram = replace(speculation("mtp", 2, None), method="ngram")
    asked = deployment("qwen3.5-122b-a10b", device="h200", tp=2, speculation=ngram)
    prepared = prepare(asked, HARDWARE, 4096)
    mtp = drafting("qwen3.5-122b-a10b", "mtp", device="h200", tp=2)
    assert prepared.tables.drafter is None
    assert drafter_of(asked) is None
    step = decode(prepared, 4)
    assert prepared.timer.step_seconds(step) < mtp.timer.step_seconds(step)


def test_drafts_of_one_sequence_touch_fewer_experts_than_strangers():
    drafts = Speculation("ngram", 3, (0.5, 0.4, 0.3))
    asked = deployment("qwen3-30b-a3b", device="h100_sxm", speculation=drafts)
    alike, strange = prepare(asked, HARDWARE, 4096), plain("qwen3-30b-a3b", device="h100_sxm")
    four = alike.timer.step_seconds(decode(alike, 1))
    assert four < strange.timer.step_seconds(decode(strange, 4))
    assert four > strange.timer.step_seconds(decode(strange, 1))


@pytest.mark.parametrize(("model", "options", "method"), CASES)
def test_the_drafter_takes_memory_and_cache(model, options, method):
    with_drafts = drafting(model, method, **options).memory
    without = plain(model, **options).memory
    assert "drafter" not in without.usage.weights
    assert with_drafts.usage.weights["drafter"] > 0.1 * GIB / options.get("tp", 1)
    assert with_drafts.capacity.tokens < without.capacity.tokens


def test_the_drafter_of_deepseek_is_one_layer_of_it():
    memory = drafting("deepseek-v3", "mtp", device="h200", tp=8).memory
    layers = memory.usage.weights["routed_experts"] / 58  # 58 of 61 layers route
    assert memory.usage.weights["drafter"] == pytest.approx(
        layers, rel=0.2
    )  # with attention and fusion


def test_a_recurrent_state_is_kept_for_every_draft():
    plan = [
        prepared.kv.groups
        for prepared in (
            plain("qwen3.5-122b-a10b", device="h200", tp=2),
            drafting("qwen3.5-122b-a10b", "mtp", 3, device="h200", tp=2),
        )
    ]
    before, after = (next(g for g in groups if g.kind == "recurrent") for groups in plan)
    assert after.fixed_blocks == before.fixed_blocks + 3


def test_graphs_reach_the_tokens_of_all_drafts():
    asked = deployment("gpt-oss-120b", device="h100_sxm", max_num_seqs=32)
    drafts = replace(asked.engine, speculation=speculation("eagle3", 3, None))
    sizes = [
        resolve_engine(replace(asked, engine=engine), HARDWARE, 4096).cuda_graph_max_tokens
        for engine in (asked.engine, drafts)
    ]
    assert sizes == [64, 256]


def test_early_n_grams_stop_asynchronous_scheduling():
    drafts = Speculation("ngram", 2, (0.3, 0.2))
    found = {
        version: resolve_engine(
            deployment("gpt-oss-120b", device="h100_sxm", version=version, speculation=drafts),
            HARDWARE,
            4096,
        ).async_scheduling
        for version in ("0.24.0", "0.33.0")
    }
    assert found == {"0.24.0": False, "0.33.0": True}


def test_what_no_engine_would_run_is_refused():
    with pytest.raises(DeploymentError, match="gpt-oss-120b has no MTP layers"):
        drafting("gpt-oss-120b", "mtp", device="h100_sxm")
    with pytest.raises(DeploymentError, match="pp 2 with speculative decoding"):
        drafting("deepseek-v3", "mtp", device="h200", tp=8, pp=2)


@pytest.mark.parametrize(("model", "options", "method"), CASES)
def test_a_stretch_of_steps_equals_its_steps_one_by_one(model, options, method):
    prepared = drafting(model, method, **options)
    contexts = np.array([[100, 900, 127], [102, 901, 130], [105, 903, 131]])
    single = [
        prepared.timer.step_seconds(StepBatch(row.tolist(), (), 3, prepared.engine.tokens_a_decode))
        for row in contexts
    ]
    assert prepared.timer.draft_seconds(contexts) == pytest.approx(single, rel=1e-12)


def test_a_prediction_rests_on_the_drafter_too():
    heads = drafting("gpt-oss-120b", "eagle3", device="h100_sxm")
    assert plain("gpt-oss-120b", device="h100_sxm").basis == "interpolated"
    assert heads.basis == "first principles"  # the head's shape is a guess
    mtp = drafting("deepseek-v3", "mtp", device="h200", tp=8)
    assert len(mtp.priced) == len(mtp.stages) + 1
