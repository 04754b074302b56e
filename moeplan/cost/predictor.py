"""Everything about a deployment that does not depend on the traffic's timing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from moeplan.cost.drafter import drafter_of, fuse_operators
from moeplan.cost.engine import ResolvedEngine, resolve_engine
from moeplan.cost.kernel_choice import KernelChoice, choose_kernels
from moeplan.cost.kv_layout import KVCacheSpec
from moeplan.cost.layers import Cut
from moeplan.cost.memory import MemoryMap, memory_map
from moeplan.cost.routing import ROUTING_SIGMA
from moeplan.cost.stages import Stage, build_stages
from moeplan.cost.step_time import StepTimeModel
from moeplan.deployment import Deployment
from moeplan.errors import DeploymentError, DoesNotFitError
from moeplan.estimate import Basis
from moeplan.hardware_specs import Hardware

KV_ELEMENT_BYTES = {"bf16": 2.0, "fp8": 1.0}
_WEAK_GRADES = ("estimate", "general knowledge", "nominal")
_LEAST_TABLE = 8192
"""Step tables reach at least this many tokens, then powers of two, so that budgets share them."""


class StepTables:
    """Operators and step times of one cut of a model, made on first use.

    Deployments share them that differ in replicas, token budget or sequence limit only.
    """

    def __init__(
        self,
        deployment: Deployment,
        hardware: Hardware,
        engine: ResolvedEngine,
        kernels: KernelChoice,
        sigma: float,
    ):
        self._deployment = deployment
        self._hardware = hardware
        self._engine = engine
        self._cut = Cut(
            architecture=deployment.architecture,
            checkpoint=deployment.checkpoint,
            kernels=kernels,
            tp=deployment.placement.tp,
            expert_ranks=deployment.placement.tp if deployment.placement.ep else 1,
            sigma=sigma,
            kv_bytes=KV_ELEMENT_BYTES[engine.kv_format],
            shared_beside_tokens=engine.shared_beside_tokens,
        )
        self._timers: dict[tuple, StepTimeModel] = {}
        self.sigma = sigma

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """Operators of each pipeline stage."""
        return build_stages(self._deployment, self._hardware, self._cut)

    @cached_property
    def drafter(self) -> Stage | None:
        """Operators of one pass of the drafter; None without one."""
        drafter = drafter_of(self._deployment)
        if drafter is None:
            return None
        cut = replace(
            self._cut,
            architecture=drafter.architecture,
            checkpoint=drafter.checkpoint,
            kernels=choose_kernels(drafter, self._hardware, self._engine),
        )
        (stage,) = build_stages(drafter, self._hardware, cut)
        return replace(stage, token=(*fuse_operators(self._deployment, cut), *stage.token))

    def timer(self, engine: ResolvedEngine) -> StepTimeModel:
        """Step times under these engine settings."""
        rows = engine.max_num_seqs * engine.tokens_a_decode
        most = max(engine.max_num_batched_tokens, rows, _LEAST_TABLE)
        top = 1 << (most - 1).bit_length()
        key = (top, engine.max_num_seqs, engine.cuda_graph_sizes)
        if key not in self._timers:
            small = self._hardware.kernel_set(self._deployment.device).small
            self._timers[key] = StepTimeModel(self.stages, small, engine, top, self.drafter)
        return self._timers[key]


@dataclass(frozen=True)
class Prepared:
    """A deployment with settings resolved, kernels picked and memory laid out."""

    deployment: Deployment
    hardware: Hardware
    engine: ResolvedEngine
    kernels: KernelChoice
    memory: MemoryMap
    tables: StepTables

    @property
    def kv(self) -> KVCacheSpec:
        """The pool of blocks of one replica."""
        return self.memory.kv

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Operators of each pipeline stage."""
        return self.tables.stages

    @property
    def timer(self) -> StepTimeModel:
        """Step times of one replica."""
        return self.tables.timer(self.engine)

    @property
    def sigma(self) -> float:
        """Spread of expert popularity that its traffic has."""
        return self.tables.sigma

    @property
    def priced(self) -> tuple[Stage, ...]:
        """Everything that a step is priced by: the stages, and the drafter's pass."""
        drafter = self.tables.drafter
        return (*self.stages, drafter) if drafter else self.stages

    @property
    def basis(self) -> Basis:
        """What the step times rest on: kernel tables, and the shape of a head nobody named."""
        drafts = self.engine.speculation
        weak = (drafts is not None and drafts.method == "eagle3") or any(
            op.provenance.grade in _WEAK_GRADES
            for stage in self.priced
            for op in (*stage.token, *stage.decode_attention)
        )
        return "first principles" if weak else "interpolated"


def prepare(
    deployment: Deployment,
    hardware: Hardware,
    max_sequence_tokens: int,
    sigma: float = ROUTING_SIGMA["default"],
) -> Prepared:
    """Resolve settings, pick kernels and lay out memory for sequences of that many tokens.

    Raises `DeploymentError` where the engine would refuse, `DoesNotFitError` where memory ends.
    """
    return Preparer(hardware, max_sequence_tokens, sigma).prepare(deployment)


class Preparer:
    """`prepare` for many deployments of one model on one cluster: what is common is made once."""

    def __init__(
        self,
        hardware: Hardware,
        max_sequence_tokens: int,
        sigma: float = ROUTING_SIGMA["default"],
    ):
        self._hardware = hardware
        self._longest = max_sequence_tokens
        self._sigma = sigma
        self._engines: dict[tuple, Prepared | DeploymentError | DoesNotFitError] = {}
        self._tables: dict[tuple, StepTables] = {}

    def prepare(self, deployment: Deployment) -> Prepared:
        """See the function of that name."""
        key = (*_cut_key(deployment), repr(deployment.engine))
        if key not in self._engines:
            try:
                self._engines[key] = self._one_engine(deployment)
            except (DeploymentError, DoesNotFitError) as error:
                self._engines[key] = error
        found = self._engines[key]
        if isinstance(found, Exception):
            raise found
        return replace(found, deployment=deployment)

    def _one_engine(self, deployment: Deployment) -> Prepared:
        hardware = self._hardware
        engine = resolve_engine(deployment, hardware, self._longest)
        kernels = choose_kernels(deployment, hardware, engine)
        memory = memory_map(deployment, hardware, engine)
        tables = self._shared_tables(deployment, engine, kernels)
        return Prepared(deployment, hardware, engine, kernels, memory, tables)

    def _shared_tables(
        self, deployment: Deployment, engine: ResolvedEngine, kernels: KernelChoice
    ) -> StepTables:
        common = replace(deployment.engine, max_num_batched_tokens=None, max_num_seqs=None)
        key = (*_cut_key(deployment), engine.kv_format, repr(common))
        if key not in self._tables:
            self._tables[key] = StepTables(deployment, self._hardware, engine, kernels, self._sigma)
        return self._tables[key]


def _cut_key(deployment: Deployment) -> tuple:
    """What tells the replicas of one deployment from those of another, settings aside."""
    checkpoint = deployment.checkpoint
    return checkpoint.name, checkpoint.repo, replace(deployment.placement, replicas=1)
