"""What a hardware file may say. Every figure carries a grade and a source.

Units stand in the field names. GB is 10^9 bytes, GiB is 2^30; TB/s is 10^12 bytes a second;
TFLOPS are dense (no sparsity), 2 operations a multiply-add.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, model_validator

from moeplan.hardware_specs.engine_profile import (
    BatchDefault,
    EngineProfile,
    HostOverhead,
    HostOverride,
)
from moeplan.hardware_specs.provenance import (
    Curve,
    Figure,
    Grade,
    KVFormat,
    NonNegative,
    Positive,
    Provenance,
    Strict,
    WeightFormat,
)

__all__ = [
    "AllReduce",
    "AttentionDecode",
    "AttentionPrefill",
    "BatchDefault",
    "Compute",
    "Curve",
    "Device",
    "EngineProfile",
    "Fabric",
    "Figure",
    "Grade",
    "Hardware",
    "HostOverhead",
    "HostOverride",
    "KVFormat",
    "KernelSet",
    "Launches",
    "Linear",
    "Memory",
    "MoE",
    "NonNegative",
    "Positive",
    "Power",
    "Price",
    "Provenance",
    "RecurrentKernel",
    "SmallKernels",
    "Strict",
    "Uncertainty",
    "WeightFormat",
]


class Memory(Strict):
    """Capacity and bandwidth of device memory."""

    nominal_gb: Figure
    visible_gib: Figure
    """What an engine sees (torch's total), GiB."""
    nominal_bandwidth_gb_per_s: Figure
    read_bandwidth_gb_per_s: Figure | None = None
    l2_mb: Figure | None = None
    unified: bool = False
    """Shared with the CPU, so that an engine may not take nearly all of it (GB10)."""


class Compute(Strict):
    """Dense peak rates."""

    bf16_tflops: Figure
    fp8_tflops: Figure | None = None
    fp4_tflops: Figure | None = None
    int8_tflops: Figure | None = None


class Power(Strict):
    """Watts of one device."""

    tdp_w: Figure
    decode_w: Figure | None = None
    prefill_w: Figure | None = None
    idle_w: Figure | None = None


class Device(Strict):
    """One kind of GPU."""

    id: str
    name: str
    aliases: list[str] = Field(default_factory=list)
    vendor: Literal["nvidia"] = "nvidia"
    compute_capability: str
    """For example "9.0"; decides which kernels an engine can pick."""
    memory: Memory
    compute: Compute
    power: Power
    intra_node_fabric: str
    """Fabric id between the devices of one node."""
    inter_node_fabric: str
    """Fabric id between nodes unless the user names another."""
    max_devices_per_node: int
    kernels_from: str | None = None
    """Device whose kernel tables serve here by analogy, None for its own."""
    note: str | None = None


class AllReduce(Provenance):
    """Seconds of one all-reduce by message size, for one number of ranks and one path."""

    gpus: int
    path: Literal["custom", "nccl"]
    """`custom` is vLLM's one-shot/two-shot kernel in a CUDA graph; `nccl` everything else."""
    devices: list[str] = Field(default_factory=list)
    """Devices that the table was measured on; empty: any device on this fabric."""
    max_bytes: float | None = None
    """Largest message that the engine sends down this path."""
    us_by_bytes: Curve
    scale: Positive = 1.0
    """Factor that `us_by_bytes` already contains; 1 as sourced, another value once recalibrated."""


class Fabric(Strict):
    """A link between devices or nodes."""

    id: str
    name: str
    aliases: list[str] = Field(default_factory=list)
    scope: Literal["intra-node", "inter-node"]
    bandwidth_gb_per_s: Figure
    """One direction, one device."""
    latency_us: Figure
    """One small point-to-point message."""
    peer_to_peer: bool
    all_reduce: list[AllReduce] = Field(default_factory=list)
    eager_floor_us: Figure | None = None
    """Extra time of one all-reduce outside a CUDA graph."""
    serving_extra_us: Figure | None = None
    """What one all-reduce takes longer inside a serving step than alone in a benchmark."""


class Linear(Provenance):
    """Dense GEMMs of one kernel family.

    seconds = floor + softmax3(bytes / bandwidth, FLOPs / (rate x min(1, d/4096)^shape_exponent))
    """

    family: str
    formats: list[WeightFormat]
    floor_us: NonNegative
    bandwidth_tb_per_s: Positive
    rate_tflops: Positive
    shape_exponent: NonNegative
    serving_rate_fraction: Positive = 1.0
    """What prefill reaches of `rate_tflops` inside a serving engine."""


class MoE(Provenance):
    """Fused routed experts of one kernel family, one layer.

    seconds = floor + per_expert x n + softmax3(n x bytes / bandwidth, FLOPs / rate), n distinct
    experts.
    """

    family: str
    formats: list[WeightFormat]
    floor_us: NonNegative
    per_expert_us: NonNegative
    bandwidth_tb_per_s: Positive
    rate_tflops: Positive
    """Fused-MoE TFLOPS at 1,024 tokens an expert."""
    serving_rate_fraction: Positive = 1.0
    block_tokens: Positive = 48.0
    """Largest number of padded rows an expert."""
    full_width: Positive = 1024.0
    """Intermediate width from which on a tensor-parallel cut costs no rate."""
    width_exponent: NonNegative = 0.4
    """rate x min(1, width / full_width)^width_exponent below it."""


class AttentionDecode(Provenance):
    """Decode attention of one family: max(floor, t0 + KV bytes / bandwidth), one layer."""

    family: str
    kv_formats: list[KVFormat]
    kind: Literal["gqa", "mla"]
    floor_us: NonNegative
    t0_us: NonNegative
    bandwidth_tb_per_s: Positive
    rate_tflops: Positive | None = None
    """MLA only: heads x latent products become compute-bound."""


class AttentionPrefill(Provenance):
    """Prefill attention of one family: TFLOPS by context length in tokens."""

    family: str
    kv_formats: list[KVFormat]
    tflops_by_context: Curve
    serving_rate_fraction: Positive = 1.0


class RecurrentKernel(Provenance):
    """Gated DeltaNet and Mamba-2, one layer.

    seconds = floor + 2 x state bytes x sequences / bandwidth + 2 x FLOPs x prefill tokens / rate
    """

    family: str
    floor_us: NonNegative
    bandwidth_tb_per_s: Positive
    rate_tflops: Positive


class SmallKernels(Provenance):
    """Norms, rope, KV writes and router glue that no table holds, seconds a layer."""

    decode_us_per_layer: NonNegative
    prefill_us_per_layer: NonNegative = 30.0
    """Added to every layer of a step that carries prefill."""


class Launches(Provenance):
    """Kernel launches that one part of a layer takes outside a CUDA graph."""

    part: str
    """What is launched: see `moeplan/cost/launches.py`."""
    count: NonNegative
    """In units of a plain launch (`HostOverhead.launch_us`)."""


class KernelSet(Strict):
    """All kernel families known on one device."""

    device: str
    linear: list[Linear]
    moe: list[MoE]
    attention_decode: list[AttentionDecode]
    attention_prefill: list[AttentionPrefill]
    recurrent: list[RecurrentKernel]
    small: SmallKernels

    @model_validator(mode="after")
    def _families_are_unique(self) -> KernelSet:
        for operator in ("linear", "moe", "attention_decode", "attention_prefill", "recurrent"):
            names = [table.family for table in getattr(self, operator)]
            if len(names) != len(set(names)):
                raise ValueError(f"{self.device}: a family stands twice under {operator}")
        return self


class Price(Figure):
    """Dollars of one device: an hour on demand, or its purchase."""

    device: str
    kind: Literal["on_demand_usd_per_hour", "purchase_usd"]


@dataclass(frozen=True)
class Uncertainty:
    """How sure a calibration is of its parameters, and what its predictions still missed."""

    source: str
    """Which calibration, in words."""
    addresses: tuple[str, ...]
    covariance: tuple[tuple[float, ...], ...]
    """Of log(value), in the order of `addresses`."""
    errors: Mapping[str, float]
    """|ln(predicted / measured)| that 80 % stay below after the fit, of a decode "step", of a step
    with a "prompt", and where runs were served by family of metric ("tpot", "ttft", "throughput").
    """
    devices: tuple[str, ...] = ()
    """That it was measured on; empty where it does not say."""
    versions: tuple[str, ...] = ()
    """Of the engine that it was measured with; empty where it does not say."""
    beside: tuple[str, ...] = ()
    """Addresses of what it sets besides: constants that no step's duration depends on."""


class Hardware(Strict):
    """Everything known about hardware; `with_overrides` returns a recalibrated copy."""

    devices: Mapping[str, Device]
    fabrics: Mapping[str, Fabric]
    kernels: Mapping[str, KernelSet]
    engines: list[EngineProfile]
    prices: list[Price]
    launches: list[Launches]
    uncertainty: Uncertainty | None = None
    """Of the parameters that a calibration has set; None without one."""

    def kernel_set(self, device_id: str) -> KernelSet:
        """Kernel tables of a device, or of the device that stands in for it."""
        return self.kernels[self.devices[device_id].kernels_from or device_id]

    def parameters(self) -> dict[str, tuple[Any, Provenance]]:
        """Every tunable number by address, with where it comes from."""
        from moeplan.hardware_specs.parameters import parameters_of

        return parameters_of(self)

    def with_overrides(self, values: dict[str, float]) -> Hardware:
        """A copy in which the parameters at these addresses have these values."""
        from moeplan.hardware_specs.parameters import override

        return override(self, values)
