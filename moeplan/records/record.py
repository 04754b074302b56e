"""`RunRecord`: one serving run, measured or simulated, with everything needed to repeat it.

Null, or a missing key, means that the source does not say. Units stand in the names; GB is 10^9,
GiB is 2^30 bytes.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from moeplan.errors import RecordError

Count = Annotated[int, Field(ge=1, strict=True)]
CountOrZero = Annotated[int, Field(ge=0, strict=True)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Text = Annotated[str, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]

STATISTICS = ("mean", "p50", "p90", "p99")
LATENCY_METRICS = ("ttft_ms", "tpot_ms", "itl_ms", "e2e_s")

_METRIC_NAME = re.compile(r"[a-z][a-z0-9_]*")


class Part(BaseModel):
    """Unknown keys are errors, so that a misspelt field does not pass for an unsaid one."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(Part):
    """Where a reader finds the figures."""

    title: Text
    repo_or_site: Text | None = None
    path: Text | None = None
    date: Text | None = None
    """ISO date, or its leading part (2025-10); None where the source has none."""

    @field_validator("date")
    @classmethod
    def _is_a_date(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"\d{4}(-\d{2}){0,2}", value):
            raise ValueError("must be YYYY, YYYY-MM or YYYY-MM-DD")
        return value


class Engine(Part):
    """The serving engine as the source names it."""

    name: Literal["vllm", "sglang", "trtllm"]
    version: Text | None = None
    flags: list[Text] = []


class Settings(Part):
    """What the flags say, under vLLM's own option names."""

    max_num_seqs: Count | None = None
    max_num_batched_tokens: Count | None = None
    max_model_len: Count | None = None
    gpu_memory_utilization: Annotated[Positive, Field(le=1)] | None = None
    kv_cache_memory_bytes: Count | None = None
    num_gpu_blocks_override: Count | None = None
    block_size: Count | None = None
    enable_prefix_caching: Flag | None = None
    async_scheduling: Flag | None = None
    enforce_eager: Flag | None = None
    cudagraph_capture_sizes: tuple[Count, ...] | None = None
    """Token counts that graphs are captured for, rising."""
    mixed_prefill: Flag | None = None
    """False: steps carry either prefill or decode."""
    long_prefill_token_threshold: CountOrZero | None = None
    watermark: NonNegative | None = None
    quantization: Text | None = None
    mxfp4_layers: Text | None = None
    """Comma-separated components that a patched vLLM re-quantises to MXFP4 at load."""
    kernel_hints: list[Text] = []
    """Kernel family words found in the flags."""


ENGINE_OPTIONS = tuple(
    name
    for name in Settings.model_fields
    if name not in ("quantization", "mxfp4_layers", "kernel_hints")
)
"""Settings that deployments and scenarios know by the same name."""


class Disaggregation(Part):
    """GPUs of the prefill and of the decode servers."""

    prefill_gpus: Count | None = None
    decode_gpus: Count | None = None


class Parallelism(Part):
    """How the model was spread; the product need not name every GPU of the machine."""

    tp: Count | None = 1
    pp: Count | None = 1
    dp: Count | None = 1
    ep: Count | None = 1
    replicas: Count = 1
    router: Text | None = None
    dp_attention: Flag | None = None
    disagg: Disaggregation | None = None


