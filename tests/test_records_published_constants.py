"""The constants behind published rows: all found, none circular, those in code as listed."""

from __future__ import annotations

import pytest

from moeplan.cost.predictor import prepare
from moeplan.cost.used_tables import used_tables
from moeplan.hardware_specs import load_hardware
from moeplan.records.code_constants import code_constants
from moeplan.records.constants import constants_used, rests_alone_on
from moeplan.records.published import published_records
from moeplan.records.setup import deployment_of

HARDWARE = load_hardware()
RECORDS = {record.id: record for record in published_records()}


def test_every_kernel_that_was_picked_is_among_the_tables() -> None:
    for name in ("gb10x2-kubis-nemo-tp2-c1", "lambda-nemotron3super-b200-2-x-nvfp4"):
        deployment, workload, _ = deployment_of(RECORDS[name], HARDWARE)
        prepared = prepare(deployment, HARDWARE, workload.longest_tokens)
        found = {id(table) for table in used_tables(prepared)}
        assert {id(pick.table) for pick in prepared.kernels.picks} <= found
        assert id(HARDWARE.kernel_set(deployment.device).small) in found


def test_links_count_only_where_ranks_talk() -> None:
    def addresses(name: str) -> set[str]:
        found = constants_used([RECORDS[name]], HARDWARE)
        return {constant.address.split("/")[0] for constant in found if constant.records}

    assert "fabrics" in addresses("gb10x2-kubis-nemo-tp2-c1")
    assert "fabrics" not in addresses("gb10-kubis-nemo-solo-c1")


def test_a_constant_is_used_by_a_prediction_that_changes_with_it() -> None:
    """What is listed moves the step, what is not listed does not."""
    record = RECORDS["gb10-kubis-nemo-solo-c1"]
    listed = {c.address for c in constants_used([record], HARDWARE)}
    base = _step(record, {})
    for address in ("kernels/gb10/moe/cutlass-nvfp4/bandwidth_tb_per_s",):
        assert address in listed
        assert _step(record, {address: 0.1}) > base
    other = "kernels/gb10/moe/marlin-mxfp4/bandwidth_tb_per_s"
    assert other not in listed
    assert _step(record, {other: 0.1}) == base


def _step(record: object, values: dict[str, float]) -> float:
    hardware = HARDWARE.with_overrides(values)
    deployment, workload, _ = deployment_of(record, hardware)
    prepared = prepare(deployment, hardware, workload.longest_tokens)
    from moeplan.cost.batch import StepBatch

    return prepared.timer.step_seconds(StepBatch([1000], (), 1))


def test_no_shipped_constant_rests_on_what_it_predicts() -> None:
    every = HARDWARE.parameters() | code_constants()
    assert {a: s for a, (_, p) in every.items() if (s := rests_alone_on(p.source))} == {}


@pytest.mark.parametrize(
    "source",
    [
        "kubis.ai",
        "fit to kubis.ai runs, 3 rows",
        "Lambda's Nemotron page and kubis.ai topology benchmarks",
        "lambda.ai model page (5 rows)",
        "model card of Behemoth-X-123B-v2.2",
        "KaletoAI, decode rates",
        "rtxpro6000x2-vs-q35-122b-vllm-ctx0 rows, 512 prompts",
        "github.com/Visual-Synthesizer/rtx6kpro: benchmarks of 2 cards",
    ],
)
def test_sources_that_are_judged(source: str) -> None:
    assert rests_alone_on(source)


@pytest.mark.parametrize(
    "source",
    [
        "Visual-Synthesizer/rtx6kpro@a4e197c, hardware notes",
        "kubis.ai and djangodevreng/dgx-spark-benchmarks",
        "fit to InferenceX runs; kubis.ai agrees",
        "vLLM: lambda functions of its source",
        "a guess",
    ],
)
def test_sources_that_are_not_or_not_alone(source: str) -> None:
    assert rests_alone_on(source) is None


def test_constants_in_code_exist_with_sources() -> None:
    found = code_constants()
    assert found["moeplan.simulation.workload.ROUTING_SIGMA/domain"][0] == 1.4
    assert all(provenance.source for _, provenance in found.values())
