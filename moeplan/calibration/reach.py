"""What of a calibration reaches a deployment, and why it does not speak for its steps where not."""

from __future__ import annotations

from moeplan.cost.predictor import Prepared
from moeplan.cost.used_tables import used_tables
from moeplan.hardware_specs.schema import EngineProfile, Uncertainty

_PARTS = {
    "kernels": "kernels of its own device",
    "engines": "the host's constants",
    "fabrics": "the links",
    "launches": "the launch counts",
}
"""What begins so in an address, in words."""
_ENGINES = {"vllm": "vLLM", "sglang": "SGLang", "trtllm": "TensorRT-LLM"}
_OPEN_END = "999"
"""`max_version` of a profile that later versions share."""


def why_not_measured(known: Uncertainty, prepared: Prepared) -> str | None:
    """Why a calibration is none of this deployment; None where it may speak for it.

    It must hold a fitted kernel of the device that the deployment uses, and where it holds host
    constants, those of the deployment's engine version: what its errors were measured with.
    """
    fitted = {*known.addresses, *known.beside}
    used = fitted & _used_addresses(prepared)
    kernels = _of_other_kernels(known, prepared, used)
    engine = _of_other_engine(known, prepared, used)
    if engine is None:
        return None if kernels is None else f"calibration {kernels}"
    return (
        f"calibration {kernels}; {engine}" if kernels else f"calibration applies in part: {engine}"
    )


def _used_addresses(prepared: Prepared) -> set[str]:
    tables = {id(table) for table in used_tables(prepared)}
    known = prepared.hardware.parameters()
    return {address for address, (_, table) in known.items() if id(table) in tables}


def _of_other_kernels(known: Uncertainty, prepared: Prepared, used: set[str]) -> str | None:
    here = not known.devices or prepared.deployment.device in known.devices
    kernels = {address for address in used if address.startswith("kernels/")}
    if here and kernels:
        return None
    says = "fitted no kernel that this deployment uses" if here else f"is of {_and(known.devices)}"
    parts = [word for part, word in _PARTS.items() if any(a.startswith(f"{part}/") for a in used)]
    return f"{says}; of it {f'only {_and(parts)} apply' if parts else 'nothing applies'} here"


def _of_other_engine(known: Uncertainty, prepared: Prepared, used: set[str]) -> str | None:
    fitted = {*known.addresses, *known.beside}
    keys = {address.split("/")[1] for address in fitted if address.startswith("engines/")}
    if not keys or any(address.startswith("engines/") for address in used):
        return None
    profiles = [
        profile
        for profile in prepared.hardware.engines
        if f"{profile.engine}-{profile.min_version}" in keys
    ]
    ranges = _and([_range(profile) for profile in profiles])
    own = {profile.engine for profile in profiles}
    engine = "" if prepared.engine.engine in own else f"--engine {min(own)} "
    version = min(known.versions, default=min(profile.min_version for profile in profiles))
    return f"its host constants are of {ranges}; give {engine}--engine-version {version}"


def _range(profile: EngineProfile) -> str:
    """Versions that a profile covers, the last one included."""
    name = f"{_ENGINES.get(profile.engine, profile.engine)} {profile.min_version}"
    if profile.max_version == _OPEN_END:
        return f"{name} on"
    major, _, minor = profile.max_version.rpartition(".")
    last = f"{major}.{int(minor) - 1}" if major and minor != "0" else profile.max_version
    return f"{name} to {last}"


def _and(words: tuple[str, ...] | list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
