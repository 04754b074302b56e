"""`Deployment`: a model, a checkpoint, the GPUs and how the engine is set up on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from moeplan.errors import DeploymentError
from moeplan.models.architecture import Architecture, GroupedQueryAttention, LatentAttention, MoEFFN
from moeplan.models.checkpoint import Checkpoint
from moeplan.speculation import Speculation

Router = Literal["round_robin", "simple-shuffle", "least-busy"]


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Engine options under vLLM's own names; None leaves the engine's default."""

    engine: Literal["vllm", "sglang", "trtllm"] = "vllm"
    version: str = "0.33.0"
    max_num_batched_tokens: int | None = None
    max_num_seqs: int | None = None
    max_model_len: int | None = None
    gpu_memory_utilization: float | None = None
    kv_cache_memory_bytes: int | None = None
    num_gpu_blocks_override: int | None = None
    block_size: int | None = None
    kv_cache_dtype: Literal["auto", "bf16", "fp8"] = "auto"
    enable_prefix_caching: bool | None = None
    async_scheduling: bool | None = None
    enforce_eager: bool = False
    cudagraph_capture_sizes: tuple[int, ...] = ()
    """Token counts to capture, rising; empty leaves the engine's own."""
    disable_hybrid_kv_cache_manager: bool = False
    long_prefill_token_threshold: int = 0
    watermark: float = 0.0
    mixed_prefill: bool | None = None
    """False: steps carry either prefill or decode, prefill first."""
    kernel: str | None = None
    """Kernel family word ("marlin", "cutlass", "triton", ...) in place of the engine's choice."""
    online_quantization: dict[str, str] = field(default_factory=dict)
    """Component → format that the engine re-quantises at load (`--mxfp4-layers`)."""
    speculation: Speculation | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """A host with identical devices."""

    device: str
    devices: int


@dataclass(frozen=True, slots=True)
class Cluster:
    """What the user has: nodes, and the fabrics within and between them (ids)."""

    nodes: tuple[Node, ...]
    intra_fabric: str
    inter_fabric: str

    @property
    def devices(self) -> int:
        """GPUs in all nodes."""
        return sum(node.devices for node in self.nodes)


@dataclass(frozen=True, slots=True)
class Placement:
    """How one model is spread: replicas × pipeline stages × tensor-parallel ranks."""

    tp: int = 1
    pp: int = 1
    ep: bool = False
    """Experts whole on the ranks of a tensor-parallel group instead of cut."""
    dp: int = 1
    """Data-parallel attention ranks that share the experts of one engine."""
    replicas: int = 1

    @property
    def gpus_per_replica(self) -> int:
        """GPUs that one independent engine takes."""
        return self.tp * self.pp * self.dp

    @property
    def gpus(self) -> int:
        """GPUs in all."""
        return self.gpus_per_replica * self.replicas

    def __str__(self) -> str:
        parts = [f"{self.replicas}×"] if self.replicas > 1 else []
        parts.append(f"TP{self.tp}")
        if self.pp > 1:
            parts.append(f"PP{self.pp}")
        if self.dp > 1:
            parts.append(f"DP{self.dp}")
        if self.ep:
            parts.append("EP")
        return parts[0] + " ".join(parts[1:]) if self.replicas > 1 else " ".join(parts)


@dataclass(frozen=True)
class Deployment:
    """One way to serve one model; raises `DeploymentError` where no engine could run it."""

    architecture: Architecture
    checkpoint: Checkpoint
    cluster: Cluster
    placement: Placement = Placement()
    router: Router = "round_robin"
    engine: EngineSettings = field(default_factory=EngineSettings)

    def __post_init__(self) -> None:
        check_placement(self.architecture, self.cluster, self.placement)

    @property
    def device(self) -> str:
        """Device id of the (slowest-listed first) node that serves."""
        return self.cluster.nodes[0].device


def check_placement(architecture: Architecture, cluster: Cluster, placement: Placement) -> None:
    """Raise `DeploymentError` with rule and remedy where an engine would refuse the placement."""
    for name in ("tp", "pp", "dp", "replicas"):
        if getattr(placement, name) < 1:
            raise DeploymentError(f"{name} is {getattr(placement, name)}; it must be at least 1")
    if placement.gpus > cluster.devices:
        raise DeploymentError(
            f"{placement} needs {placement.gpus} GPUs, the cluster has {cluster.devices}; "
            "lower tp, pp, dp or replicas, or raise --gpus"
        )
    if placement.pp > len(architecture.layers):
        raise DeploymentError(
            f"pp {placement.pp} exceeds the {len(architecture.layers)} layers of "
            f"{architecture.slug}; use pp up to {len(architecture.layers)}"
        )
    for layer in architecture.layers:
        _check_heads(architecture, layer.mixer, placement.tp)
    if placement.ep:
        _check_experts(architecture, placement)


def _check_heads(architecture: Architecture, mixer: object, tp: int) -> None:
    if not isinstance(mixer, GroupedQueryAttention | LatentAttention):
        return
    if mixer.num_heads % tp:
        raise DeploymentError(
            f"tp {tp} does not divide the {mixer.num_heads} attention heads of "
            f"{architecture.slug}; use tp {_divisors(mixer.num_heads)}"
        )
    kv = getattr(mixer, "num_kv_heads", None)
    if kv and max(kv, tp) % min(kv, tp):
        raise DeploymentError(
            f"tp {tp} neither divides nor is a multiple of the {kv} KV heads of "
            f"{architecture.slug}; use a divisor or multiple of {kv}"
        )


def _check_experts(architecture: Architecture, placement: Placement) -> None:
    ranks = placement.tp * placement.dp
    for layer in architecture.layers:
        if isinstance(layer.ffn, MoEFFN) and layer.ffn.num_experts < ranks:
            raise DeploymentError(
                f"expert parallelism over {ranks} ranks exceeds the {layer.ffn.num_experts} "
                f"experts of {architecture.slug}; use at most {layer.ffn.num_experts} ranks"
            )


def _divisors(n: int) -> str:
    small = [d for d in (1, 2, 4, 8, 16, 3, 5, 6) if n % d == 0]
    return ", ".join(str(d) for d in sorted(small))
