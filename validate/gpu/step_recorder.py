"""Scheduler subclasses that write one line a step: what ran, when it was scheduled and came back.

    vllm serve ... --scheduler-cls <package>.step_recorder.AsyncStepRecorder     (GPU default)

Uses only `schedule` and `update_from_output`, which vLLM 0.24 to 0.33 share. Times are
`time.perf_counter` (CLOCK_MONOTONIC on Linux, so other processes of the host can compare).
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

PATH_VARIABLE = "MOEPLAN_STEPS"


class _Recording:
    """Mixin over a vLLM scheduler."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._step_file = open(os.environ[PATH_VARIABLE], "a", buffering=1 << 16)  # noqa: SIM115
        self._written = time.perf_counter()

    def _composition(self, output: Any) -> dict[str, Any]:
        """Decode rows, the sum of their contexts, and each prefill chunk with what came before."""
        decodes, context, chunks = 0, 0, []
        for name, tokens in output.num_scheduled_tokens.items():
            request = self.requests[name]
            before = request.num_computed_tokens - tokens
            if before < request.num_prompt_tokens:
                chunks.append([tokens, before])
            else:
                decodes, context = decodes + 1, context + before
        return {"d": decodes, "c": context, "p": chunks}

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        begun = time.perf_counter()
        output = super().schedule(*args, **kwargs)
        done = time.perf_counter()
        record = self._composition(output)
        record |= {"s": done, "ds": done - begun, "run": len(self.running)}
        record |= {"wait": len(self.waiting), "pre": len(output.preempted_req_ids or ())}
        record["free"] = self.kv_cache_manager.block_pool.get_num_free_blocks()
        output.moeplan_record = record
        return output

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
        now = time.perf_counter()
        result = super().update_from_output(scheduler_output, model_runner_output)
        record = scheduler_output.moeplan_record
        if record["d"] or record["p"]:
            record |= {"u": now, "du": time.perf_counter() - now}
            self._step_file.write(json.dumps(record) + "\n")
        if now - self._written > 1.0 or not self.running:
            self._step_file.flush()
            self._written = now
        return result


class SyncStepRecorder(_Recording, Scheduler):
    """For engines without async scheduling (CPU)."""


class AsyncStepRecorder(_Recording, AsyncScheduler):
    """For engines with async scheduling (GPU default)."""
