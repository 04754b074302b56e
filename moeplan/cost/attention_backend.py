"""Which attention backend vLLM picks, and what it refuses.

After the priority list of `platforms/cuda.py` and the predicates of the backends in
`v1/attention/backends/` (vLLM 0.32): the first backend that takes the GPU, the cache format and the
model's head features serves all attention layers.
"""

from __future__ import annotations

from dataclasses import dataclass

from moeplan.errors import DeploymentError
from moeplan.models.architecture import Architecture, GroupedQueryAttention, LatentAttention

Capability = tuple[int, int]
NATIVE_FP8 = (8, 9)
"""First compute capability whose Triton kernels read FP8 caches (E4M3 conversion)."""


@dataclass(frozen=True, slots=True)
class AttentionBackend:
    """The backend of a deployment's attention layers."""

    name: str
    """"flash-attention", "flashinfer", "triton", "flashmla", with "-mla" or "-sparse"."""
    block_size: int
    """Smallest block that it can page, tokens."""
    reason: str

    expanded_prefill: str | None = None
    """Backend of prefill where latent attention expands keys and values to attend as usual."""

    @property
    def prefill_name(self) -> str:
        """Backend of prefill."""
        return self.expanded_prefill or self.name

    @property
    def latent(self) -> bool:
        """Whether it serves latent attention."""
        return self.expanded_prefill is not None


def attention_backend(
    architecture: Architecture, capability: Capability, kv_format: str
) -> AttentionBackend:
    """Backend for one model on one compute capability and KV format.

    Raises `DeploymentError` with the rule and the remedy where no backend takes the combination.
    """
    mixers = {layer.mixer for layer in architecture.layers}
    latent = next((m for m in mixers if isinstance(m, LatentAttention)), None)
    grouped = [m for m in mixers if isinstance(m, GroupedQueryAttention)]
    if latent is not None:
        return _latent(latent, architecture.slug, capability, kv_format)
    if not grouped:
        return AttentionBackend("none", 1, "no attention layers")
    return _grouped(any(m.sinks for m in grouped), architecture.slug, capability, kv_format)


def _grouped(sinks: bool, slug: str, capability: Capability, kv_format: str) -> AttentionBackend:
    if capability[0] == 10:
        return AttentionBackend("flashinfer", 16, "first choice on compute capability 10")
    if capability[0] == 9:
        return AttentionBackend("flash-attention", 16, "first choice on compute capability 9")
    if not sinks and kv_format == "fp8":
        return AttentionBackend("flashinfer", 16, "FlashAttention 2 reads no FP8 cache")
    if not sinks:
        return AttentionBackend("flash-attention", 16, "first choice on this GPU")
    if kv_format == "fp8" and capability < NATIVE_FP8:
        raise DeploymentError(_refusal(slug, "attention sinks", capability))
    return AttentionBackend("triton", 16, "FlashAttention 2 has no attention sinks")


def _latent(
    mixer: LatentAttention, slug: str, capability: Capability, kv_format: str
) -> AttentionBackend:
    if mixer.indexer:
        name, block, why = _sparse(slug, capability)
    else:
        name, block, why = _dense_latent(slug, capability, kv_format)
    prefill = "flashinfer" if capability[0] == 10 else "flash-attention"
    return AttentionBackend(name, block, why, expanded_prefill=prefill)


def _dense_latent(slug: str, capability: Capability, kv_format: str) -> tuple[str, int, str]:
    major = capability[0]
    if major == 10:
        return "flashinfer-mla", 32, "first choice on compute capability 10"
    if major == 9 and kv_format == "fp8":
        return "flashmla", 64, "FlashAttention MLA reads no FP8 cache"
    if major == 9:
        return "flash-attention-mla", 16, "first choice on compute capability 9"
    if kv_format == "fp8" and capability < NATIVE_FP8:
        raise DeploymentError(_refusal(slug, "latent attention", capability))
    return "triton-mla", 16, "the only MLA backend on this GPU"


def _sparse(slug: str, capability: Capability) -> tuple[str, int, str]:
    if capability[0] not in (9, 10, 12):
        raise DeploymentError(
            f"{slug} attends sparsely, which needs compute capability 9, 10 or 12; this GPU has "
            f"{capability[0]}.{capability[1]}; use a Hopper or Blackwell device"
        )
    name = "flashmla-sparse" if capability[0] == 9 else "flashinfer-mla-sparse"
    return name, 64, "sparse indexer"


def _refusal(slug: str, feature: str, capability: Capability) -> str:
    return (
        f"kv_cache_dtype fp8 with {feature} ({slug}) needs compute capability 8.9 or later, this "
        f"GPU has {capability[0]}.{capability[1]}; use --kv bf16"
    )
