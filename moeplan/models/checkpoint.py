"""`Checkpoint`: which component is stored in which format, and the bytes that follow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

BITS_PER_BYTE = 8

BYTES_PER_WEIGHT: dict[str, float] = {
    "fp32": 4.0,
    "bf16": 2.0,
    "fp8": 1.0,  # one scale a tensor or channel: negligible
    "fp8_block": 1.0 + 4 / 128**2,  # FP32 scale a 128×128 block
    "nvfp4": 0.5 + 1 / 16,  # E2M1, one E4M3 scale for 16 weights
    "nvfp4_a16": 0.5 + 1 / 16,  # the same, but multiplied by 16-bit activations (W4A16_NVFP4)
    "mxfp4": 0.5 + 1 / 32,  # E2M1, one E8M0 scale for 32 weights
    "int4_g32": 0.5 + 2 / 32,  # BF16 scale for 32 weights
    "int4_g128": 0.5 + 2.5 / 128,  # GPTQ, AWQ: FP16 scale and 4-bit zero for 128 weights
    "absent": 0.0,
}
"""Bytes a weight in each storage format, block scales included (OCP MX v1.0, NVFP4, GPTQ/AWQ)."""


@dataclass(frozen=True)
class Checkpoint:
    """One stored form of a model.

    `layout` maps a component (as in `Architecture.components`, `mtp.` before those of draft
    layers) to its format, or to the share of each format. `default_format` serves the rest.
    """

    name: str
    """Short name for the command line: "bf16", "fp8", "nvfp4", ..."""
    repo: str | None
    """Hugging Face repository, None for a hypothetical re-quantisation."""
    default_format: str
    layout: dict[str, str | dict[str, float]] = field(default_factory=dict)
    kv_format: Literal["bf16", "fp8"] = "bf16"
    """Format that the checkpoint's own KV scheme asks for."""
    published_gb: float | None = None
    published_grade: str | None = None
    source: str | None = None
    """Where the published size comes from."""
    layout_source: str | None = None
    """Where the layout comes from; says so where it is assumed or inferred."""

    @property
    def hypothetical(self) -> bool:
        """Whether nobody has published this form."""
        return self.repo is None

    def formats(self, component: str) -> dict[str, float]:
        """Share of each format in a component, summing to 1."""
        found = self.layout.get(component)
        if found is None and component.startswith("mtp."):
            found = self.layout.get("mtp", self.layout.get(component.removeprefix("mtp.")))
        if found is None:
            found = self.default_format
        return {found: 1.0} if isinstance(found, str) else found

    def bytes_per_weight(self, component: str) -> float:
        """Mean bytes a weight of a component takes, scales included."""
        shares = self.formats(component)
        return sum(share * BYTES_PER_WEIGHT[name] for name, share in shares.items())
