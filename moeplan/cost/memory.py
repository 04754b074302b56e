"""`MemoryMap`: what lies in the memory of a GPU, and whether a deployment fits.

    KV pool = memory × utilisation − weights − activations − workspaces − CUDA graphs

as vLLM's `gpu_worker.determine_available_memory` has it. The CUDA context and NCCL come before the
engine's first look at free memory, so they lie in the part that utilisation leaves. Input buffers
of the model runner are PyTorch's, but neither weights nor peak: vLLM takes them from nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from moeplan.cost.engine import ResolvedEngine
from moeplan.cost.engine_profile import second_runner, vllm_has
from moeplan.cost.kv_groups import kv_plan
from moeplan.cost.kv_layout import (
    KVCacheSpec,
    KVCapacity,
    decoding_blocks,
    kv_capacity,
    sequence_blocks,
)
from moeplan.cost.stage_memory import StageMemory, stage_memories
from moeplan.deployment import Deployment
from moeplan.errors import DoesNotFitError
from moeplan.hardware_specs.schema import Hardware

GIB = 2**30


@dataclass(frozen=True)
class MemoryMap:
    """Memory of one GPU of the tightest pipeline stage, bytes.

    requested = parts inside the request + KV pool + remainder
    total = requested + parts outside the request + outside
    """

    stage: int
    total: float
    """Memory that the engine sees."""
    requested: float
    """What the engine takes for the parts in `inside` and the KV pool."""
    usage: StageMemory
    inside: frozenset[str]
    """Parts that the engine counts into its request."""
    kv: KVCacheSpec
    kv_bytes_per_block: int
    state_bytes_per_sequence: int
    """Recurrent state of one sequence on this GPU, without padding."""
    capacity: KVCapacity
    """What the engine prints for `max_model_len`."""
    max_model_len: int

    @property
    def kv_pool(self) -> float:
        """Bytes of the KV pool, recurrent states included."""
        return float(self.kv.num_blocks * self.kv_bytes_per_block)

    @property
    def remainder(self) -> float:
        """Requested bytes that nothing uses: less than a block, unless a setting fixes the pool."""
        return self.requested - _inside(self.usage, self.inside) - self.kv_pool

    @property
    def outside(self) -> float:
        """Bytes that stay free beside the request and what lies outside it."""
        beside = sum(size for name, size in self.usage.parts.items() if name not in self.inside)
        return self.total - self.requested - beside

    def sequences(self, length: int) -> int:
        """Sequences of `length` tokens that fit in the pool at once while they decode."""
        return (self.kv.num_blocks - 1) // decoding_blocks(self.kv, length)

    def to_dict(self) -> dict[str, Any]:
        """Everything in GiB (2^30 bytes), counts as they are."""
        sizes = {
            "total": self.total,
            "requested": self.requested,
            **self.usage.parts,
            "kv_pool": self.kv_pool,
            "remainder": self.remainder,
            "outside": self.outside,
        }
        return {
            "stage": self.stage,
            **{f"{name}_gib": gib(size) for name, size in sizes.items()},
            "weights_by_component_gib": {k: gib(v) for k, v in self.usage.weights.items()},
            "state_gib_per_sequence": gib(self.state_bytes_per_sequence),
            "kv_blocks": self.kv.num_blocks,
            "kv_block_tokens": self.kv.block_size,
            "kv_tokens": self.capacity.tokens,
            "max_concurrency": self.capacity.max_concurrency,
            "max_model_len": self.max_model_len,
        }


def gib(nbytes: float) -> float:
    """Bytes in GiB."""
    return nbytes / GIB


def memory_map(deployment: Deployment, hardware: Hardware, engine: ResolvedEngine) -> MemoryMap:
    """Lay out the memory of one replica; the stage with the fewest KV blocks decides.

    Raises `DoesNotFitError` where weights, or the cache of one sequence of `max_model_len` tokens,
    exceed a GPU.
    """
    total = hardware.devices[deployment.device].memory.visible_gib.value * GIB
    plan = kv_plan(deployment, engine)
    inside = _parts_inside(deployment)
    stages = stage_memories(deployment, hardware, engine)
    requests = [_request(deployment, engine, stage, inside, total) for stage in stages]
    pools = [r - _inside(u, inside) for r, u in zip(requests, stages, strict=True)]
    tightest = min(range(len(stages)), key=lambda i: pools[i] / max(plan.bytes_per_block[i], 1))
    if pools[tightest] <= 0:
        raise _weights_error(deployment, stages[tightest], pools[tightest], requests[tightest])
    kv = plan.cache_spec(tuple(pools), engine, deployment.engine.num_gpu_blocks_override)
    block = plan.bytes_per_block[tightest]
    _check_sequence(deployment, engine, kv, block)
    found = MemoryMap(
        stage=tightest,
        total=total,
        requested=_settled(deployment, requests[tightest], pools[tightest], kv, block),
        usage=stages[tightest],
        inside=inside,
        kv=kv,
        kv_bytes_per_block=block,
        state_bytes_per_sequence=plan.state_bytes_per_sequence[tightest],
        capacity=kv_capacity(kv, engine.max_model_len),
        max_model_len=engine.max_model_len,
    )
    if found.outside < 0:
        raise DoesNotFitError(
            f"{deployment.architecture.slug} on {deployment.device}: the engine's share of memory "
            f"leaves {gib(-found.outside):.2f} GiB too little for the CUDA context; lower "
            "gpu_memory_utilization or the KV pool",
            gib(-found.outside),
        )
    return found


def _inside(usage: StageMemory, inside: frozenset[str]) -> float:
    return sum(size for name, size in usage.parts.items() if name in inside)


def _parts_inside(deployment: Deployment) -> frozenset[str]:
    """Parts that the engine's memory share has to hold beside the KV pool.

    vLLM takes its first look at free memory after context and communicators exist. SGLang's
    `mem_fraction_static` covers weights and KV pool, with activations and graphs beside it.
    TensorRT-LLM profiles a forward pass and shares out what is free.
    """
    engine = deployment.engine.engine
    if engine == "sglang":
        return frozenset({"weights", "workspaces", "context"})
    if engine == "trtllm":
        return frozenset({"weights", "activations", "workspaces", "context", "cuda_graphs"})
    counted = {"weights", "activations", "workspaces"}
    if _counts_graphs(deployment):
        counted.add("cuda_graphs")
    return frozenset(counted)


def _counts_graphs(deployment: Deployment) -> bool:
    """Whether vLLM estimates its graphs before it sizes the pool.

    The second model runner did not when it began (`v1/worker/gpu/model_runner.py` of 0.24).
    """
    settings = deployment.engine
    early = not vllm_has(settings, "asynchronous pipeline")
    if early and second_runner(settings, deployment.architecture.model_type):
        return False
    return vllm_has(settings, "graphs inside the memory budget")


def _request(
    deployment: Deployment,
    engine: ResolvedEngine,
    usage: StageMemory,
    inside: frozenset[str],
    total: float,
) -> float:
    """Bytes that the engine takes on one GPU."""
    used = _inside(usage, inside)
    if deployment.engine.kv_cache_memory_bytes is not None:
        return used + deployment.engine.kv_cache_memory_bytes
    share = engine.gpu_memory_utilization
    if engine.engine == "trtllm":  # its fraction is of the memory that is free after loading
        return used + share * max(total - used, 0.0)
    return math.ceil(total * share)


def _settled(
    deployment: Deployment, request: float, pool: float, kv: KVCacheSpec, block: int
) -> float:
    """The request once a fixed number of blocks replaces the pool that memory would give."""
    if deployment.engine.num_gpu_blocks_override is None:
        return request
    return request - pool + kv.num_blocks * block


def _weights_error(
    deployment: Deployment, usage: StageMemory, pool: float, request: float
) -> DoesNotFitError:
    missing = gib(-pool)
    return DoesNotFitError(
        f"{deployment.architecture.slug} {deployment.checkpoint.name} with {deployment.placement} "
        f"on {deployment.device}: {gib(usage.parts['weights']):.1f} GiB of weights and "
        f"{gib(usage.activations + usage.workspaces + usage.cuda_graphs):.1f} GiB of buffers a GPU "
        f"exceed the {gib(request):.1f} GiB that the engine may use by {missing:.1f} GiB; "
        "use more GPUs or a smaller checkpoint",
        missing,
    )


def _check_sequence(
    deployment: Deployment, engine: ResolvedEngine, kv: KVCacheSpec, block: int
) -> None:
    """One sequence of `max_model_len` tokens must fit in the pool (vLLM refuses to start)."""
    needed = sequence_blocks(kv, engine.max_model_len)
    if needed <= kv.num_blocks:
        return
    missing = gib((needed - kv.num_blocks) * block)
    raise DoesNotFitError(
        f"{deployment.architecture.slug} on {deployment.device}: one sequence of "
        f"{engine.max_model_len} tokens needs {gib(needed * block):.1f} GiB of KV cache a GPU, "
        f"{missing:.1f} GiB more than there is; use a max_model_len of at most "
        f"{_longest(kv, engine.max_model_len)}, --kv fp8 or more GPUs",
        missing,
    )


def _longest(kv: KVCacheSpec, limit: int) -> int:
    """Longest sequence that the pool holds, 0 where not even one token fits."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        if sequence_blocks(kv, middle) <= kv.num_blocks:
            low = middle
        else:
            high = middle - 1
    return low
