"""`moeplan hardware`: devices, fabrics, kernels and engines, each figure with its source."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moeplan.cli import render
from moeplan.cli.options import CalibrationFile, JsonFlag
from moeplan.cli.session import read_hardware
from moeplan.errors import UnknownNameError

if TYPE_CHECKING:
    from moeplan.hardware_specs.schema import Device, Fabric, Hardware

OPERATORS = ("linear", "moe", "attention_decode", "attention_prefill", "recurrent")

HardwareId = Annotated[str | None, typer.Argument(help="Device or fabric to show in full.")]
Constants = Annotated[
    bool, typer.Option("--constants", help="List every tunable constant with where it rests.")
]


def hardware(
    identifier: HardwareId = None,
    constants: Constants = False,
    calibration: CalibrationFile = None,
    as_json: JsonFlag = False,
) -> None:
    """List known hardware, or show one in full."""
    known = read_hardware(calibration)
    if constants:
        render.emit(constants_data(known, identifier), as_json, _show_constants)
    elif identifier is None:
        render.emit(overview_data(known), as_json, _show_overview)
    else:
        render.emit(detail_data(known, identifier), as_json, _show_detail)


def overview_data(known: Hardware) -> dict[str, Any]:
    """One row a device, fabric and engine profile."""
    return {
        "devices": [_device_row(known, device) for device in known.devices.values()],
        "fabrics": [_fabric_row(fabric) for fabric in known.fabrics.values()],
        "engines": [
            {
                "engine": profile.engine,
                "versions": f"{profile.min_version} ≤ v < {profile.max_version}",
                "source": profile.source,
            }
            for profile in known.engines
        ],
    }


def _device_row(known: Hardware, device: Device) -> dict[str, Any]:
    peak = device.compute
    return {
        "id": device.id,
        "name": device.name,
        "visible_gib": device.memory.visible_gib.value,
        "bandwidth_gb_per_s": device.memory.nominal_bandwidth_gb_per_s.value,
        "bf16_tflops": peak.bf16_tflops.value,
        "fp8_tflops": peak.fp8_tflops.value if peak.fp8_tflops else None,
        "fp4_tflops": peak.fp4_tflops.value if peak.fp4_tflops else None,
        "tdp_w": device.power.tdp_w.value,
        "usd_per_hour": _hourly_price(known, device.id),
        "kernels": f"as {device.kernels_from}" if device.kernels_from else "own",
        "grade": device.memory.visible_gib.grade,
    }


def _hourly_price(known: Hardware, device: str) -> float | None:
    kind = "on_demand_usd_per_hour"
    return next((p.value for p in known.prices if (p.device, p.kind) == (device, kind)), None)


def _fabric_row(fabric: Fabric) -> dict[str, Any]:
    return {
        "id": fabric.id,
        "name": fabric.name,
        "scope": fabric.scope,
        "bandwidth_gb_per_s": fabric.bandwidth_gb_per_s.value,
        "latency_us": fabric.latency_us.value,
        "all_reduce_tables": len(fabric.all_reduce),
        "grade": fabric.latency_us.grade,
    }


def _show_overview(data: dict[str, Any]) -> None:
    text, num = render.text, render.num
    render.print_table(
        [text("device", keep=True), num("GiB"), num("GB/s"), num("BF16 TF"), num("FP8 TF"),
         num("FP4 TF"), num("W"), num("$/h"), text("kernels", keep=True)],
        [
            [row["id"], *(render.number(row[key]) for key in (
                "visible_gib", "bandwidth_gb_per_s", "bf16_tflops", "fp8_tflops", "fp4_tflops",
                "tdp_w", "usd_per_hour")), row["kernels"]]
            for row in data["devices"]
        ],
        "Devices (memory an engine sees, nominal bandwidth, dense peaks)",
    )  # fmt: skip
    render.print_table(
        [text("fabric", keep=True), text("name"), text("scope", keep=True), num("GB/s"), num("µs"),
         num("tables"), text("grade", keep=True)],
        [
            [row["id"], row["name"], row["scope"], render.number(row["bandwidth_gb_per_s"]),
             render.number(row["latency_us"]), str(row["all_reduce_tables"]), row["grade"]]
            for row in data["fabrics"]
        ],
        "Fabrics (one direction, one small message, measured all-reduce tables)",
    )  # fmt: skip
    render.print_table(
        [text("engine", keep=True), text("versions", keep=True), text("source")],
        [[row["engine"], row["versions"], row["source"]] for row in data["engines"]],
        "Engine profiles",
    )
    render.print_line("`moeplan hardware ID` shows one with its sources; --constants lists all.")


def detail_data(known: Hardware, identifier: str) -> dict[str, Any]:
    """Every figure of one device or fabric, and a device's kernel families."""
    entry = _lookup(known, identifier)
    data: dict[str, Any] = {
        "id": entry.id,
        "name": entry.name,
        "note": getattr(entry, "note", None),
        "figures": list(_figures(entry)),
    }
    if entry.id in known.devices:
        data["kernels_from"] = entry.kernels_from or entry.id
        data["kernels"] = _families(known, entry.id)
        data["prices"] = [price for price in known.prices if price.device == entry.id]
    return data


