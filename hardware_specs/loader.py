"""Reads the TOML files of this folder, and those of the user, into a `Hardware`."""

from __future__ import annotations

import tomllib
from collections import ChainMap
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from moeplan.errors import InputError, UnknownNameError
from moeplan.hardware_specs.schema import (
    Device,
    EngineProfile,
    Fabric,
    Hardware,
    KernelSet,
    Launches,
    Price,
    Strict,
)

HERE = Path(__file__).parent
LISTING = "moeplan hardware"
Model = TypeVar("Model", bound=BaseModel)
Named = TypeVar("Named", Device, Fabric)


class _PriceFile(Strict):
    price: list[Price]


class _LaunchFile(Strict):
    launches: list[Launches]


class TomlFolder(Mapping[str, Model], Generic[Model]):
    """Files `<id>.toml` of a folder by id, each read and validated when first asked for.

    Reading all takes 0.15 s, one command needs a few. Raises `InputError` on a malformed file.
    """

    def __init__(self, folder: Path, model: type[Model]):
        self._model = model
        self._paths = {path.stem: path for path in sorted(folder.glob("*.toml"))}
        self._read: dict[str, Model] = {}

    def __getitem__(self, key: str) -> Model:
        if key not in self._read:
            path = self._paths[key]
            item = read_toml(path, self._model)
            own = getattr(item, "device", None) or getattr(item, "id", key)
            if own != key:
                raise InputError(f"{path}: holds {own!r}; name the file {own}.toml")
            self._read[key] = item
        return self._read[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


def load_hardware(extra_dir: Path | None = None) -> Hardware:
    """Everything known about hardware.

    `extra_dir` may hold further `devices/`, `fabrics/`, `kernels/`, `engines/`, `prices.toml` and
    `launches.toml` in the layout of this folder; what has the same id (for an engine the same name
    and first version, for a price the same device and kind, for launches the same part) replaces
    what ships here. Raises `InputError` that names file, field and value of anything malformed, on
    loading or on first use.
    """
    if extra_dir is None:
        return _shipped()
    if not extra_dir.is_dir():
        raise InputError(f"hardware folder {extra_dir} does not exist; name an existing folder")
    extra, shipped = _read_folder(extra_dir), _shipped()
    merged = Hardware.model_construct(
        devices=ChainMap(extra.devices, shipped.devices),
        fabrics=ChainMap(extra.fabrics, shipped.fabrics),
        kernels=ChainMap(extra.kernels, shipped.kernels),
        engines=_joined(extra.engines, shipped.engines, "engine", "min_version"),
        prices=_joined(extra.prices, shipped.prices, "device", "kind"),
        launches=_joined(extra.launches, shipped.launches, "part"),
    )
    for device in extra.devices.values():
        check_references(merged, device, extra_dir)
    return merged


def check_references(hardware: Hardware, device: Device, folder: Path) -> None:
    """Raise `InputError` where a device names a fabric or kernel tables that do not exist."""
    path = folder / "devices" / f"{device.id}.toml"
    for field in ("intra_node_fabric", "inter_node_fabric"):
        name = getattr(device, field)
        if name not in hardware.fabrics:
            known = ", ".join(sorted(hardware.fabrics))
            raise InputError(f"{path}: {field} = {name!r} is no fabric; choose one of {known}")
    tables = device.kernels_from or device.id
    if tables not in hardware.kernels:
        raise InputError(
            f"{path}: no kernels/{tables}.toml; add it, or set kernels_from to a device that has "
            "kernel tables"
        )


def find_device(hardware: Hardware, name: str) -> Device:
    """The device with this id or alias, whatever its case, hyphens, underscores and spaces.

    Raises `UnknownNameError` with the nearest names.
    """
    return _find("device", hardware.devices, name)


def find_fabric(hardware: Hardware, name: str) -> Fabric:
    """The fabric with this id or alias, whatever its case, hyphens, underscores and spaces.

    Raises `UnknownNameError` with the nearest names.
    """
    return _find("fabric", hardware.fabrics, name)


def read_toml(path: Path, model: type[Model]) -> Model:
    """One validated file; raises `InputError` that names the file, the field and the value."""
    try:
        return model.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML: {error}; mend that place") from None
    except ValidationError as error:
        raise InputError(f"{path}: {_first_fault(error)}") from None


@lru_cache(maxsize=1)
def _shipped() -> Hardware:
    return _read_folder(HERE)


def _read_folder(folder: Path) -> Hardware:
    prices, launches = folder / "prices.toml", folder / "launches.toml"
    return Hardware.model_construct(
        devices=TomlFolder(folder / "devices", Device),
        fabrics=TomlFolder(folder / "fabrics", Fabric),
        kernels=TomlFolder(folder / "kernels", KernelSet),
        engines=[
            read_toml(path, EngineProfile) for path in sorted((folder / "engines").glob("*.toml"))
        ],
        prices=read_toml(prices, _PriceFile).price if prices.exists() else [],
        launches=read_toml(launches, _LaunchFile).launches if launches.exists() else [],
    )


def _joined(first: list[Model], second: list[Model], *fields: str) -> list[Model]:
    """Both lists; of two items alike in `fields` the one in `first`."""

    def key(item: Model) -> tuple[object, ...]:
        return tuple(getattr(item, field) for field in fields)

    taken = {key(item) for item in first}
    return first + [item for item in second if key(item) not in taken]


def _find(kind: str, known: Mapping[str, Named], name: str) -> Named:
    wanted = _folded(name)
    for key in known:  # ids first: aliases stand inside the files, which then must all be read
        if _folded(key) == wanted:
            return known[key]
    for item in known.values():
        if wanted in map(_folded, item.aliases):
            return item
    names = [n for item in known.values() for n in (item.id, *item.aliases)]
    raise UnknownNameError(kind, name, names, LISTING)


def _folded(name: str) -> str:
    return name.casefold().replace("-", "").replace("_", "").replace(" ", "")


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    where = ".".join(str(part) for part in fault["loc"]) or "file"
    if fault["type"] == "extra_forbidden":
        return f"unknown field {where} = {fault['input']!r}; remove it or correct its name"
    if fault["type"] == "missing":
        return f"field {where} is missing; add it (hardware_specs/README.md lists the fields)"
    return f"{where} = {fault['input']!r}: {fault['msg']}; correct the value"
