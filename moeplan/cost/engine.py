"""`ResolvedEngine`: every engine option with a value, and why it has that value.

vLLM's rules are those of its `engine/arg_utils.py` (batch defaults) and `config/vllm.py`
(CUDA-graph sizes, batches in flight).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from types import MappingProxyType

from moeplan.cost.attention_backend import AttentionBackend, attention_backend
from moeplan.cost.cuda_graphs import capture_sizes
from moeplan.cost.engine_profile import IN_FLIGHT_BATCHES, capability, find_profile, vllm_has
from moeplan.deployment import Deployment, EngineSettings
from moeplan.errors import DeploymentError
from moeplan.hardware_specs.schema import Device, EngineProfile, Hardware, HostOverhead
from moeplan.speculation import Speculation

MODEL_LEN_STEP = 16
"""`max_model_len` that nobody sets is the workload's longest sequence, rounded up to this."""
SHARED_STREAM_TOKENS = 256
"""Tokens up to which vLLM runs shared experts on a second stream
(`VLLM_SHARED_EXPERTS_STREAM_TOKEN_THRESHOLD`)."""
UNIFIED_UTILIZATION_LIMIT = 0.85
"""Above it GB10 swaps or locks up (pulsar-gb10-vllm-stack docs/TUNING.md)."""


@dataclass(frozen=True, slots=True)
class ResolvedEngine:
    """Engine options of one deployment after all defaults; `reasons` names why, by option."""

    engine: str
    version: str
    max_num_batched_tokens: int
    max_num_seqs: int
    max_model_len: int
    gpu_memory_utilization: float
    block_size: int
    """Tokens a block that the attention backend wants; hybrid models enlarge it (`KVCacheSpec`)."""
    kv_format: str
    """"bf16" or "fp8"."""
    attention: AttentionBackend
    prefix_caching: bool
    async_scheduling: bool
    mixed_prefill: bool
    enforce_eager: bool
    max_concurrent_batches: int
    """Steps that are scheduled before the result of the oldest is known."""
    max_in_flight_tokens: int
    """Tokens for which a windowed KV group keeps room beyond its window."""
    frees_in_flight: bool
    """Whether windows pass tokens whose step still runs (vLLM until pull request 47728)."""
    cuda_graph_sizes: tuple[int, ...]
    """Token counts with a captured graph, rising; empty without graphs."""
    routes_padding: bool
    """Whether the rows that pad a batch to its graph are routed to experts too."""
    host: HostOverhead
    speculation: Speculation | None
    shared_beside_tokens: int
    """Tokens up to which shared experts run on a stream of their own; 0 where they never do."""
    reasons: MappingProxyType[str, str]

    @property
    def tokens_a_decode(self) -> int:
        """Tokens that a step computes for a decoding sequence: its drafts and one more."""
        return self.speculation.tokens_a_step if self.speculation else 1

    def padded_tokens(self, tokens: int) -> int:
        """Tokens that the GPU computes for a batch of `tokens`: the next captured size.

        Above the largest size, and without graphs, batches run unpadded.
        """
        index = bisect_left(self.cuda_graph_sizes, tokens)
        return self.cuda_graph_sizes[index] if index < len(self.cuda_graph_sizes) else tokens

    @property
    def piecewise_graphs(self) -> bool:
        """Whether steps with prefill run in graphs too, all but their attention (vLLM)."""
        return self.engine == "vllm" and bool(self.cuda_graph_sizes)

    @property
    def cuda_graph_max_tokens(self) -> int:
        """Largest batch that runs as a graph; 0 without graphs."""
        return self.cuda_graph_sizes[-1] if self.cuda_graph_sizes else 0