def _lookup(known: Hardware, identifier: str) -> Any:
    from moeplan.hardware_specs.loader import LISTING, find_device, find_fabric

    for find in (find_device, find_fabric):
        try:
            return find(known, identifier)
        except UnknownNameError:
            continue
    names = [*known.devices, *known.fabrics]
    raise UnknownNameError("device or fabric", identifier, names, LISTING)


def _figures(model: Any, prefix: str = "") -> Iterator[dict[str, Any]]:
    """Each figure below a pydantic model with its dotted name and provenance."""
    for name in type(model).model_fields:
        value = getattr(model, name)
        for suffix, part in _parts(value):
            path = f"{prefix}{name}{suffix}"
            if hasattr(part, "grade"):
                yield {"figure": path, "value": getattr(part, "value", None)} | _provenance(part)
            elif hasattr(type(part), "model_fields"):
                yield from _figures(part, f"{path}.")


def _parts(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, list):
        return [(f"[{i}]", part) for i, part in enumerate(value)]
    return [("", value)]


def _provenance(part: Any) -> dict[str, Any]:
    names = ("grade", "source", "date", "samples", "error_median", "error_p90", "note")
    return {name: getattr(part, name) for name in names}


def _families(known: Hardware, device: str) -> list[dict[str, Any]]:
    kernels = known.kernel_set(device)
    return [
        {
            "operator": operator,
            "family": table.family,
            "formats": getattr(table, "formats", getattr(table, "kv_formats", [])),
        }
        | _provenance(table)
        for operator in OPERATORS
        for table in getattr(kernels, operator)
    ]


def _show_detail(data: dict[str, Any]) -> None:
    render.print_line(f"{data['id']}: {data['name']}", bold=True)
    if data["note"]:
        render.print_line(data["note"])
    sources = render.Footnotes()
    text, num = render.text, render.num
    render.print_table(
        [text("figure", keep=True), num("value"), text("grade", keep=True), num("source")],
        [
            [row["figure"], render.number(row["value"]), row["grade"], sources.mark(_where(row))]
            for row in data["figures"]
        ],
    )
    if "kernels" in data:
        _show_families(data, sources)
    sources.print("Sources")


def _show_families(data: dict[str, Any], sources: render.Footnotes) -> None:
    text, num = render.text, render.num
    render.print_table(
        [text("operator", keep=True), text("family", keep=True), text("formats"),
         text("grade", keep=True), num("samples"), num("error p50"), num("source")],
        [
            [row["operator"], row["family"], " ".join(row["formats"]), row["grade"],
             render.count(row["samples"]), _percent(row["error_median"]),
             sources.mark(_where(row))]
            for row in data["kernels"]
        ],
        f"Kernel families (of {data['kernels_from']})",
    )  # fmt: skip
    for price in data["prices"]:
        source = sources.mark(f"{price.source}, {price.date}")
        render.print_line(f"{price.kind}: {price.value:,.2f} ({source})")


def _where(row: dict[str, Any]) -> str:
    return f"{row['source']}, {row['date']}" if row["date"] else row["source"]


def _percent(share: float | None) -> str:
    return render.NOTHING if share is None else f"{share:.1%}"


def constants_data(known: Hardware, identifier: str | None) -> list[dict[str, Any]]:
    """Every parameter (of one device or fabric, if named): address, value and provenance.

    Without a name also the constants that stand in code.
    """
    from moeplan.records.code_constants import code_constants

    wanted = _lookup(known, identifier).id if identifier else None
    found = known.parameters() | ({} if identifier else code_constants())
    return [
        {"address": address, "value": value} | _provenance(provenance)
        for address, (value, provenance) in found.items()
        if wanted is None or wanted in address.split("/")
    ]


def _show_constants(rows: list[dict[str, Any]]) -> None:
    sources = render.Footnotes()
    text, num = render.text, render.num
    render.print_table(
        [text("address"), num("value"), text("grade", keep=True), num("samples"), num("source")],
        [
            [row["address"], _value(row["value"]), row["grade"], render.count(row["samples"]),
             sources.mark(_where(row))]
            for row in rows
        ],
        f"{len(rows)} constants",
    )  # fmt: skip
    sources.print("Sources")


def _value(value: Any) -> str:
    return render.number(value) if isinstance(value, int | float) else str(value)
