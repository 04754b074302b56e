"""The shipped hardware data: complete, sourced and physically possible."""

import tomllib
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from moeplan import hardware_specs
from moeplan.hardware_specs import load_hardware
from moeplan.hardware_specs.schema import Figure

HARDWARE = load_hardware()
FOLDER = Path(hardware_specs.__file__).parent
FORMATS = ("bf16", "fp8", "fp8_block", "nvfp4", "nvfp4_a16", "mxfp4", "int4")
SEED_SOURCES = ("lambda.ai", "lambdalabs", "kubis", "kaleto", "rtxpro6000x2-vs")
TABLES = HARDWARE.parameters()

devices = pytest.mark.parametrize("device", HARDWARE.devices.values(), ids=lambda d: d.id)
kernel_sets = pytest.mark.parametrize("kernels", HARDWARE.kernels.values(), ids=lambda k: k.device)
fabrics = pytest.mark.parametrize("fabric", HARDWARE.fabrics.values(), ids=lambda f: f.id)


def peak_tflops(device, family):
    """Dense peak that bounds a family: weight-only kernels multiply in BF16."""
    compute = HARDWARE.devices[device].compute
    bf16 = compute.bf16_tflops.value
    if family.startswith("marlin") or family == "triton-mxfp4":
        return bf16
    if "nvfp4" in family or family.startswith("cutlass-mxfp4"):
        return compute.fp4_tflops.value
    if "fp8" in family:
        return compute.fp8_tflops.value if compute.fp8_tflops else bf16
    return bf16


@devices
def test_device_names_fabrics_that_join_what_they_should(device):
    inside, between = (
        HARDWARE.fabrics[f] for f in (device.intra_node_fabric, device.inter_node_fabric)
    )
    assert between.scope == "inter-node"
    if device.max_devices_per_node > 1:
        assert inside.scope == "intra-node"


@devices
def test_device_has_kernels_for_every_format_that_can_be_loaded(device):
    kernels = HARDWARE.kernel_set(device.id)
    for operator in (kernels.linear, kernels.moe):
        assert {f for table in operator for f in table.formats} == set(FORMATS)


@devices
def test_device_has_attention_of_each_kind_and_cache_format(device):
    kernels = HARDWARE.kernel_set(device.id)
    decode = {(t.kind, f) for t in kernels.attention_decode for f in t.kv_formats}
    assert decode == {(kind, f) for kind in ("gqa", "mla") for f in ("bf16", "fp8")}
    assert {f for t in kernels.attention_prefill for f in t.kv_formats} == {"bf16", "fp8"}
    assert kernels.recurrent


@devices
def test_engine_sees_less_memory_than_the_label_says(device):
    memory = device.memory
    assert 0.9 < memory.visible_gib.value * 2**30 / (memory.nominal_gb.value * 1e9) < 1.075
    read = memory.read_bandwidth_gb_per_s
    if read:
        assert read.value <= memory.nominal_bandwidth_gb_per_s.value


@kernel_sets
def test_no_kernel_moves_bytes_faster_than_the_memory(kernels):
    nominal = HARDWARE.devices[kernels.device].memory.nominal_bandwidth_gb_per_s.value
    operators = (kernels.linear, kernels.moe, kernels.attention_decode, kernels.recurrent)
    for table in (t for operator in operators for t in operator):
        assert table.bandwidth_tb_per_s * 1000 <= nominal, table.family


@kernel_sets
def test_no_kernel_multiplies_faster_than_the_dense_peak(kernels):
    for table in (*kernels.linear, *kernels.moe):
        assert table.rate_tflops <= peak_tflops(kernels.device, table.family), table.family
        assert table.serving_rate_fraction <= 1, table.family
    for table in kernels.attention_decode:
        if table.kind == "mla":
            assert table.rate_tflops <= peak_tflops(kernels.device, table.family), table.family
    for table in kernels.attention_prefill:
        fastest = max(tflops for _, tflops in table.tflops_by_context)
        assert fastest <= peak_tflops(kernels.device, "bf16"), table.family


@kernel_sets
def test_latent_attention_states_when_it_becomes_compute_bound(kernels):
    for table in kernels.attention_decode:
        assert (table.rate_tflops is not None) == (table.kind == "mla"), table.family


@kernel_sets
def test_attention_gets_faster_with_context(kernels):
    for table in kernels.attention_prefill:
        lengths, rates = zip(*table.tflops_by_context, strict=True)
        assert list(lengths) == sorted(set(lengths))
        assert list(rates) == sorted(rates)


@fabrics
def test_all_reduce_takes_longer_the_more_it_sends(fabric):
    for table in fabric.all_reduce:
        for (size, us), (larger, longer) in pairwise(table.us_by_bytes):
            assert size < larger
            assert us <= longer