def resolve_engine(
    deployment: Deployment, hardware: Hardware, max_sequence_tokens: int
) -> ResolvedEngine:
    """Give every engine option its value; `max_sequence_tokens` is the longest input + output.

    Raises `DeploymentError` where a value is out of range or the engine would refuse the mix.
    """
    settings, device = deployment.engine, hardware.devices[deployment.device]
    _check_ranges(settings)
    profile, profile_why = find_profile(settings, hardware)
    reasons = {"profile": profile_why}
    model_len = _model_len(deployment, max_sequence_tokens, reasons)
    tokens, seqs = _batch_limits(settings, profile, device, model_len, reasons)
    kv_format, attention = _kv_format(deployment, device, reasons)
    asynchronous = _asynchronous(settings, profile, reasons)
    _check_speculation(deployment, reasons)
    batches = _concurrent_batches(settings, deployment.placement.pp, asynchronous)
    return ResolvedEngine(
        engine=settings.engine,
        version=settings.version,
        max_num_batched_tokens=tokens,
        max_num_seqs=seqs,
        max_model_len=model_len,
        gpu_memory_utilization=_utilization(settings, profile, device, reasons),
        block_size=_block_size(settings, profile, attention, reasons),
        kv_format=kv_format,
        attention=attention,
        prefix_caching=_prefix_caching(deployment, profile, reasons),
        async_scheduling=asynchronous,
        mixed_prefill=_choose(
            "mixed_prefill", settings.mixed_prefill, profile.mixed_prefill, reasons
        ),
        enforce_eager=settings.enforce_eager,
        max_concurrent_batches=batches,
        max_in_flight_tokens=tokens * (batches if vllm_has(settings, IN_FLIGHT_BATCHES) else 1),
        frees_in_flight=settings.engine == "vllm" and not vllm_has(settings, IN_FLIGHT_BATCHES),
        cuda_graph_sizes=_graph_sizes(settings, profile, device, tokens, seqs, reasons),
        routes_padding=settings.engine == "vllm" and not vllm_has(settings, "experts skip padding"),
        host=profile.host_on(device.id),
        speculation=settings.speculation,
        shared_beside_tokens=_shared_beside(settings),
        reasons=MappingProxyType(reasons),
    )


_AT_LEAST_ONE = (
    "max_num_batched_tokens",
    "max_num_seqs",
    "max_model_len",
    "kv_cache_memory_bytes",
    "num_gpu_blocks_override",
    "block_size",
)


def _check_ranges(settings: EngineSettings) -> None:
    for name in _AT_LEAST_ONE:
        value = getattr(settings, name)
        if value is not None and (not math.isfinite(value) or value < 1 or value != int(value)):
            raise DeploymentError(f"{name} is {value}; it must be a whole number from 1 on")
    share = settings.gpu_memory_utilization
    if share is not None and not 0 < share <= 1:
        raise DeploymentError(f"gpu_memory_utilization is {share}; it must be above 0, at most 1")
    if not 0 <= settings.watermark < 1:
        raise DeploymentError(f"watermark is {settings.watermark}; it must be from 0 to below 1")


def _choose(name: str, given: bool | None, default: bool, reasons: dict[str, str]) -> bool:
    reasons[name] = "engine default" if given is None else "set by the user"
    return default if given is None else given


def _shared_beside(settings: EngineSettings) -> int:
    beside = vllm_has(settings, "shared experts beside the routed ones")
    return SHARED_STREAM_TOKENS if beside else 0


def _asynchronous(
    settings: EngineSettings, profile: EngineProfile, reasons: dict[str, str]
) -> bool:
    """vLLM's first model runner drafts n-grams on the host, which nothing can overlap."""
    drafts = settings.speculation
    late = settings.engine == "vllm" and not vllm_has(settings, "n-grams drafted beside the step")
    if drafts is not None and drafts.method == "ngram" and late:
        reasons["async_scheduling"] = f"off with n-gram drafts in vLLM {settings.version}"
        return False
    return _choose("async_scheduling", settings.async_scheduling, profile.async_scheduling, reasons)


def _check_speculation(deployment: Deployment, reasons: dict[str, str]) -> None:
    if deployment.engine.speculation is None:
        reasons["speculation"] = "engine default"
        return
    reasons["speculation"] = "set by the user"
    if deployment.placement.pp > 1:
        raise DeploymentError(
            f"pp {deployment.placement.pp} with speculative decoding is not modelled; use --pp 1 "
            "or leave --speculative-method out"
        )


def _model_len(deployment: Deployment, longest: int, reasons: dict[str, str]) -> int:
    given = deployment.engine.max_model_len
    limit = deployment.architecture.max_position_embeddings
    if longest < 1:
        raise DeploymentError(f"the longest sequence is {longest} tokens; it must be at least 1")
    if given is not None and given < longest:
        raise DeploymentError(
            f"max_model_len {given} is shorter than the longest sequence, {longest} tokens; "
            f"raise it to {longest} or shorten the workload"
        )
    if max(given or 0, longest) > limit:
        raise DeploymentError(
            f"{max(given or 0, longest)} tokens exceed the {limit} positions of "
            f"{deployment.architecture.slug}; use at most {limit}"
        )
    reasons["max_model_len"] = "set by the user" if given else "longest input + output, rounded up"
    return given or min(limit, math.ceil(longest / MODEL_LEN_STEP) * MODEL_LEN_STEP)


