"""Loading, looking up and recalibrating the hardware data."""

import math
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeplan import hardware_specs
from moeplan.errors import InputError, UnknownNameError
from moeplan.hardware_specs import find_device, find_fabric, load_hardware, loader
from moeplan.hardware_specs.schema import Device

FOLDER = Path(hardware_specs.__file__).parent
HARDWARE = load_hardware()
PARAMETERS = HARDWARE.parameters()
BANDWIDTH = "kernels/h100_sxm/moe/triton-mxfp4/bandwidth_tb_per_s"
SCALE = "fabrics/nvlink4/all_reduce/custom-8-h100_sxm+h200/scale"


@pytest.fixture
def own_folder(tmp_path):
    """A user's hardware folder with one device, a copy of one that ships."""
    (tmp_path / "devices").mkdir()
    shutil.copy(FOLDER / "devices" / "l40s.toml", tmp_path / "devices")
    return tmp_path


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("given_name", "device"),
    [
        ("h100", "h100_sxm"),
        ("A100", "a100_80g_sxm"),
        ("H100_SXM", "h100_sxm"),
        ("h100-sxm", "h100_sxm"),
        ("DGX Spark", "gb10"),
        ("rtx6000pro", "rtx_pro_6000"),
        ("5090", "rtx_5090"),
    ],
)
def test_devices_are_found_by_id_and_alias(given_name, device):
    assert find_device(HARDWARE, given_name).id == device


@pytest.mark.parametrize(("given_name", "fabric"), [("CX7", "cx7-200gbe"), ("pcie", "pcie5")])
def test_fabrics_are_found_by_alias(given_name, fabric):
    assert find_fabric(HARDWARE, given_name).id == fabric


def test_unknown_names_come_with_the_nearest():
    with pytest.raises(UnknownNameError, match="h100") as caught:
        find_device(HARDWARE, "h1000")
    assert caught.value.exit_code == 2
    with pytest.raises(UnknownNameError, match="nvlink4"):
        find_fabric(HARDWARE, "nvlink9")


def test_default_hardware_is_read_once():
    assert load_hardware() is load_hardware()


def test_a_device_is_read_only_when_asked_for(monkeypatch):
    read = []
    real = loader.read_toml

    def spy(path, model):
        read.append(path.name)
        return real(path, model)

    monkeypatch.setattr(loader, "read_toml", spy)
    folder = loader.TomlFolder(FOLDER / "devices", Device)
    assert len(folder) == len(HARDWARE.devices)
    assert not read
    assert folder["gb10"] is folder["gb10"]
    assert read == ["gb10.toml"]


def test_devices_without_tables_borrow_those_of_their_stand_in():
    assert HARDWARE.kernel_set("rtx_pro_6000_maxq").device == "rtx_pro_6000"


def test_own_device_replaces_the_shipped_one(own_folder):
    edit(own_folder / "devices" / "l40s.toml", "value = 864", "value = 900")
    merged = load_hardware(own_folder)
    assert merged.devices["l40s"].memory.nominal_bandwidth_gb_per_s.value == 900
    assert HARDWARE.devices["l40s"].memory.nominal_bandwidth_gb_per_s.value == 864
    assert set(merged.devices) == set(HARDWARE.devices)


def test_own_price_replaces_the_shipped_one(own_folder):
    (own_folder / "prices.toml").write_text(
        '[[price]]\ndevice = "l40s"\nkind = "on_demand_usd_per_hour"\nvalue = 1\n'
        'grade = "measured"\nsource = "own contract"\n'
    )
    prices = [p for p in load_hardware(own_folder).prices if p.device == "l40s"]
    assert [(p.value, p.source) for p in prices] == [(1, "own contract")]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("tdp_w", "tpd_w", "l40s.toml: unknown field power.tpd_w|field power.tdp_w is missing"),
        ("value = 864", "value = -864", r"l40s.toml: memory.nominal_bandwidth.*= -864"),
        ("value = 864", "value = nan", "memory.nominal_bandwidth"),
        ('grade = "nominal"', 'grade = "guess"', "grade = 'guess'"),
        ("compute_capability =", "#", "field compute_capability is missing; add it"),
        ("[memory]", "[memory", "l40s.toml: not valid TOML"),
    ],
)
def test_malformed_files_are_refused_by_file_field_and_value(own_folder, old, new, message):
    edit(own_folder / "devices" / "l40s.toml", old, new)
    with pytest.raises(InputError, match=message):
        load_hardware(own_folder)


