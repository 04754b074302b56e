"""What a file in `engines/` may say: defaults and host times of an engine over a version range."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from moeplan.hardware_specs.provenance import NonNegative, Provenance, Strict


class BatchDefault(Strict):
    """Default token budget and running limit from some memory size on."""

    min_memory_gib: float
    max_num_batched_tokens: int
    max_num_seqs: int
    except_devices: list[str] = Field(default_factory=list)


class HostOverhead(Provenance):
    """Host time of one engine."""

    step_us: NonNegative
    """Scheduling and launch, a step."""
    step_us_per_sequence: NonNegative
    stream_us_per_token: NonNegative
    """What one API-server process spends on a streamed token."""
    ttft_us: NonNegative
    """HTTP, tokenizer, detokenizer and client, once a request."""
    exposed_us_per_sequence: NonNegative = 0.0
    """Sampling and token hand-over of one sequence that no overlap hides, a step."""
    launch_us: NonNegative
    """One plain kernel launch through PyTorch outside a CUDA graph."""
    request_us: NonNegative = 0.0
    """One turn of a request in an event loop, of the client or the API server: what others of a
    burst wait for. Each takes three (moeplan/simulation/front_end.py)."""
    prompt_token_us: NonNegative = 0.0
    """What a prompt takes outside of the engine's steps for each of its tokens."""


class HostOverride(Provenance):
    """Host times that differ on some devices; None keeps those of the profile."""

    devices: list[str]
    step_us: NonNegative | None = None
    step_us_per_sequence: NonNegative | None = None
    stream_us_per_token: NonNegative | None = None
    ttft_us: NonNegative | None = None
    launch_us: NonNegative | None = None


class EngineProfile(Strict):
    """Defaults and host costs of one engine over a range of versions."""

    engine: Literal["vllm", "sglang", "trtllm"]
    min_version: str
    max_version: str
    """Half open: min <= version < max."""
    gpu_memory_utilization: float
    gpu_memory_utilization_unified: float
    block_size: int
    async_scheduling: bool
    prefix_caching: bool
    prefix_caching_hybrid: bool
    mixed_prefill: bool
    """Whether prefill chunks and decodes share a step."""
    batch_defaults: list[BatchDefault]
    cuda_graph_max_tokens: int
    cuda_graph_max_tokens_by_capability: dict[str, int] = Field(default_factory=dict)
    """Compute capability → largest captured graph where it is not `cuda_graph_max_tokens`."""
    host: HostOverhead
    host_overrides: list[HostOverride] = Field(default_factory=list)
    source: str

    def cuda_graph_tokens_on(self, compute_capability: str) -> int:
        """Ceiling of the captured CUDA-graph sizes, in tokens, on one GPU generation."""
        sizes = self.cuda_graph_max_tokens_by_capability
        return sizes.get(compute_capability, self.cuda_graph_max_tokens)

    def host_on(self, device_id: str) -> HostOverhead:
        """Host times on one device: those of the profile unless an override names the device."""
        for override in self.host_overrides:
            if device_id in override.devices:
                own = override.model_dump(exclude={"devices"}, exclude_none=True)
                return self.host.model_copy(update=own)
        return self.host