def _batch_limits(
    settings: EngineSettings,
    profile: EngineProfile,
    device: Device,
    model_len: int,
    reasons: dict[str, str],
) -> tuple[int, int]:
    memory = device.memory.visible_gib.value
    fitting = [
        d
        for d in profile.batch_defaults
        if d.min_memory_gib <= memory and device.id not in d.except_devices
    ]
    if not fitting:
        raise DeploymentError(f"{profile.engine} has no batch default for {device.id}")
    default = max(fitting, key=lambda d: d.min_memory_gib)
    why = f"engine default for {device.id} ({memory:.0f} GiB)"
    tokens, seqs = settings.max_num_batched_tokens, settings.max_num_seqs
    reasons["max_num_batched_tokens"] = "set by the user" if tokens else why
    reasons["max_num_seqs"] = "set by the user" if seqs else why
    wanted_seqs = seqs or default.max_num_seqs
    tokens = tokens or min(default.max_num_batched_tokens, wanted_seqs * model_len)
    seqs = seqs or min(wanted_seqs, tokens)
    if tokens < seqs:
        raise DeploymentError(
            f"max_num_batched_tokens {tokens} is below max_num_seqs {seqs}; "
            f"raise the first to {seqs} or lower the second to {tokens}"
        )
    return tokens, seqs


def _kv_format(
    deployment: Deployment, device: Device, reasons: dict[str, str]
) -> tuple[str, AttentionBackend]:
    given = deployment.engine.kv_cache_dtype
    automatic = given == "auto"
    kv_format = deployment.checkpoint.kv_format if automatic else given
    reasons["kv_cache_dtype"] = (
        f"the checkpoint {deployment.checkpoint.name} asks for it"
        if automatic
        else "set by the user"
    )
    backend = attention_backend(deployment.architecture, capability(device), kv_format)
    reasons["attention"] = backend.reason
    return kv_format, backend


def _utilization(
    settings: EngineSettings, profile: EngineProfile, device: Device, reasons: dict[str, str]
) -> float:
    given = settings.gpu_memory_utilization
    unified = device.memory.unified
    reasons["gpu_memory_utilization"] = (
        "set by the user"
        if given
        else "memory is shared with the CPU"
        if unified
        else "engine default"
    )
    if given and unified and given > UNIFIED_UTILIZATION_LIMIT:
        reasons["gpu_memory_utilization"] += (
            f"; above {UNIFIED_UTILIZATION_LIMIT} {device.id} may swap"
        )
    if given:
        return given
    return profile.gpu_memory_utilization_unified if unified else profile.gpu_memory_utilization


def _block_size(
    settings: EngineSettings,
    profile: EngineProfile,
    attention: AttentionBackend,
    reasons: dict[str, str],
) -> int:
    if settings.block_size:
        reasons["block_size"] = "set by the user"
        return settings.block_size
    needed = attention.block_size
    raised = profile.engine == "vllm" and needed > profile.block_size
    reasons["block_size"] = f"{attention.name} needs it" if raised else "engine default"
    return needed if raised else profile.block_size


def _prefix_caching(
    deployment: Deployment, profile: EngineProfile, reasons: dict[str, str]
) -> bool:
    hybrid = deployment.architecture.is_hybrid
    default = profile.prefix_caching_hybrid if hybrid else profile.prefix_caching
    chosen = _choose("prefix_caching", deployment.engine.enable_prefix_caching, default, reasons)
    if hybrid and deployment.engine.enable_prefix_caching is None:
        reasons["prefix_caching"] += " for models with recurrent layers"
    return chosen


def _concurrent_batches(settings: EngineSettings, pp: int, asynchronous: bool) -> int:
    if not asynchronous:
        return pp
    if vllm_has(settings, "asynchronous pipeline"):
        return pp + 1
    return 2 if pp == 1 else pp  # the V1 runner overlaps only without a pipeline


def _graph_sizes(
    settings: EngineSettings,
    profile: EngineProfile,
    device: Device,
    tokens: int,
    seqs: int,
    reasons: dict[str, str],
) -> tuple[int, ...]:
    if settings.enforce_eager:
        reasons["cuda_graph_sizes"] = "enforce_eager: none"
        return ()
    if settings.cudagraph_capture_sizes:
        reasons["cuda_graph_sizes"] = "set by the user"
        return tuple(size for size in settings.cudagraph_capture_sizes if size <= tokens)
    ceiling = profile.cuda_graph_tokens_on(device.compute_capability)
    drafts = settings.speculation
    rows = seqs * (drafts.tokens_a_step if drafts else 1)
    top = min(2 * rows, ceiling, tokens)
    reasons["cuda_graph_sizes"] = f"engine default up to min(2 × {rows}, {ceiling}, {tokens})"
    captured = seqs if vllm_has(settings, "graph of max_num_seqs") else None
    return capture_sizes(top, tokens, captured)
