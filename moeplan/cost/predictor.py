"""Everything about a deployment that does not depend on the traffic's timing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from moeplan.cost.engine import ResolvedEngine, resolve_engine
from moeplan.cost.kernel_choice import KernelChoice, choose_kernels
from moeplan.cost.kv_layout import KVCacheSpec
from moeplan.cost.layers import Cut
from moeplan.cost.memory import MemoryMap, memory_map
from moeplan.cost.routing import SKEW_PRESETS
from moeplan.cost.stages import Stage, build_stages
from moeplan.cost.step_time import StepTimeModel
from moeplan.deployment import Deployment
from moeplan.estimate import Basis
from moeplan.hardware_specs import Hardware

KV_ELEMENT_BYTES = {"bf16": 2.0, "fp8": 1.0}
_WEAK_GRADES = ("estimate", "general knowledge", "nominal")


@dataclass(frozen=True)
class Prepared:
    """A deployment with settings resolved, kernels picked and memory laid out."""

    deployment: Deployment
    hardware: Hardware
    engine: ResolvedEngine
    kernels: KernelChoice
    memory: MemoryMap
    sigma: float

    @property
    def kv(self) -> KVCacheSpec:
        """The pool of blocks of one replica."""
        return self.memory.kv

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """Operators of each pipeline stage."""
        placement = self.deployment.placement
        cut = Cut(
            architecture=self.deployment.architecture,
            checkpoint=self.deployment.checkpoint,
            kernels=self.kernels,
            tp=placement.tp,
            expert_ranks=placement.tp if placement.ep else 1,
            sigma=self.sigma,
            kv_bytes=KV_ELEMENT_BYTES[self.engine.kv_format],
        )
        return build_stages(self.deployment, self.hardware, cut)

    @cached_property
    def timer(self) -> StepTimeModel:
        """Step times of one replica."""
        small = self.hardware.kernel_set(self.deployment.device).small
        return StepTimeModel(self.stages, small, self.engine)

    @property
    def basis(self) -> Basis:
        """What the kernel tables behind the step times rest on."""
        weak = any(
            op.provenance.grade in _WEAK_GRADES
            for stage in self.stages
            for op in (*stage.token, *stage.decode_attention)
        )
        return "first principles" if weak else "interpolated"


def prepare(
    deployment: Deployment,
    hardware: Hardware,
    max_sequence_tokens: int,
    sigma: float = SKEW_PRESETS["default"],
) -> Prepared:
    """Resolve settings, pick kernels and lay out memory for sequences of that many tokens.

    Raises `DeploymentError` where the engine would refuse, `DoesNotFitError` where memory ends.
    """
    engine = resolve_engine(deployment, hardware, max_sequence_tokens)
    kernels = choose_kernels(deployment, hardware, engine)
    memory = memory_map(deployment, hardware, engine)
    return Prepared(deployment, hardware, engine, kernels, memory, sigma)
