"""Bytes that a checkpoint takes: its components times what each weight occupies."""

from __future__ import annotations

from moeplan.errors import UnknownNameError
from moeplan.models.architecture import Architecture
from moeplan.models.checkpoint import Checkpoint

QUANTISABLE = (
    "attn_proj",
    "mla_q",
    "mla_kv",
    "mla_o",
    "gdn_proj",
    "mamba_proj",
    "dense_mlp",
    "routed_experts",
    "shared_experts",
    "latent_proj",
)
"""Components that a uniform re-quantisation changes: routed experts and large linears."""

UNIFORM_FORMATS = {
    "bf16": "bf16",
    "fp8": "fp8",
    "nvfp4": "nvfp4",
    "mxfp4": "mxfp4",
    "int4": "int4_g128",
}
"""Storage format of each short name."""


def component_bytes(arch: Architecture, ckpt: Checkpoint) -> dict[str, float]:
    """Bytes of every component, scales included; drafts under `mtp.` names, the tower as `vision`.

    Tensor headers (about 126 bytes a tensor) are left out.
    """
    counts = dict(arch.components)
    counts |= {f"mtp.{name}": count for name, count in arch.mtp_components.items()}
    if arch.vision_params:
        counts["vision"] = arch.vision_params
    return {name: count * ckpt.bytes_per_weight(name) for name, count in counts.items()}


def checkpoint_bytes(
    arch: Architecture, ckpt: Checkpoint, include_mtp: bool = True, include_vision: bool = True
) -> float:
    """Bytes of all weights of a checkpoint, with or without draft layers and vision tower."""
    return sum(
        size
        for name, size in component_bytes(arch, ckpt).items()
        if (include_mtp or not name.startswith("mtp.")) and (include_vision or name != "vision")
    )


def uniform_checkpoint(name: str) -> Checkpoint:
    """Hypothetical re-quantisation: experts and large linears in one format, the rest in BF16.

    `name` is "bf16", "fp8", "nvfp4", "mxfp4" or "int4". Routers, norms, small vectors, embedding,
    head and vision stay BF16; draft layers follow the main model.

    Raises:
        UnknownNameError: no such format.
    """
    if name not in UNIFORM_FORMATS:
        raise UnknownNameError("weight format", name, UNIFORM_FORMATS)
    layout: dict[str, str | dict[str, float]] = dict.fromkeys(QUANTISABLE, UNIFORM_FORMATS[name])
    source = "hypothetical uniform re-quantisation: nobody has published it"
    return Checkpoint(name, None, "bf16", layout, layout_source=source)
