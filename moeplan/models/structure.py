"""What a model family's reader returns: the layers, without names and tables."""

from __future__ import annotations

from dataclasses import dataclass

from moeplan.models.architecture import MTP, Layer


@dataclass(frozen=True, slots=True)
class Structure:
    """Layers of a model, its norms (RMSNorm vectors of hidden width a layer) and its MTP."""

    layers: tuple[Layer, ...]
    norms_per_layer: int = 2
    mtp: MTP | None = None
