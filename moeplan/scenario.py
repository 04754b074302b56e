"""What a user says, field by field, and the `Deployment` that it stands for.

Field names are the long options of the command line with `_` for `-`; range, default and help text
stand here once, for the command line, the app and Python alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from moeplan.deployment import (
    Cluster,
    Deployment,
    EngineSettings,
    Node,
    Placement,
    Router,
)
from moeplan.errors import DeploymentError, InputError
from moeplan.options import Options
from moeplan.speculation import LONGEST_DRAFT, Method, Speculation, speculation

if TYPE_CHECKING:
    from moeplan.hardware_specs.schema import Device, Fabric, Hardware
    from moeplan.models import Checkpoint, ModelEntry

MOST_GPUS = 16_384
MOST_TOKENS = 10_000_000
MOST_SEQUENCES = 65_536
MOST_STEP_TOKENS = 1_048_576


class ModelOptions(Options):
    """Which model, and which form of its weights."""

    model: str = Field(
        description="Catalogue slug, Hugging Face id, or path of a config.json or model folder.",
        json_schema_extra={"positional": True},
    )
    checkpoint: str | None = Field(
        None,
        description="Form of the weights (bf16, fp8, nvfp4, mxfp4, int4) or its repository; one "
        "that nobody published is re-quantised in thought.  [default: the model's own]",
    )


class HardwareOptions(Options):
    """Which GPUs."""

    device: str = Field(description="GPU; `moeplan hardware` lists the ids.")
    gpus: int | None = Field(
        None,
        ge=1,
        le=MOST_GPUS,
        description="GPUs in all.  [default: as many as the placement takes]",
    )
    nodes: int | None = Field(
        None, ge=1, le=MOST_GPUS, description="Hosts that hold them.  [default: as few as can]"
    )
    fabric: str | None = Field(
        None,
        description="Link between the nodes, or inside them where it is of that kind.  "
        "[default: the machine's usual]",
    )


class MachineOptions(HardwareOptions, ModelOptions):
    """Which model on which machine."""


class PlacementOptions(Options):
    """How one model is spread over the GPUs."""

    tp: int | None = Field(
        None,
        ge=1,
        le=MOST_GPUS,
        description="Tensor-parallel ranks.  [default: all GPUs of a pipeline stage]",
    )
    pp: int = Field(1, ge=1, le=MOST_GPUS, description="Pipeline stages.")
    ep: bool = Field(False, description="Experts whole on the ranks instead of cut.")
    dp: int = Field(
        1, ge=1, le=MOST_GPUS, description="Data-parallel attention ranks of one engine."
    )
    replicas: int = Field(1, ge=1, le=MOST_GPUS, description="Independent engines.")
    router: Router = Field("round_robin", description="How requests reach the replicas.")


class EngineOptions(Options):
    """Engine settings under vLLM's names; None leaves the engine's default."""

    engine: Literal["vllm", "sglang", "trtllm"] = Field("vllm", description="Serving engine.")
    engine_version: str = Field("0.33.0", description="Its version.")
    kv: Literal["auto", "bf16", "fp8"] = Field(
        "auto", description="Format of the KV cache; auto: what the checkpoint asks for."
    )
    kernel: str | None = Field(
        None, description="Kernel family (marlin, cutlass, triton, …) instead of the engine's pick."
    )
    max_num_batched_tokens: int | None = Field(
        None, ge=1, le=MOST_STEP_TOKENS, description="Token budget of a step."
    )
    max_num_seqs: int | None = Field(
        None, ge=1, le=MOST_SEQUENCES, description="Sequences that run at once."
    )
    max_model_len: int | None = Field(
        None,
        ge=1,
        le=MOST_TOKENS,
        description="Longest sequence in tokens.  [default: input + output, rounded up]",
    )
    gpu_memory_utilization: float | None = Field(
        None,
        gt=0,
        le=1,
        allow_inf_nan=False,
        description="Share of GPU memory that the engine takes.",
    )
    kv_cache_memory_bytes: int | None = Field(
        None, ge=1, le=10**15, description="Bytes of the KV pool on one GPU."
    )
    num_gpu_blocks_override: int | None = Field(
        None, ge=1, le=10**9, description="Blocks of the KV pool."
    )
    block_size: int | None = Field(None, ge=1, le=MOST_TOKENS, description="Tokens a KV block.")
    enable_prefix_caching: bool | None = Field(
        None, description="Reuse the KV cache of shared prefixes."
    )
    async_scheduling: bool | None = Field(None, description="Schedule while the GPU computes.")
    mixed_prefill: bool | None = Field(
        None, description="Prefill and decode share steps; off: prefill steps come first."
    )
    enforce_eager: bool = Field(False, description="Run without CUDA graphs.")
    cudagraph_capture_sizes: str | None = Field(
        None, description="Token counts to capture, such as 1,2,4,8: fewer start faster."
    )
    disable_hybrid_kv_cache_manager: bool = Field(
        False, description="Keep whole sequences in windowed layers too."
    )
    long_prefill_token_threshold: int = Field(
        0, ge=0, le=MOST_TOKENS, description="Longest prefill chunk of one request; 0: no limit."
    )
    watermark: float = Field(
        0.0,
        ge=0,
        lt=1,
        allow_inf_nan=False,
        description="Share of KV blocks that admission spares.",
    )
    online_quantization: str | None = Field(
        None,
        description="Components that the engine re-quantises at load, such as "
        "attn_proj=mxfp4,lm_head=mxfp4.",
    )
    speculative_method: Method | None = Field(
        None,
        description="Draft tokens and verify them: by the model's MTP layers, an EAGLE-3 "
        "head or n-grams of the prompt.",
    )
    num_speculative_tokens: int | None = Field(
        None,
        ge=1,
        le=LONGEST_DRAFT,
        description="Draft tokens a step.  [default: 1 with mtp, else 3]",
    )
    acceptance: str | None = Field(
        None,
        description="Mean tokens a step with drafts (2.5), or the chance of each draft "
        "(0.8,0.6,0.4).  [default: the usual one]",
    )

    def settings(self) -> EngineSettings:
        """These options as a deployment holds them; raises `InputError` on a bad pair."""
        changed = {
            "engine_version",
            "kv",
            "online_quantization",
            "cudagraph_capture_sizes",
            "speculative_method",
            "num_speculative_tokens",
            "acceptance",
        }
        same = {name: getattr(self, name) for name in EngineOptions.model_fields.keys() - changed}
        return EngineSettings(
            version=self.engine_version,
            kv_cache_dtype=self.kv,
            online_quantization=_pairs("online_quantization", self.online_quantization),
            cudagraph_capture_sizes=_sizes("cudagraph_capture_sizes", self.cudagraph_capture_sizes),
            speculation=self._speculation(),
            **same,
        )

    def _speculation(self) -> Speculation | None:
        """A number from 1 on is a mean, several numbers or one below 1 are rates."""
        method, drafts = self.speculative_method, self.num_speculative_tokens
        if method is None:
            if drafts or self.acceptance:
                raise InputError(
                    "num_speculative_tokens and acceptance need a drafter; add "
                    "--speculative-method mtp, eagle3 or ngram"
                )
            return None
        rates = _rates(self.acceptance) if self.acceptance else []
        if len(rates) == 1 and rates[0] >= 1:
            return speculation(method, drafts, rates[0])
        if rates:
            return Speculation(method, drafts or len(rates), tuple(rates))
        return speculation(method, drafts, None)


def _rates(text: str) -> list[float]:
    """Read "0.8,0.6" or "2.5"."""
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise InputError(
            f"acceptance is {text!r}; write mean tokens a step such as 2.5, or rates such as "
            "0.8,0.6,0.4"
        ) from None


def _pairs(name: str, text: str | None) -> dict[str, str]:
    """Read "a=x,b=y"."""
    words = [part.partition("=") for part in (text or "").split(",") if part.strip()]
    for key, _, value in words:
        if not key.strip() or not value.strip():
            raise InputError(f"{name} {text!r} holds {key!r}; write component=format,…")
    return {key.strip(): value.strip() for key, _, value in words}


def _sizes(name: str, text: str | None) -> tuple[int, ...]:
    """Read "1,2,4", rising whatever the order given."""
    words = [word.strip() for word in (text or "").split(",") if word.strip()]
    wrong = [word for word in words if not word.isdecimal() or int(word) < 1]
    if wrong:
        raise InputError(f"{name} {text!r} holds {wrong[0]!r}; write 1,2,4 and so on")
    return tuple(sorted({int(word) for word in words}))


class Scenario(EngineOptions, PlacementOptions, MachineOptions):
    """One deployment in a user's words."""


