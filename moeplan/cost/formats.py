"""Storage format of every component as the engine runs it."""

from __future__ import annotations

from collections.abc import Mapping

from moeplan.deployment import Deployment
from moeplan.errors import DeploymentError, UnknownNameError
from moeplan.models.checkpoint import BYTES_PER_WEIGHT, Checkpoint

_KERNEL_FORMATS = {"int4_g32": "int4", "int4_g128": "int4", "fp32": "bf16"}


def kernel_format(storage_format: str) -> str:
    """The name by which kernel tables know a storage format."""
    return _KERNEL_FORMATS.get(storage_format, storage_format)


def component_formats(
    checkpoint: Checkpoint, component: str, online: Mapping[str, str]
) -> dict[str, float]:
    """Share of each storage format in a component after online quantisation, absent parts out."""
    if component in online:
        return {online[component]: 1.0}
    shares = checkpoint.formats(component)
    return {name: share for name, share in shares.items() if name != "absent"}


def component_bytes_per_weight(
    checkpoint: Checkpoint, component: str, online: Mapping[str, str]
) -> float:
    """Mean bytes a weight of a component takes on the GPU, scales included."""
    shares = component_formats(checkpoint, component, online)
    return sum(share * BYTES_PER_WEIGHT[name] for name, share in shares.items())


def check_online_quantization(deployment: Deployment) -> None:
    """Refuse online quantisation of components or into formats that do not exist."""
    for component, fmt in deployment.engine.online_quantization.items():
        if component not in deployment.architecture.components:
            known = sorted(deployment.architecture.components)
            raise UnknownNameError("component of online_quantization", component, known)
        if fmt not in BYTES_PER_WEIGHT or fmt == "absent":
            raise DeploymentError(
                f"online_quantization of {component} to {fmt!r}: no such format; use one of "
                f"{', '.join(f for f in BYTES_PER_WEIGHT if f != 'absent')}"
            )
