"""Every tunable number of the hardware data by address, and copies with other values.

An address is a path of names: `kernels/h100_sxm/moe/triton-mxfp4/bandwidth_tb_per_s`,
`fabrics/nvlink4/all_reduce/custom-8-h100_sxm+h200/scale`, `engines/vllm-0.33/host/step_us`.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from moeplan.errors import InputError, UnknownNameError
from moeplan.hardware_specs.schema import (
    AllReduce,
    EngineProfile,
    Figure,
    Hardware,
    HostOverride,
    Launches,
    Price,
    Provenance,
)


def parameters_of(hardware: Hardware) -> dict[str, tuple[float, Provenance]]:
    """Every tunable number by address, with the table or figure that says where it comes from."""
    return {
        address: (getattr(table, field), table)
        for path, table in _tables(hardware, "")
        for field, address in _numbers(table, path)
    }


def override(hardware: Hardware, values: Mapping[str, float]) -> Hardware:
    """A copy in which the parameters at these addresses have these values.

    The tables concerned say so in their note. Raises `UnknownNameError` for an address that does
    not exist and `InputError` for a value that its field does not allow.
    """
    used: set[str] = set()
    copy = _rebuilt(hardware, "", values, used)
    for address in values:
        if address not in used:
            known = parameters_of(hardware)
            raise UnknownNameError("parameter", address, known, "moeplan hardware --parameters")
    return copy


def _tables(item: BaseModel, path: str) -> Iterator[tuple[str, Provenance]]:
    if isinstance(item, Provenance):
        yield path, item
        return
    for _, children in _nested(item, path):
        for place, child in children:
            yield from _tables(child, place)


def _nested(item: BaseModel, path: str) -> Iterator[tuple[str, list[tuple[str, BaseModel]]]]:
    """Fields of a model that hold further models: name, and (address, model) of each."""
    for field in type(item).model_fields:
        value = getattr(item, field)
        place = f"{path}/{field}" if path else field
        if isinstance(value, BaseModel):
            yield field, [(place, value)]
        elif isinstance(value, list) and value and isinstance(value[0], Provenance | EngineProfile):
            yield field, [(f"{place}/{_key(child)}", child) for child in value]
        elif isinstance(value, Mapping) and not isinstance(item, EngineProfile):
            yield field, [(f"{place}/{key}", value[key]) for key in value]


def _numbers(table: Provenance, path: str) -> Iterator[tuple[str, str]]:
    """Fields of a table that hold one tunable number, with their addresses."""
    if isinstance(table, Figure):
        yield "value", path
        return
    for field in type(table).model_fields:
        if field not in Provenance.model_fields and isinstance(getattr(table, field), float):
            yield field, f"{path}/{field}"


def _key(item: BaseModel) -> str:
    """Name of a list item inside an address."""
    match item:
        case AllReduce():
            return f"{item.path}-{item.gpus}-{'+'.join(item.devices) or 'any'}"
        case EngineProfile():
            return f"{item.engine}-{item.min_version}"
        case Price():
            return f"{item.device}/{item.kind}"
        case Launches():
            return item.part
        case HostOverride():
            return "+".join(item.devices)
        case _:
            return item.family


def _rebuilt(item: Any, path: str, values: Mapping[str, float], used: set[str]) -> Any:
    """`item` with the values whose addresses lie under `path`; itself where there are none."""
    values = {a: v for a, v in values.items() if not path or (a + "/").startswith(path + "/")}
    if not values:
        return item
    if isinstance(item, Provenance):
        own = {f: values[a] for f, a in _numbers(item, path) if a in values}
        used.update(a for _, a in _numbers(item, path) if a in values)
        return _changed(item, path, own) if own else item
    changes = {
        field: _rebuilt_field(getattr(item, field), f"{path}/{field}".lstrip("/"), values, used)
        for field in type(item).model_fields
    }
    return item.model_copy(update=changes)


def _rebuilt_field(value: Any, path: str, values: Mapping[str, float], used: set[str]) -> Any:
    if not any(address.startswith(path + "/") or address == path for address in values):
        return value
    if isinstance(value, list):
        return [_rebuilt(child, f"{path}/{_key(child)}", values, used) for child in value]
    if isinstance(value, Mapping):
        named = {a[len(path) + 1 :].split("/")[0] for a in values if a.startswith(path + "/")}
        return ChainMap(
            {k: _rebuilt(value[k], f"{path}/{k}", values, used) for k in named if k in value},
            value,
        )
    return _rebuilt(value, path, values, used) if isinstance(value, BaseModel) else value


def _changed(table: Provenance, path: str, own: Mapping[str, float]) -> Provenance:
    data = table.model_dump()
    changes = ", ".join(f"{field} {data[field]:g} overridden" for field in own)
    data |= own | {"note": f"{table.note}; {changes}" if table.note else changes}
    if isinstance(table, AllReduce) and "scale" in own:
        factor = own["scale"] / table.scale
        data["us_by_bytes"] = [(size, us * factor) for size, us in table.us_by_bytes]
    try:
        return type(table).model_validate(data)
    except ValidationError as error:
        fault = error.errors()[0]
        given = ", ".join(f"{field} = {value!r}" for field, value in own.items())
        raise InputError(f"parameter {path}: {given}: {fault['msg']}; correct the value") from None