def build_deployment(scenario: Scenario, hardware: Hardware) -> Deployment:
    """The deployment that a user's words stand for, every default filled in.

    Raises `UnknownNameError` with the nearest names, and `DeploymentError` with rule and remedy
    where no engine could run it.
    """
    from moeplan.models import load_model

    model = load_model(scenario.model)
    placement = _placement(scenario)
    if placement.dp > 1:
        raise DeploymentError(
            f"dp {placement.dp}: attention data parallelism is not modelled yet; use --tp, --pp or "
            "--replicas"
        )
    cluster = build_cluster(scenario, hardware, scenario.gpus or placement.gpus)
    return Deployment(
        architecture=model.architecture,
        checkpoint=find_checkpoint(model, scenario.checkpoint),
        cluster=cluster,
        placement=placement,
        router=scenario.router,
        engine=scenario.settings(),
    )


def find_checkpoint(model: ModelEntry, name: str | None) -> Checkpoint:
    """The named form of the weights, else the model's own first.

    A known format that nobody has published gives the uniform re-quantisation, marked hypothetical.
    Raises `UnknownNameError`.
    """
    return model.checkpoint(name, hypothetical=True) if name else model.default_checkpoint


def _placement(options: PlacementOptions) -> Placement:
    others = options.pp * options.dp * options.replicas
    gpus = getattr(options, "gpus", None)
    tp = options.tp or max((gpus or others) // others, 1)
    return Placement(tp=tp, pp=options.pp, ep=options.ep, dp=options.dp, replicas=options.replicas)


def build_cluster(machine: MachineOptions, hardware: Hardware, gpus: int) -> Cluster:
    """The nodes that hold `gpus` GPUs and the fabrics in and between them.

    Nodes are filled one by one unless the user says how many there are: then GPUs spread evenly.
    Raises `DeploymentError` where the nodes cannot hold them or the fabric has no place.
    """
    from moeplan.hardware_specs.loader import find_device, find_fabric

    device = find_device(hardware, machine.device)
    sizes = _node_sizes(machine.nodes, gpus, device)
    intra, inter = device.intra_node_fabric, device.inter_node_fabric
    if machine.fabric is not None:
        fabric = find_fabric(hardware, machine.fabric)
        if fabric.scope == "intra-node":
            intra = fabric.id
        else:
            _check_between(fabric, device, sizes)
            inter = fabric.id
    return Cluster(tuple(Node(device.id, size) for size in sizes), intra, inter)


def _node_sizes(nodes: int | None, gpus: int, device: Device) -> list[int]:
    room = device.max_devices_per_node
    if nodes is None:
        full, rest = divmod(gpus, room)
        return [room] * full + ([rest] if rest else [])
    if nodes > gpus:
        raise DeploymentError(f"nodes {nodes} exceed the {gpus} GPUs; use --nodes {gpus} or fewer")
    if gpus > nodes * room:
        raise DeploymentError(
            f"{gpus} GPUs do not fit in {nodes} nodes of up to {room} {device.id}; "
            f"use --nodes {-(-gpus // room)}"
        )
    base, larger = divmod(gpus, nodes)
    return [base + 1] * larger + [base] * (nodes - larger)


def _check_between(fabric: Fabric, device: Device, sizes: Sequence[int]) -> None:
    """A link between nodes has nothing to link where all GPUs sit in one."""
    if len(sizes) == 1 and sizes[0] > 1:
        raise DeploymentError(
            f"fabric {fabric.id} links nodes, but the {sizes[0]} {device.id} sit in one; "
            f"add --nodes 2, or leave --fabric out for {device.intra_node_fabric}"
        )
