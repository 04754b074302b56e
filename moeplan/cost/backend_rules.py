"""Which kernels an engine prefers for a weight format on a GPU: predicates without tables.

vLLM walks a list of backends and takes the first whose predicates hold. The rules are those of
`model_executor/layers/fused_moe/oracle/*.py` (experts) and `model_executor/kernels/linear/`
(dense), read in 0.24, 0.32 and 0.33 for SwiGLU or squared-ReLU experts without LoRA. Each answer
names the pick first, then what is nearest to it where no table of the pick exists. "cutlass" is
CUTLASS by whatever way it is called; FlashInfer ships most of it.
"""

from __future__ import annotations

from moeplan.cost.engine_profile import version_key

Capability = tuple[int, int]
Preference = tuple[str, ...]

HUMMING_SINCE = (0, 33)
"""vLLM that puts Humming ahead of Marlin on compute capability 9."""
DEEPGEMM_SM120_SINCE = (0, 33)

_TRTLLM = ("flashinfer-trtllm", "cutlass")
_CUTLASS = ("cutlass",)
_MARLIN = ("marlin",)
_TRITON = ("triton",)
_BLOCK_LINEAR = {
    8: ("triton", "marlin"),
    9: ("deepgemm", "cutlass"),
    10: ("deepgemm", "cutlass"),
    12: ("cutlass", "triton"),
}
"""Block-scaled FP8 GEMMs by major compute capability (8 stands for 8.9, the first with FP8)."""


def expert_preference(
    engine: str, version: str, fmt: str, capability: Capability, *, whole_experts: bool
) -> Preference:
    """Backends for routed experts; `whole_experts` under expert parallelism."""
    if fmt == "nvfp4_a16":
        return _MARLIN
    if engine == "trtllm":
        return _CUTLASS
    if engine == "sglang" and fmt == "bf16":
        return _TRITON
    major = capability[0]
    if major == 10:
        return _MARLIN if fmt == "int4" else _TRTLLM
    number = version_key(version) if engine == "vllm" else (0,)
    if major == 12:
        return _experts_sm120(fmt, number)
    if major == 9:
        return _experts_sm90(fmt, number, whole_experts=whole_experts)
    if fmt == "bf16" or (capability >= (8, 9) and fmt in ("fp8", "fp8_block")):
        return _TRITON
    return _MARLIN


def _experts_sm90(fmt: str, version: tuple[int, ...], *, whole_experts: bool) -> Preference:
    if fmt in ("bf16", "mxfp4"):
        return _TRITON
    if fmt == "fp8_block":
        return _CUTLASS if whole_experts else _TRITON
    if fmt == "fp8":
        return _CUTLASS
    return ("humming", "marlin") if version >= HUMMING_SINCE else _MARLIN


def _experts_sm120(fmt: str, version: tuple[int, ...]) -> Preference:
    if fmt in ("mxfp4", "int4"):
        return _MARLIN
    if fmt == "fp8_block":
        return ("deepgemm", "triton") if version >= DEEPGEMM_SM120_SINCE else _TRITON
    return _CUTLASS


def linear_preference(engine: str, fmt: str, capability: Capability) -> Preference:
    """Backends for dense GEMMs."""
    major = capability[0]
    if fmt == "bf16":
        return ("cublas",)
    if fmt == "nvfp4_a16":
        return _MARLIN
    if fmt == "int4":
        return ("machete", "marlin") if major == 9 and engine == "vllm" else _MARLIN
    if fmt in ("nvfp4", "mxfp4"):
        return _CUTLASS if major >= 10 else _MARLIN
    if capability < (8, 9):
        return _MARLIN
    if fmt == "fp8_block":
        return _BLOCK_LINEAR[major]
    return _CUTLASS


def override_preference(word: str) -> Preference:
    """Backends that a user's kernel word stands for."""
    word = word.lower().replace("_", "-")
    if word == "flashinfer":
        return ("flashinfer-trtllm", "cutlass")
    return ("cutlass",) if word == "flashinfer-cutlass" else (word,)
