"""Tensors of MXFP4 experts after vLLM has brought them into the layout of its kernel."""

from __future__ import annotations

import math
from dataclasses import dataclass

from moeplan.cost.engine_profile import capability, vllm_has
from moeplan.cost.formats import component_formats
from moeplan.cost.kernel_choice import expert_backends
from moeplan.deployment import Deployment
from moeplan.hardware_specs.schema import Hardware
from moeplan.models.architecture import MoEFFN

BLOCK = 32
"""Weights that share a scale of one byte (OCP MX)."""
_WIDTH_STEPS = {
    "marlin": (256, 128),
    "flashinfer-trtllm": (256, 256),
    "cutlass": (128, 128),
    "triton": (1, 64),
}
"""Multiples of the hidden and the intermediate width (vLLM `fused_moe/oracle/mxfp4.py`,
`mxfp4_round_up_hidden_size_and_intermediate_size`)."""
_HOPPER_SCALE_ROWS = 256
_HOPPER_SCALE_COLUMNS = 2
"""Multiples of scales with 8 warps (`triton_kernels/tensor_details/layout_details/
hopper_scale.py`)."""
_HOPPER_VALUE_ROWS = 16
_HOPPER_VALUE_COLUMNS = 32
"""Multiples of values, a column being one byte (`hopper_value.py`)."""
_BLACKWELL_VALUE_COLUMNS = 128
_BLACKWELL_SCALE_ROWS = 128
_BLACKWELL_SCALE_COLUMNS = 8
"""The same of `blackwell_value.py` and `blackwell_scale.py`."""


@dataclass(frozen=True, slots=True)
class ExpertLayout:
    """Bytes of the experts of one layer on one rank."""

    tensors: tuple[int, ...]
    """Values and scales, the loaded scales too where the engine keeps them."""
    biases: int
    """Bytes of both biases; that of the down-projection is whole on every rank."""

    @property
    def total(self) -> int:
        """Bytes of values and scales."""
        return sum(self.tensors)


def mxfp4_layout(
    deployment: Deployment, hardware: Hardware, ffn: MoEFFN, share: float
) -> ExpertLayout | None:
    """Layout of the routed experts of a layer; None where they are not MXFP4.

    `share` is the part of the layer's experts on one rank: whole experts under expert parallelism,
    a cut through the intermediate width otherwise.
    """
    online = deployment.engine.online_quantization
    if set(component_formats(deployment.checkpoint, "routed_experts", online)) != {"mxfp4"}:
        return None
    backends = expert_backends(deployment, hardware, "mxfp4")
    backend = next((name for name in backends if name in _WIDTH_STEPS), None)
    hidden_step, inner_step = _WIDTH_STEPS[backend] if backend else (1, 1)
    whole = deployment.placement.ep
    experts = round(ffn.num_experts * share) if whole else ffn.num_experts
    inner = ffn.moe_intermediate_size * (1.0 if whole else share)
    hidden = _up(ffn.latent_size or deployment.architecture.hidden_size, hidden_step)
    inner = _up(inner, inner_step)
    up = inner * (2 if ffn.gated else 1)
    biases = experts * (up + hidden) if ffn.expert_bias else 0
    plain = _plain(experts, up, hidden) + _plain(experts, hidden, inner)
    if backend != "triton" or deployment.engine.engine != "vllm":
        return ExpertLayout(plain, 2 * biases)
    major = capability(hardware.devices[deployment.device])[0]
    swizzled = _swizzled(major, experts, up, hidden) + _swizzled(major, experts, hidden, inner)
    left = () if vllm_has(deployment.engine, "swizzled scales replace the loaded ones") else plain
    return ExpertLayout(swizzled + left[1::2], 4 * biases)


def _up(size: float, step: int) -> int:
    return math.ceil(size / step) * step


def _plain(experts: int, rows: int, columns: int) -> tuple[int, ...]:
    """Bytes of values and scales of a matrix of `columns` inputs and `rows` outputs an expert."""
    return experts * rows * columns // 2, experts * rows * columns // BLOCK


def _swizzled(major: int, experts: int, rows: int, columns: int) -> tuple[int, ...]:
    """The same in the layout of Triton's kernels on a compute capability."""
    packed, scales = math.ceil(columns / 2), math.ceil(columns / BLOCK)
    if major == 9:
        values = _up(rows, _HOPPER_VALUE_ROWS) * _up(packed, _HOPPER_VALUE_COLUMNS)
        factors = _up(rows, _HOPPER_SCALE_ROWS) * _up(scales, _HOPPER_SCALE_COLUMNS)
    elif major >= 10:
        values = rows * _up(packed, _BLACKWELL_VALUE_COLUMNS)
        factors = _up(rows, _BLACKWELL_SCALE_ROWS) * _up(scales, _BLACKWELL_SCALE_COLUMNS)
    else:
        values, factors = rows * packed, rows * scales
    return experts * values, experts * factors