class ClientProtocol(Part):
    """What the load generator sent. `input_tokens` and `output_tokens` are nominal lengths."""

    mode: Literal["closed_loop", "open_loop", "single_stream", "offline"]
    input_tokens: Positive
    output_tokens: Positive
    mean_input_tokens: Positive | None = None
    """Real mean where the source gives one."""
    mean_output_tokens: Positive | None = None
    length_distribution: Text | None = None
    length_range: tuple[NonNegative, NonNegative] | None = None
    """Low and high as fractions of the nominal length."""
    concurrency: Count | None = None
    request_rate: Positive | Literal["inf"] | None = None
    """Requests a second; "inf" sends all at once."""
    burstiness: Positive | None = None
    """Shape of gamma gaps between arrivals; 1 is Poisson."""
    num_prompts: Count | None = None
    prefix_hit_tokens: CountOrZero | None = None
    context_depth_tokens: CountOrZero | None = None
    shared_prefix_tokens: CountOrZero | None = None
    prefix_groups: Count | None = None
    prompts_per_prefix: Count | None = None
    routing: Literal["uniform", "random", "default", "chat", "domain"] | None = None
    """Preset of expert popularity, where the run controlled or checked it."""

    @field_validator("length_range")
    @classmethod
    def _low_before_high(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and value[0] > value[1]:
            raise ValueError("low exceeds high")
        return value


class Speculative(Part):
    """Speculative decoding."""

    method: Text
    draft_tokens: Count | None = None
    mean_accepted_length: Positive | None = None


class RoutingCheck(Part):
    """Experts that a run really touched; without one an MoE figure above batch 1 is no evidence."""

    method: Text
    """How the router was given a known distribution."""
    batch_tokens: Count
    distinct_experts_mean: Positive
    """Mean over layers of the distinct experts that a step of `batch_tokens` touched."""
    expected_distinct_experts: Positive
    sigma: NonNegative | None = None
    """Spread of lognormal popularity that explains the experts touched."""


class EngineFacts(Part):
    """What a launched engine said of itself."""

    version: Text | None = None
    weights_gib: Positive | None = None
    kv_cache_gib: Positive | None = None
    kv_cache_tokens: Count | None = None
    num_gpu_blocks: Count | None = None
    cuda_graph_gib: NonNegative | None = None
    cuda_graph_sizes: list[Count] = []
    attention_backend: Text | None = None
    moe_backend: Text | None = None
    linear_backend: Text | None = None
    all_reduce_backend: Text | None = None
    async_scheduling: Flag | None = None
    load_s: NonNegative | None = None
    compile_s: NonNegative | None = None
    capture_s: NonNegative | None = None
    routing: RoutingCheck | None = None
    other: dict[str, Any] = {}


class RunRecord(Part):
    """One serving run: setup, client protocol and outcome."""

    id: Annotated[str, Field(strict=True, min_length=1)]
    origin: Literal["measured", "simulated"] = "measured"
    source: Source
    engine: Engine
    settings: Settings = Settings()
    tool: Text | None = None
    """What measured; it decides what the metrics mean."""
    model: Text
    architecture: Text | None = None
    """Slug in the catalogue."""
    weight_format: Text | None = None
    kv_cache_format: Text | None = None
    hardware: Text | None = None
    """Device id."""
    gpus: Count | None = None
    nodes: Count | None = None
    interconnect: Text | None = None
    parallelism: Parallelism = Parallelism()
    workload: ClientProtocol
    speculative: Speculative | None = None
    measured: dict[str, NonNegative]
    """Outcome by metric name; the names that are not known are kept and never compared."""
    engine_facts: EngineFacts | None = None
    assumed: list[Text] = []
    """Fields that were filled in because the source does not say them."""
    notes: Text | None = None

    @field_validator("measured")
    @classmethod
    def _names_are_words(cls, value: dict[str, float]) -> dict[str, float]:
        for name in value:
            if not _METRIC_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no metric name (lower case, digits, _)")
        return value


def parse_record(text: str | bytes, where: str) -> RunRecord:
    """One JSON object as a record; `where` ("runs.jsonl:12") opens the error text.

    Raises `RecordError` naming every field that is wrong.
    """
    try:
        return RunRecord.model_validate_json(text)
    except ValidationError as error:
        raise RecordError(f"{where}: {describe(error)}") from None


def describe(error: ValidationError) -> str:
    """Field, given value and rule of the first three faults of a validation, on one line."""
    faults = [_fault(item) for item in error.errors(include_url=False)]
    more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
    return "; ".join(faults[:3]) + more


def _fault(item: Any) -> str:
    field = ".".join(str(part) for part in item["loc"]) or "line"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] in ("missing", "json_invalid"):
        return f"{field}: {message}"
    return f"{field}: {message}, given {_short(item['input'])}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