@fabrics
def test_all_reduce_takes_longer_the_more_ranks_join(fabric):
    tables = [t for t in fabric.all_reduce if t.path == "nccl"]
    for few in tables:
        for many in (t for t in tables if t.devices == few.devices and t.gpus > few.gpus):
            assert many.us_by_bytes[0][1] >= few.us_by_bytes[0][1]


@fabrics
def test_all_reduce_is_no_faster_than_the_wire(fabric):
    for table in fabric.all_reduce:
        size, us = table.us_by_bytes[-1]
        assert size / us / 1000 <= fabric.bandwidth_gb_per_s.value


@fabrics
def test_every_fabric_can_reduce_over_two_four_and_eight(fabric):
    ranks = {t.gpus for t in fabric.all_reduce if t.path == "nccl"}
    assert ranks == {2, 4, 8}
    for device in {d for t in fabric.all_reduce for d in t.devices}:
        assert {t.gpus for t in fabric.all_reduce if device in t.devices} == {2, 4, 8}, device


@fabrics
def test_custom_all_reduce_needs_nvlink_or_two_cards_with_p2p(fabric):
    custom = [t for t in fabric.all_reduce if t.path == "custom"]
    if not fabric.peer_to_peer:
        assert not custom
    if fabric.id.startswith("pcie") or fabric.id == "nvlink-bridge":
        assert {t.gpus for t in custom} <= {2}
    assert all(t.max_bytes for t in custom)


def test_all_reduce_tables_belong_to_devices_that_exist():
    named = {d for f in HARDWARE.fabrics.values() for t in f.all_reduce for d in t.devices}
    assert named <= set(HARDWARE.devices)


def test_every_number_says_how_it_is_known_and_from_where():
    for address, (value, table) in TABLES.items():
        assert value >= 0, address
        assert len(table.source) > 10, address
        assert not table.source.isupper(), f"{address}: spell the source out"
        if table.grade == "fit" and not isinstance(table, Figure):
            assert table.note or table.samples, address


def test_fits_to_kernel_timings_state_their_sample_and_error():
    for address, (_, table) in TABLES.items():
        if table.grade == "fit" and "kernel timings" in table.source and "/kernels/" in address:
            assert table.samples > 10, address
            assert table.error_median is not None, address


def test_no_constant_comes_from_the_runs_that_check_the_predictions():
    for address, (_, table) in TABLES.items():
        text = f"{table.source} {table.note}".lower()
        assert not any(seed in text for seed in SEED_SOURCES), address


def test_aliases_are_unambiguous():
    for kind in (HARDWARE.devices, HARDWARE.fabrics):
        names = Counter(
            name.lower().replace("-", "").replace("_", "")
            for item in kind.values()
            for name in (item.id, *item.aliases)
        )
        assert not {n for n, count in names.items() if count > 1}


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_engine_versions_are_covered_once(engine):
    def key(version):
        return tuple(map(int, version.split(".")))

    profiles = [p for p in HARDWARE.engines if p.engine == engine]
    spans = sorted((key(p.min_version), key(p.max_version)) for p in profiles)
    assert spans
    assert all(before[1] == after[0] for before, after in pairwise(spans))


def test_batch_defaults_fall_with_memory_and_end_at_zero():
    for profile in HARDWARE.engines:
        steps = profile.batch_defaults
        sizes = [s.min_memory_gib for s in steps]
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[-1] == 0
        assert {d for s in steps for d in s.except_devices} <= set(HARDWARE.devices)


def test_gb10_moved_to_the_small_tier_in_vllm_033():
    profiles = {p.min_version: p for p in HARDWARE.engines if p.engine == "vllm"}

    def large_tier_excludes(version):
        return any("gb10" in s.except_devices for s in profiles[version].batch_defaults)

    assert large_tier_excludes("0.33")
    assert not large_tier_excludes("0.14")
    assert not profiles["0.10"].async_scheduling
    assert profiles["0.33"].cuda_graph_tokens_on("10.0") == 1024
    assert profiles["0.33"].cuda_graph_tokens_on("9.0") == 512


def test_host_times_depend_on_the_device_where_measured():
    profiles = {p.min_version: p for p in HARDWARE.engines if p.engine == "vllm"}
    new = profiles["0.33"]
    assert new.host_on("gb10").ttft_us > new.host_on("h200").ttft_us
    assert new.host_on("gb10").step_us == new.host.step_us


def test_prices_belong_to_devices_and_carry_a_source():
    assert {p.device for p in HARDWARE.prices} == set(HARDWARE.devices)
    kinds = Counter((p.device, p.kind) for p in HARDWARE.prices)
    assert max(kinds.values()) == 1


def test_wheel_takes_every_data_file():
    project = FOLDER.parent / "pyproject.toml"
    if not project.exists():
        pytest.skip("installed without its source tree")
    settings = tomllib.loads(project.read_text())["tool"]["setuptools"]["package-data"]
    packed = {p for pattern in settings["moeplan.hardware_specs"] for p in FOLDER.glob(pattern)}
    assert packed >= set(FOLDER.rglob("*.toml"))