def test_a_typo_in_a_key_never_becomes_a_default(own_folder):
    edit(own_folder / "devices" / "l40s.toml", "max_devices_per_node = 8", "max_devices = 8")
    with pytest.raises(InputError, match=r"max_devices"):
        load_hardware(own_folder)


def test_device_must_name_fabrics_and_kernels_that_exist(own_folder):
    path = own_folder / "devices" / "l40s.toml"
    edit(path, '"pcie4"', '"pcie9"')
    with pytest.raises(InputError, match=r"intra_node_fabric = 'pcie9' is no fabric.*pcie4"):
        load_hardware(own_folder)
    edit(path, '"pcie9"', '"pcie4"')
    edit(path, 'id = "l40s"', 'id = "l40"')
    path.rename(path.with_name("l40.toml"))
    with pytest.raises(InputError, match=r"no kernels/l40.toml; add it, or set kernels_from"):
        load_hardware(own_folder)


def test_a_curve_must_rise(own_folder):
    (own_folder / "fabrics").mkdir()
    path = own_folder / "fabrics" / "pcie5.toml"
    shutil.copy(FOLDER / "fabrics" / "pcie5.toml", path)
    edit(path, "[512, ", "[9999999, ")
    with pytest.raises(InputError, match=r"all_reduce.*x rises"):
        load_hardware(own_folder).fabrics["pcie5"]


def test_file_name_must_be_the_id(own_folder):
    path = own_folder / "devices" / "l40s.toml"
    path.rename(path.with_name("l40.toml"))
    with pytest.raises(InputError, match=r"holds 'l40s'; name the file l40s.toml"):
        load_hardware(own_folder)


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_hardware(tmp_path / "nowhere")


def test_parameters_reach_every_kind_of_table():
    heads = {address.split("/")[0] for address in PARAMETERS}
    assert heads == {"devices", "fabrics", "kernels", "engines", "prices", "launches"}
    value, table = PARAMETERS[BANDWIDTH]
    assert value == table.bandwidth_tb_per_s
    assert "engines/vllm-0.33/host/step_us" in PARAMETERS
    assert "kernels/gb10/small/decode_us_per_layer" in PARAMETERS


@given(st.sets(st.sampled_from(sorted(PARAMETERS)), max_size=4), st.floats(0.5, 2))
def test_overriding_changes_these_parameters_and_no_other(addresses, factor):
    values = {a: PARAMETERS[a][0] * factor for a in addresses}
    changed = HARDWARE.with_overrides(values).parameters()
    assert changed.keys() == PARAMETERS.keys()
    for address, (value, _) in changed.items():
        expected = values.get(address, PARAMETERS[address][0])
        assert math.isclose(value, expected), address


def test_override_is_noted_and_leaves_the_original_alone():
    copy = HARDWARE.with_overrides({BANDWIDTH: 2.0})
    value, table = copy.parameters()[BANDWIDTH]
    assert value == 2.0
    assert "bandwidth_tb_per_s 2.67 overridden" in table.note
    assert HARDWARE.parameters()[BANDWIDTH] == PARAMETERS[BANDWIDTH]


def test_scaling_an_all_reduce_scales_its_curve_once():
    before = PARAMETERS[SCALE][1].us_by_bytes
    half = HARDWARE.with_overrides({SCALE: 0.5})
    after = half.parameters()[SCALE][1].us_by_bytes
    assert [us for _, us in after] == pytest.approx([us / 2 for _, us in before])
    again = half.with_overrides({SCALE: 1.0}).parameters()[SCALE][1].us_by_bytes
    assert [us for _, us in again] == pytest.approx([us for _, us in before])


def test_unknown_addresses_and_impossible_values_are_refused():
    with pytest.raises(UnknownNameError, match="bandwidth_tb_per_s"):
        HARDWARE.with_overrides({BANDWIDTH.removesuffix("_per_s"): 2.0})
    with pytest.raises(UnknownNameError, match="unknown parameter 'kernels/h100_sxm'"):
        HARDWARE.with_overrides({"kernels/h100_sxm": 2.0})
    for value in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match=r"triton-mxfp4: bandwidth_tb_per_s = "):
            HARDWARE.with_overrides({BANDWIDTH: value})
