"""`StepTimeModel`: seconds of one engine step, from its operators.

    t_gpu  = Σ operators + small kernels, at least the host's time to launch what no graph holds
    t_step = max(t_gpu, host) with asynchronous scheduling, t_gpu + host without
    t_step ≥ streamed tokens × the API server's cost of one

with t_gpu of each pipeline stage by `StageTimer`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from moeplan.cost.attention_time import DecodeAttentionTime
from moeplan.cost.batch import StepBatch
from moeplan.cost.draft_time import DraftTimer
from moeplan.cost.engine import ResolvedEngine
from moeplan.cost.least_time import LeastQuery, LeastTimes
from moeplan.cost.operators import MICRO
from moeplan.cost.stage_time import StageTimer
from moeplan.cost.stages import Stage
from moeplan.hardware_specs.schema import SmallKernels


class StepTimeModel:
    """Seconds of the steps of one replica; implements `StepTimer`."""

    def __init__(
        self,
        stages: Sequence[Stage],
        small: SmallKernels,
        engine: ResolvedEngine,
        most_tokens: int | None = None,
        drafter: Stage | None = None,
    ):
        """`most_tokens`: largest step that it will price, the engine's own limit by default.

        `drafter` is one pass of what drafts for the last stage.
        """
        each = engine.tokens_a_decode
        most_tokens = most_tokens or max(engine.max_num_batched_tokens, each * engine.max_num_seqs)
        self._stages = [
            StageTimer(stage, small, engine, most_tokens, each, each) for stage in stages
        ]
        self._drafts = drafter and DraftTimer(drafter, small, engine, most_tokens)
        self.stages = len(self._stages)
        host = engine.host
        self._async = engine.async_scheduling
        self._host = (host.step_us * MICRO, host.step_us_per_sequence * MICRO)
        self._stream = host.stream_us_per_token * MICRO

    def stage_seconds(self, batch: StepBatch) -> tuple[float, ...]:
        """Seconds that each pipeline stage spends on a batch; host time at the first."""
        gpu = [stage.seconds(batch) for stage in self._stages]
        if self._drafts:
            gpu[-1] += self._drafts.seconds(batch)
        gpu[0] = self._with_host(gpu[0], len(batch.decode_contexts) + len(batch.prefill_chunks))
        gpu[-1] = max(gpu[-1], self._stream * batch.sampled_rows)
        return tuple(gpu)

    def _host_seconds(self, sequences: int) -> float:
        return self._host[0] + self._host[1] * sequences

    def _with_host(self, gpu: float, sequences: int) -> float:
        host = self._host_seconds(sequences)
        return max(gpu, host) if self._async else gpu + host

    def _each_with_host(self, gpu: np.ndarray, sequences: int) -> np.ndarray:
        """`_with_host` of many steps."""
        host = self._host_seconds(sequences)
        return np.maximum(gpu, host) if self._async else gpu + host

    def step_seconds(self, batch: StepBatch) -> float:
        """Seconds of one step through all stages."""
        return sum(self.stage_seconds(batch))

    def launched_seconds(self, batch: StepBatch) -> tuple[float, float]:
        """Seconds that the GPU computes a step of one stage, and that the host launches it.

        The first holds all that `step_seconds` does but the launching of prompts; it is no less
        than a step of the decodes alone, launched where no graph holds them.
        """
        (stage,) = self._stages
        alone = stage.launch_seconds(StepBatch(batch.decode_contexts))
        gpu = max(stage.gpu_seconds(batch), alone)
        gpu += self._drafts.seconds(batch) if self._drafts else 0.0
        gpu = self._with_host(gpu, len(batch.decode_contexts) + len(batch.prefill_chunks))
        return max(gpu, self._stream * batch.sampled_rows), stage.launch_seconds(batch)

    def idle_seconds(self, batch: StepBatch) -> float:
        """Seconds of a step that starts in an idle engine, whose host time nothing overlaps."""
        sequences = len(batch.decode_contexts) + len(batch.prefill_chunks)
        gpu = sum(stage.seconds(batch) for stage in self._stages)
        gpu += self._drafts.seconds(batch) if self._drafts else 0.0
        return gpu + self._host_seconds(sequences)

    def decode_seconds(self, contexts: np.ndarray, steps: int) -> np.ndarray:
        """Seconds of each of the next `steps` pure decode steps, shape (steps,).

        Not for engines that draft: their sequences do not advance in step.
        """
        return self.decode_stage_seconds(contexts, steps).sum(axis=0)

    def draft_seconds(self, contexts: np.ndarray) -> np.ndarray:
        """Seconds of pure decode steps with drafts; contexts before each, (steps, sequences)."""
        sequences = contexts.shape[1]
        gpu = sum(stage.stretch_seconds(contexts) for stage in self._stages)
        if self._drafts:
            gpu = gpu + self._drafts.stretch_seconds(contexts)
        return np.maximum(self._each_with_host(gpu, sequences), self._stream * sequences)

    def decode_stage_seconds(self, contexts: np.ndarray, steps: int) -> np.ndarray:
        """Seconds at each stage of each of those steps, shape (stages, steps)."""
        sequences = len(contexts)
        gpu = [stage.decode_seconds(contexts, steps) for stage in self._stages]
        gpu[0] = self._each_with_host(gpu[0], sequences)
        gpu[-1] = np.maximum(gpu[-1], self._stream * sequences)
        return np.array(gpu)

    def least_by_step(self, query: LeastQuery) -> LeastTimes:
        """Each step for itself: launches, host and stream, contexts as the shortest."""
        batches = np.arange(query.largest + 1)
        found = self._least(
            query, lambda kind: kind.equal_seconds(batches, query.shortest(kind.cap)), floors=True
        )
        host, one = self._host[0] + self._host[1] * batches[1:], sum(self._host)
        for steps, least in ((found.decode, host), (found.prefill, one)):
            steps[0] = np.maximum(steps[0], least) if self._async else steps[0] + least
        found.decode[-1] = np.maximum(found.decode[-1], self._stream * batches[1:])
        return found

    def least_by_work(self, query: LeastQuery) -> LeastTimes:
        """Summed over a run: attention by the mean of what queries attend to, without floors."""
        batches = np.arange(query.largest + 1)

        def line(kind: DecodeAttentionTime) -> np.ndarray:
            return kind.line_seconds(batches, query.mean(kind.cap), query.usual)

        prompts = [stage.prompt_attention(query.prompts, query.before) for stage in self._stages]
        found = self._least(query, line, floors=False)
        return replace(found, prompt_attention=np.array(prompts))

    def _least(
        self, query: LeastQuery, price: Callable[[DecodeAttentionTime], np.ndarray], *, floors: bool
    ) -> LeastTimes:
        stages = [stage.least(query, price, floors=floors) for stage in self._stages]
        decode, riding, prefill = (np.array(part) for part in zip(*stages, strict=True))
        if self._drafts:
            drafts = self._drafts.least(query, price, floors=floors)
            for steps, more in zip((decode, riding, prefill), drafts, strict=True):
                steps[-1] += more
        return LeastTimes(decode, riding, prefill, np.zeros(self.stages))
