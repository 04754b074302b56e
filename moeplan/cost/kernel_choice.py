"""`KernelChoice`: which kernel table prices each operator of a deployment, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moeplan.cost.backend_rules import (
    Preference,
    expert_preference,
    linear_preference,
    override_preference,
)
from moeplan.cost.engine import ResolvedEngine
from moeplan.cost.engine_profile import capability
from moeplan.cost.formats import check_online_quantization, component_formats, kernel_format
from moeplan.cost.kernel_pick import Pick, T, matches, nearest
from moeplan.deployment import Deployment
from moeplan.errors import DeploymentError
from moeplan.hardware_specs.schema import (
    AttentionDecode,
    AttentionPrefill,
    Hardware,
    KernelSet,
    Linear,
    MoE,
    RecurrentKernel,
)
from moeplan.models.architecture import GatedDeltaNet, LatentAttention, Mamba2
from moeplan.models.checkpoint import Checkpoint

NOT_MULTIPLIED = frozenset(
    {"routed_experts", "expert_bias", "embed", "norms", "attn_small", "mamba_small"}
)
"""Components that no dense GEMM computes (`embed` does where it is tied to the head)."""
_STAND_INS = {"fp8": "fp8_block", "fp8_block": "fp8"}
"""Formats of the same width whose table serves where a device has none of its own."""


@dataclass(frozen=True)
class KernelChoice:
    """Kernel tables of one deployment by operator and format."""

    linears: Mapping[str, Pick[Linear]]
    experts: Pick[MoE] | None
    decode_attention: Mapping[str, Pick[AttentionDecode]]
    prefill_attention: Pick[AttentionPrefill] | None
    state: Pick[RecurrentKernel] | None
    online_quantization: Mapping[str, str]

    @property
    def picks(self) -> tuple[Pick, ...]:
        """Everything that was picked."""
        single = (self.experts, self.prefill_attention, self.state)
        many = (*self.linears.values(), *self.decode_attention.values())
        return (*many, *(pick for pick in single if pick is not None))

    def formats(self, checkpoint: Checkpoint, component: str) -> dict[str, float]:
        """Share of each storage format in a component, online quantisation included."""
        return component_formats(checkpoint, component, self.online_quantization)

    def linear(self, fmt: str) -> Linear:
        """Dense GEMM table of a storage format."""
        return self.linears[kernel_format(fmt)].table

    def moe(self) -> MoE:
        """Routed-experts table; only for models that route."""
        return _present(self.experts, "routed experts").table

    def attention_decode(self, kind: str) -> AttentionDecode:
        """Decode attention table, `kind` "gqa" or "mla"."""
        return self.decode_attention[kind].table

    def attention_prefill(self) -> AttentionPrefill:
        """Prefill attention table; only for models with attention."""
        return _present(self.prefill_attention, "attention").table

    def recurrent(self) -> RecurrentKernel:
        """Gated DeltaNet or Mamba-2 table; only for models with such layers."""
        return _present(self.state, "recurrent layers").table


def _present(pick: Pick | None, what: str) -> Pick:
    if pick is None:
        raise LookupError(f"this architecture has no {what}")
    return pick


def choose_kernels(
    deployment: Deployment, hardware: Hardware, engine: ResolvedEngine
) -> KernelChoice:
    """Pick a table for every operator as the engine picks its kernels.

    `engine.kernel` of the settings ("marlin", "cutlass", ...) replaces the engine's choice wherever
    such a table exists. Where the engine's pick has no table the nearest with the same format is
    taken and marked. Raises `DeploymentError` naming what exists where nothing serves.
    """
    check_online_quantization(deployment)
    kernels = hardware.kernel_set(deployment.device)
    choice = KernelChoice(
        linears=_linears(deployment, hardware, kernels),
        experts=_experts(deployment, hardware, kernels),
        decode_attention=_decode_attention(deployment, kernels, engine),
        prefill_attention=_prefill_attention(deployment, kernels, engine),
        state=_state(deployment, kernels),
        online_quantization=deployment.engine.online_quantization,
    )
    _check_override(deployment, kernels, choice)
    return choice


def expert_backends(deployment: Deployment, hardware: Hardware, fmt: str) -> Preference:
    """Backends of routed experts in a storage format: the user's word, then the engine's picks."""
    return (*_override(deployment), *_expert_preference(deployment, hardware, fmt))


def _expert_preference(deployment: Deployment, hardware: Hardware, fmt: str) -> Preference:
    settings, placement = deployment.engine, deployment.placement
    return expert_preference(
        settings.engine,
        settings.version,
        kernel_format(fmt),
        capability(hardware.devices[deployment.device]),
        whole_experts=placement.ep,
    )


def _formats(deployment: Deployment, component: str) -> dict[str, float]:
    online = deployment.engine.online_quantization
    return component_formats(deployment.checkpoint, component, online)


def _linears(
    deployment: Deployment, hardware: Hardware, kernels: KernelSet
) -> dict[str, Pick[Linear]]:
    architecture = deployment.architecture
    multiplied = set(architecture.components) - NOT_MULTIPLIED
    multiplied.add("embed" if architecture.tie_word_embeddings else "lm_head")
    formats = {kernel_format(f) for c in multiplied for f in _formats(deployment, c)}
    cuda = capability(hardware.devices[deployment.device])
    return {
        fmt: _pick(
            "linear",
            fmt,
            kernels.linear,
            linear_preference(deployment.engine.engine, fmt, cuda),
            deployment,
        )
        for fmt in sorted(formats)
    }


def _experts(deployment: Deployment, hardware: Hardware, kernels: KernelSet) -> Pick[MoE] | None:
    if not deployment.architecture.is_moe:
        return None
    shares = _formats(deployment, "routed_experts")
    fmt = max(shares, key=shares.__getitem__)
    wanted = _expert_preference(deployment, hardware, fmt)
    return _pick("experts", kernel_format(fmt), kernels.moe, wanted, deployment)


def _pick(
    operator: str, fmt: str, tables: Sequence[T], wanted: Preference, deployment: Deployment
) -> Pick[T]:
    """The best table of a format; a format of equal width stands in where there is none."""
    serving = fmt
    usable = [t for t in tables if fmt in t.formats]
    if not usable and fmt in _STAND_INS:
        serving = _STAND_INS[fmt]
        usable = [t for t in tables if serving in t.formats]
    if not usable:
        known = ", ".join(t.family for t in tables) or "none"
        raise DeploymentError(
            f"no kernel table for {operator} in {fmt} on {deployment.device}; known: {known}; "
            "use another --checkpoint or device"
        )
    who = f"the engine's choice for {fmt}"
    override = _override(deployment)
    if any(matches(t.family, word) for t in usable for word in override):
        wanted, who = override, "set by the user"
    table = nearest(usable, wanted)
    exact = serving == fmt and matches(table.family, wanted[0])
    reason = who if exact else f"{who}, {wanted[0]}, has no table here: {table.family} is nearest"
    return Pick(operator, fmt, wanted[0], table, exact, reason)


def _override(deployment: Deployment) -> Preference:
    word = deployment.engine.kernel
    return override_preference(word) if word else ()


def _check_override(deployment: Deployment, kernels: KernelSet, choice: KernelChoice) -> None:
    """Refuse a kernel word that fits neither GEMMs nor experts of this deployment."""
    words = _override(deployment)
    picks = [*choice.linears.values(), *([choice.experts] if choice.experts else [])]
    if not words or any(matches(p.table.family, word) for p in picks for word in words):
        return
    known = sorted({t.family for t in (*kernels.linear, *kernels.moe)})
    raise DeploymentError(
        f"kernel {deployment.engine.kernel!r} fits no operator of {deployment.architecture.slug} "
        f"({', '.join(sorted({p.format for p in picks}))}) on {deployment.device}; known there: "
        f"{', '.join(known)}"
    )


def _attention_kind(deployment: Deployment) -> str | None:
    mixers = [layer.mixer for layer in deployment.architecture.layers]
    if any(isinstance(m, LatentAttention) for m in mixers):
        return "mla"
    return "gqa" if any(m is not None and m.kind in _GROUPED for m in mixers) else None


_GROUPED = ("full", "sliding", "chunked")


def _decode_attention(
    deployment: Deployment, kernels: KernelSet, engine: ResolvedEngine
) -> dict[str, Pick[AttentionDecode]]:
    kind = _attention_kind(deployment)
    if kind is None:
        return {}
    tables = [t for t in kernels.attention_decode if t.kind == kind]
    wanted = (engine.attention.name, engine.kv_format)
    return {kind: _attention(f"{kind} decode attention", tables, deployment, engine, wanted)}


def _prefill_attention(
    deployment: Deployment, kernels: KernelSet, engine: ResolvedEngine
) -> Pick[AttentionPrefill] | None:
    if _attention_kind(deployment) is None:
        return None
    backend = engine.attention
    wanted = (backend.prefill_name, "bf16" if backend.latent else engine.kv_format)
    return _attention("prefill attention", kernels.attention_prefill, deployment, engine, wanted)


def _attention(
    operator: str,
    tables: Sequence[T],
    deployment: Deployment,
    engine: ResolvedEngine,
    wanted: tuple[str, str],
) -> Pick[T]:
    """Table of an attention backend and cache format; the nearest stands in where there is none."""
    if not tables:
        raise DeploymentError(f"no table of {operator} on {deployment.device}; use another device")
    name, kv_format = wanted
    measured = [t for t in tables if kv_format in t.kv_formats]
    table = nearest(measured or tables, (name,))
    exact = bool(measured) and matches(table.family, name)
    reason = engine.attention.reason
    if not exact:
        reason += f"; {name} with {kv_format} cache has no table here: {table.family} stands in"
    return Pick(operator, kv_format, name, table, exact, reason)


def _state(deployment: Deployment, kernels: KernelSet) -> Pick[RecurrentKernel] | None:
    if not deployment.architecture.is_hybrid:
        return None
    if not kernels.recurrent:
        raise DeploymentError(
            f"no table of recurrent layers on {deployment.device}; use another device"
        )
    mixers = {type(layer.mixer) for layer in deployment.architecture.layers}
    own = f"triton-{_STATES[Mamba2 if Mamba2 in mixers else GatedDeltaNet]}"
    families = {table.family: table for table in kernels.recurrent}
    table = families.get(own) or nearest(kernels.recurrent, ("triton-recurrent", "triton"))
    exact = matches(table.family, "triton")
    return Pick("recurrent", "state", "triton", table, exact, "Triton runs recurrent layers")


_STATES = {GatedDeltaNet: "gdn", Mamba2: "mamba2"}
"""Kernel family of each kind of state; `triton-recurrent` where a device tells none apart."""
