"""The `quantization_config` that makes vLLM create a checkpoint's weights in its own formats.

The layout of a catalogued checkpoint says which component is stored how; here it becomes the list
of modules that stay in 16 bits, by name, as the published configs have it.
"""

from __future__ import annotations

from typing import Any

from moeplan.errors import InputError
from moeplan.models.architecture import Architecture, MoEFFN
from moeplan.models.checkpoint import Checkpoint
from moeplan.models.quantized_modules import layer_matrices

_ROUTERS = ("mlp.gate", "mlp.router", "block_sparse_moe.gate", "mixer.gate")
_PLAIN = ("bf16", "fp32")
# gpt-oss names components, not single modules (openai/gpt-oss-120b, config.json).
_MXFP4_KEPT = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens"]


def quantization_config(
    arch: Architecture, checkpoint: Checkpoint, layers: int
) -> dict[str, Any] | None:
    """What config.json says of the formats of `checkpoint`; None where all is in 16 bits.

    Raises `InputError` for a format or a mix that no single method stores.
    """
    formats = {_format(checkpoint, name) for name in arch.components} - set(_PLAIN)
    if not formats:
        return None
    if len(formats) > 1:
        raise InputError(
            f"{checkpoint.name} of {arch.slug} mixes {', '.join(sorted(formats))}; dummy models of "
            "one quantised format only: name another --checkpoint"
        )
    scheme = _scheme(formats.pop(), arch.slug, _kept(arch, checkpoint, layers))
    if checkpoint.kv_format == "fp8":
        scheme["kv_cache_scheme"] = {"type": "float", "num_bits": 8, "dynamic": False}
    return scheme


def _scheme(fmt: str, slug: str, kept: list[str]) -> dict[str, Any]:
    if fmt == "mxfp4":
        return {"quant_method": "mxfp4", "modules_to_not_convert": [*_MXFP4_KEPT, "lm_head"]}
    if fmt in ("fp8", "fp8_block"):
        scheme = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic"}
        block = {"weight_block_size": [128, 128]} if fmt == "fp8_block" else {}
        return {**scheme, **block, "modules_to_not_convert": kept}
    if fmt == "nvfp4":
        modelopt = {"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16}
        return {**modelopt, "ignore": kept}
    if fmt == "int4_g128":
        awq = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}
        return {**awq, "version": "gemm", "modules_to_not_convert": kept}
    raise InputError(f"{fmt} of {slug}: no dummy model of this format; name another --checkpoint")


def _kept(arch: Architecture, checkpoint: Checkpoint, layers: int) -> list[str]:
    """Modules that stay in 16 bits."""
    names = ["lm_head"]
    for index, layer in enumerate(arch.layers[:layers]):
        prefix = f"model.layers.{index}."
        for component, spellings, _ in layer_matrices(layer, arch.hidden_size):
            if _format(checkpoint, component) in _PLAIN:
                names += [prefix + spelling for spelling in spellings]
        if isinstance(layer.ffn, MoEFFN):
            names += [prefix + router for router in _ROUTERS]
    return names


def _format(checkpoint: Checkpoint, component: str) -> str:
    """The one format of a component; of a mixed one that with the largest share."""
    shares = checkpoint.formats(component)
    return max(shares, key=shares.__getitem__)
