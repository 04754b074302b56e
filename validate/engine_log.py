"""What vLLM says of itself while it starts, read from its log.

Wordings of 0.24 to 0.33 are known (vllm/v1/worker/gpu_worker.py, gpu_model_runner.py,
v1/core/kv_cache_utils.py, platforms/*.py, model_executor/layers/fused_moe/oracle/*.py); those of
another version that no longer match are listed as unread, never an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class LogFacts:
    """Facts of one engine start; None (or empty) where the log does not tell.

    GiB is 2^30 bytes. With several ranks, memory is that of the rank that has least left.
    """

    version: str | None = None
    model: str | None = None
    architecture: str | None = None
    weights_gib: float | None = None
    load_seconds: float | None = None
    kv_cache_gib: float | None = None
    kv_cache_tokens: int | None = None
    max_model_len: int | None = None
    max_concurrency: float | None = None
    """Requests of `max_model_len` that the KV cache holds at once."""
    cuda_graph_gib: float | None = None
    cuda_graph_seconds: float | None = None
    cuda_graph_sizes: tuple[int, ...] = ()
    """Captured token counts; empty under --enforce-eager."""
    cuda_graph_mode: str | None = None
    enforce_eager: bool | None = None
    compile_seconds: float | None = None
    init_seconds: float | None = None
    """Profiling, KV cache creation and warm-up."""
    attention_backend: str | None = None
    flash_attention_version: int | None = None
    mla_prefill_backend: str | None = None
    moe_backend: str | None = None
    linear_backend: str | None = None
    all_reduce_backends: tuple[str, ...] = ()
    """In dispatch order; empty on one GPU."""
    async_scheduling: bool | None = None
    block_size: int | None = None
    """Tokens a block where the engine raised it (hybrids); None leaves the back end's default."""
    mamba_padding_percent: float | None = None
    max_num_batched_tokens: int | None = None
    kv_cache_dtype: str | None = None
    quantization: str | None = None
    tensor_parallel_size: int | None = None
    tuned_moe_config: bool | None = None
    """False: the engine warned that it has no tuned Triton configuration for these experts."""
    not_default: str | None = None
    """The options given, as the engine printed them."""
    unread: tuple[str, ...] = field(default=())
    """Facts of every start that this log's wording did not yield."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return asdict(self)


_Reader = Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class _Rule:
    patterns: tuple[str, ...]
    read: _Reader
    combine: Callable[[list[Any]], Any] = lambda found: found[-1]
    expected: bool = False
    """Every start of a known version prints it."""


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def _whole(text: str) -> int:
    return int(text.replace(",", ""))


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip(" '\"") for part in text.split(",") if part.strip(" '\""))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(sorted(int(part) for part in text.split(",") if part.strip()))


def _truth(text: str) -> bool:
    return text.lower() in ("true", "enabled")


def _first(found: list[Any]) -> Any:
    return found[0]


_RULES: dict[str, _Rule] = {
    "version": _Rule(
        (r"LLM engine \(v([^)\s]+)\)", r"API server version (\S+)", r"█\s+version (\S+)"),
        str,
        expected=True,
    ),
    "model": _Rule((r"with config: model='([^']+)'",), str, expected=True),
    "architecture": _Rule((r"Resolved architecture: (\w+)",), str, _first, expected=True),
    "weights_gib": _Rule((r"Model loading took ([\d.]+) ?GiB",), _number, max, expected=True),
    "load_seconds": _Rule(
        (r"Model loading took [\d.]+ ?GiB(?: memory)? and ([\d.]+) seconds",), _number, max
    ),
    "kv_cache_gib": _Rule(
        (r"Available KV cache memory: ([\d.]+) GiB", r"Explicitly set \(([\d.]+)/"),
        _number,
        min,
        expected=True,
    ),
    "kv_cache_tokens": _Rule((r"KV cache size: ([\d,]+) tokens",), _whole, min, expected=True),
    "max_model_len": _Rule((r"Using max model len (\d+)", r"max_seq_len=(\d+)"), _whole),
    "max_concurrency": _Rule(
        (r"Maximum concurrency for [\d,]+ tokens per request: ([\d.]+)x",),
        _number,
        min,
        expected=True,
    ),
    "cuda_graph_gib": _Rule((r"Graph capturing finished .*took ([\d.-]+) GiB",), _number, max),
    "cuda_graph_seconds": _Rule((r"Graph capturing finished in (\d+) secs",), _number, max),
    "cuda_graph_sizes": _Rule((r"'cudagraph_capture_sizes': \[([\d, ]*)\]",), _numbers, _first),
    "cuda_graph_mode": _Rule((r"'cudagraph_mode': <CUDAGraphMode\.(\w+)",), str, _first),
    "enforce_eager": _Rule((r"enforce_eager=(True|False)",), _truth, _first, expected=True),
    "compile_seconds": _Rule(
        (
            r"torch\.compile (?:and initial profiling run )?took ([\d.]+) s",
            r"torch\.compile takes ([\d.]+) s",
        ),
        _number,
        max,
    ),
    "init_seconds": _Rule((r"init engine \([^)]*\) took ([\d.]+) s",), _number, max, expected=True),
    "attention_backend": _Rule(
        (
            r"Using (?:AttentionBackendEnum\.)?(\w+) attention backend",
            r"Using (?:AttentionBackendEnum\.)?([A-Z][A-Z_0-9]+) backend",
            r"Using (Flash Attention|FlashInfer|Triton) backend",
        ),
        str,
    ),
    "moe_backend": _Rule(
        (
            r"Using '?([\w-]+)'? \w+ MoE backend",
            r"Using (\w+) (?:backend )?for \w+ MoE",
            r"Using (\w+) MoE backend",
        ),
        str,
        _first,
    ),
    "linear_backend": _Rule(
        (r"Selected (\w+) for \w*Linear", r"Using (\w+) for \w*LinearMethod"), str, _first
    ),
    "flash_attention_version": _Rule((r"Using FlashAttention version (\d)",), int),
    "mla_prefill_backend": _Rule(
        (r"Using (\w+) MLA prefill backend", r"Using (.*) for MLA prefill"), str
    ),
    "all_reduce_backends": _Rule((r"Using \[([^\]]*)\] all-reduce backends",), _names, _first),
    "async_scheduling": _Rule((r"Asynchronous scheduling is (enabled|disabled)",), _truth, _first),
    "block_size": _Rule((r"Setting attention block size to (\d+) tokens",), _whole),
    "mamba_padding_percent": _Rule((r"Padding mamba page size by ([\d.]+)%",), _number),
    "max_num_batched_tokens": _Rule(
        (r"Chunked prefill is enabled with max_num_batched_tokens=(\d+)",), _whole, _first
    ),
    "kv_cache_dtype": _Rule((r"kv_cache_dtype=([\w.]+)",), str, _first),
    "quantization": _Rule((r"[ ,]quantization=([\w.-]+)",), str, _first),
    "tensor_parallel_size": _Rule((r"tensor_parallel_size=(\d+)",), _whole, _first),
    "tuned_moe_config": _Rule((r"(Using default MoE config)",), lambda _found: False, _first),
    "not_default": _Rule((r"non-default args: (\{.*\})",), str, _first),
}

_JIT = re.compile(
    # vllm/utils/jit_monitor.py; "activated; monitored JIT compilations" there is no compilation.
    r"(?:JIT compilation|autotun\w*)\b[^;]* during inference:|"
    r"Autotuning process starts|Compiling a graph for",
    re.IGNORECASE,
)


def read_engine_log(log: str) -> LogFacts:
    """Facts that the log tells; those of every start that could not be read are in `unread`."""
    found: dict[str, Any] = {}
    for name, rule in _RULES.items():
        value = _apply(rule, log)
        if value is not None:
            found[name] = value
    missing = [name for name, rule in _RULES.items() if rule.expected and name not in found]
    return LogFacts(**found, unread=tuple(missing))


def _apply(rule: _Rule, log: str) -> Any | None:
    for pattern in rule.patterns:
        matches = re.findall(pattern, log)
        if matches:
            return rule.combine([rule.read(match) for match in matches])
    return None


def facts_from_dict(values: dict[str, Any]) -> LogFacts:
    """Facts read back from a JSON file; keys of another version of moeplan are dropped."""
    known = {entry.name for entry in fields(LogFacts)}
    kept = {
        key: tuple(v) if isinstance(v, list) else v for key, v in values.items() if key in known
    }
    return LogFacts(**kept)


def compiled_kernels(log: str) -> list[str]:
    """Lines that say a kernel was compiled or tuned: what must not happen while one measures."""
    return [line.strip() for line in log.splitlines() if _JIT.search(line)]
