"""Buffers of routed experts in vLLM: the workspace that stays, or what a fused kernel takes."""

from __future__ import annotations

from collections.abc import Sequence

from moeplan.cost.engine import ResolvedEngine
from moeplan.cost.formats import component_formats, kernel_format
from moeplan.cost.kernel_choice import expert_backends
from moeplan.deployment import Deployment
from moeplan.hardware_specs.schema import Hardware
from moeplan.models.architecture import Layer, MoEFFN

ELEMENT_BYTES = 2


def moe_workspace_bytes(
    deployment: Deployment, hardware: Hardware, engine: ResolvedEngine, layers: Sequence[Layer]
) -> float:
    """Bytes of the workspace that all MoE layers of a rank share and keep once grown.

    A row for every routed copy of a token, twice: input or activation, and up-projection or output
    (`fused_moe/modular_kernel.py` `_allocate_buffers`, `experts/triton_moe.py` `workspace_shapes`;
    `v1/worker/workspace.py` never frees). 0 without experts, and for kernels that route themselves.
    """
    return max(
        (_workspace(deployment, hardware, engine, ffn) for ffn in _routed(layers)), default=0
    )


def fused_expert_bytes(
    deployment: Deployment, hardware: Hardware, engine: ResolvedEngine, layers: Sequence[Layer]
) -> float:
    """Bytes that kernels which route themselves take for a step and give back.

    One activation and one output for every routed copy (`experts/gpt_oss_triton_kernels_moe.py`
    `triton_kernel_fused_experts`, and the scratch of `triton_kernels/matmul_ogs.py`).
    """
    return max((_fused(deployment, hardware, engine, ffn) for ffn in _routed(layers)), default=0.0)


def _routed(layers: Sequence[Layer]) -> set[MoEFFN]:
    return {layer.ffn for layer in layers if isinstance(layer.ffn, MoEFFN)}


def _workspace(
    deployment: Deployment, hardware: Hardware, engine: ResolvedEngine, ffn: MoEFFN
) -> float:
    if _routes_itself(deployment, hardware):
        return 0.0
    width, inner = _widths(deployment, ffn)
    up = inner * (2 if ffn.gated else 1)
    row = max(inner, width) + max(up, width)
    return _copies(deployment, engine, ffn) * row * ELEMENT_BYTES


def _fused(
    deployment: Deployment, hardware: Hardware, engine: ResolvedEngine, ffn: MoEFFN
) -> float:
    if not _routes_itself(deployment, hardware):
        return 0.0
    width, inner = _widths(deployment, ffn)
    return _copies(deployment, engine, ffn) * (width + inner) * ELEMENT_BYTES


def _routes_itself(deployment: Deployment, hardware: Hardware) -> bool:
    online = deployment.engine.online_quantization
    formats = component_formats(deployment.checkpoint, "routed_experts", online)
    fmt = kernel_format(max(formats, key=formats.__getitem__))
    backend = next(iter(expert_backends(deployment, hardware, fmt)), None)
    return backend == "flashinfer-trtllm" or (backend == "triton" and fmt == "mxfp4")


def _widths(deployment: Deployment, ffn: MoEFFN) -> tuple[float, float]:
    """Width that experts work in, and their intermediate width on one rank."""
    placement = deployment.placement
    cut = 1 if placement.ep else placement.tp * placement.dp
    width = ffn.latent_size or deployment.architecture.hidden_size
    return width, ffn.moe_intermediate_size / cut


def _copies(deployment: Deployment, engine: ResolvedEngine, ffn: MoEFFN) -> float:
    """Routed copies of a step's tokens, those of all data-parallel ranks."""
    tokens = engine.max_num_batched_tokens * deployment.placement.dp
    return tokens * ffn.num_experts_per_tok
