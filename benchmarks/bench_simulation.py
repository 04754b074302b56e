"""Speed of the simulation: macro-steps against single steps, absolute and as a ratio.

    python benchmarks/bench_simulation.py

512 requests of 8192 tokens in and 1024 out, 32 at a time, token budget 8192, full attention,
asynchronous scheduling; the step-time model is a closed form, so that what is timed is scheduling,
block accounting and events. Times are the best of several runs, after import.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from moeplan.cost.batch import StepBatch
from moeplan.cost.kv_layout import KVCacheSpec, KVGroup
from moeplan.simulation import ReplicaSpec, SchedulerSettings, SimulationResult, Workload, run
from moeplan.simulation.metrics import output_tok_s, tpot, ttft

FLOOR_S = 8e-3  # a step that computes nothing
DECODE_S = 20e-6  # one more sequence
CONTEXT_S = 2e-9  # one more cached token
PREFILL_S = 30e-6  # one more prompt token


class LinearTimer:
    """A step costs a floor plus so much a sequence, a cached token and a prompt token."""

    def __init__(self, stages: int = 1):
        self.stages = stages

    def stage_seconds(self, batch: StepBatch) -> tuple[float, ...]:
        """Equal stages."""
        return (self.step_seconds(batch) / self.stages,) * self.stages

    def step_seconds(self, batch: StepBatch) -> float:
        """Closed form."""
        contexts, prefill = batch.decode_contexts, sum(new for new, _ in batch.prefill_chunks)
        seconds = FLOOR_S + DECODE_S * len(contexts) + CONTEXT_S * sum(contexts)
        return seconds + PREFILL_S * prefill

    def decode_seconds(self, contexts: np.ndarray, steps: int) -> np.ndarray:
        """The same for `steps` steps."""
        count, total = len(contexts), int(contexts.sum())
        return FLOOR_S + DECODE_S * count + CONTEXT_S * (total + count * np.arange(steps))

    def decode_stage_seconds(self, contexts: np.ndarray, steps: int) -> np.ndarray:
        """The same by stage."""
        share = self.decode_seconds(contexts, steps) / self.stages
        return np.tile(share, (self.stages, 1))


def replica(blocks: int = 40_000, stages: int = 1, prefix_caching: bool = False) -> ReplicaSpec:
    """An engine, with ample KV by default."""
    settings = SchedulerSettings(
        8192, 1024, enable_prefix_caching=prefix_caching, pipeline_parallel_size=stages
    )
    kv = KVCacheSpec(blocks, 16, (KVGroup("full", 16),))
    return ReplicaSpec(LinearTimer(stages), kv, settings)


def workload(**changes: object) -> Workload:
    """The workload of the speed target."""
    options = {
        "num_prompts": 512, "concurrency": 32, "input_tokens": 8192, "output_tokens": 1024,
    }  # fmt: skip
    return Workload(**(options | changes))


def best_ms(call: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Least wall and least CPU time of several runs, in milliseconds."""
    wall, cpu = [], []
    for _ in range(repeats):
        start = time.perf_counter(), time.process_time()
        call()
        wall.append(time.perf_counter() - start[0])
        cpu.append(time.process_time() - start[1])
    return 1e3 * min(wall), 1e3 * min(cpu)


def report(name: str, replicas: Sequence[ReplicaSpec], work: Workload) -> SimulationResult:
    """Print both times of one case."""
    wall, cpu = best_ms(lambda: run(replicas, "round-robin", work), 5)
    single, single_cpu = best_ms(lambda: run(replicas, "round-robin", work, macro=False), 1)
    print(f"{name:42}{wall:9.1f}{cpu:9.1f}{single:10.1f}{single_cpu:9.1f}{single_cpu / cpu:9.1f}")
    return run(replicas, "round-robin", work)


def main() -> None:
    """Print the table."""
    print(f"{'milliseconds':42}{'macro':>9}{'(CPU)':>9}{'single':>10}{'(CPU)':>9}{'ratio':>9}")
    result = report("512 x 8192/1024, 32 at a time", [replica()], workload())
    report("the same, outputs of 512 to 1536", [replica()], workload(output_range=(0.5, 1.5)))
    report("the same, 2 replicas", [replica(), replica()], workload())
    report("the same, 4 pipeline stages", [replica(stages=4)], workload())
    report("the same, KV for 19 requests: preemption", [replica(11_000, 1, True)], workload())
    report("shared prefix of 4096, block identities", [replica(prefix_caching=True)],
           workload(shared_prefix_tokens=4096))  # fmt: skip
    report("Poisson, 1 request/s", [replica()], workload(arrivals="poisson", request_rate=1.0))
    report("8 x longer outputs, 64 prompts", [replica()],
           workload(num_prompts=64, output_tokens=8192, input_tokens=1024))  # fmt: skip
    decode_s = FLOOR_S + 32 * DECODE_S + 32 * CONTEXT_S * (8192 + 512)
    bound = 32 / (decode_s + 32 * 8192 * PREFILL_S / 1024)
    print(
        f"\nfirst case: {output_tok_s(result):.0f} output tok/s (closed form {bound:.0f}), "
        f"TPOT {1e3 * tpot(result).mean:.2f} ms, TTFT {ttft(result).mean:.2f} s"
    )


if __name__ == "__main__":
    main()
