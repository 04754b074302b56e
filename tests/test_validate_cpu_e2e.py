"""Real vLLM on the CPU: predict, run, compare, recalibrate, predict again.

Needs the CPU build in an environment of its own (`tests/conftest.py`). Times are those of a busy
machine, so schedules are held to equality and throughput to a factor.
"""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from moeplan.calibration import save_calibration
from moeplan.scenario import Scenario
from moeplan.simulation.workload import TraceRow
from moeplan.validate.build import Setup, Wanted, build_plan
from moeplan.validate.calibrate import calibrate
from moeplan.validate.compare import compare
from moeplan.validate.dummy_model import write_tiny_model
from moeplan.validate.measured import read_store
from moeplan.validate.plan import read_plan, write_plan
from moeplan.validate.run import RunSettings, run_plan
from moeplan.validate.store import Store
from moeplan.validate.workloads import ClosedLoop, TimedTrace, write_trace

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

ROOT = Path(__file__).parent.parent
ENVIRONMENT = (("VLLM_CPU_OMP_THREADS_BIND", "nobind"), ("OMP_NUM_THREADS", "1"))
CHUNK = 32
"""Tokens a hash id, and a KV block."""
PAGE = 2 * CHUNK * 2 * 64 * 2
"""Bytes of a block in one layer of the tiny model: K and V, 2 heads of 64, 2 bytes."""


def shared_prefix_trace(requests: int, seconds: float, seed: int) -> list[TraceRow]:
    """Requests of two families that share their first 128 tokens, all sent within `seconds`."""
    rng = random.Random(seed)
    rows = []
    for i in range(requests):
        length = rng.randint(100, 400)
        chunks = -(-length // CHUNK)
        shared = [1000 * rng.randrange(2) + j for j in range(min(4, chunks))]
        own = [10_000 + 50 * i + j for j in range(chunks - len(shared))]
        rows.append(
            TraceRow(
                timestamp=round(i * seconds / requests, 4),
                input_length=length,
                output_length=rng.randint(8, 100),
                hash_ids=(*shared, *own),
            )
        )
    return rows


def setup(
    family: str, folder: Path, serve_options: tuple[str, ...] = (), **options: object
) -> Setup:
    write_tiny_model(family, folder / "model")
    shutil.copytree(ROOT / "validate" / "cpu_hardware", folder / "hardware")
    scenario = Scenario(
        model="model",
        device="cpu",
        engine_version="0.32.0",
        enforce_eager=True,
        max_model_len=1024,
        max_num_seqs=16,
        **options,
    )
    return Setup(
        scenario, hardware_dir="hardware", environment=ENVIRONMENT, serve_options=serve_options
    )


def measure(setup, wanted, folder, name, python):
    """Write the plan with its predictions, carry it out, and read what was stored."""
    write_plan(folder / f"{name}.toml", build_plan(setup, wanted, folder))
    plan = read_plan(folder / f"{name}.toml")
    store = Store(folder / "runs")
    settings = RunSettings(python=python, start_timeout_s=300, load_timeout_s=180)
    outcome = run_plan(plan, folder, store, settings, lambda what, share: print(what, share))
    assert outcome.failed == {}
    assert outcome.problems == []  # nothing failed, every length exact
    return {run.key: run for run in read_store(store.root).runs}


def closed(concurrency: int, inputs: int, outputs: int, prompts: int) -> ClosedLoop:
    return ClosedLoop(
        concurrency=concurrency, input_tokens=inputs, output_tokens=outputs, num_prompts=prompts
    )


def test_a_moe_model_is_predicted_calibrated_and_predicted_again(tmp_path, vllm_python):
    first = setup(
        "qwen3_moe",
        tmp_path,
        block_size=CHUNK,
        max_num_batched_tokens=256,
        kv_cache_memory_bytes=64 * 2 * PAGE,
    )
    sweep = [
        Wanted(f"decode-{n}", "decode sweep", "fit", closed(n, 64, 48, 2 * n)) for n in (1, 4, 12)
    ]
    prefill = Wanted("prefill", "prefill-heavy", "fit", closed(3, 384, 8, 15))
    measured = measure(first, [*sweep, prefill], tmp_path, "fit", vllm_python)

    placed = [(run, tmp_path) for run in measured.values()]
    calibration = calibrate(placed, first.hardware(tmp_path))
    save_calibration(tmp_path / "cpu.calibration.json", calibration)
    assert calibration.after.median_error < calibration.before.median_error
    assert any(not parameter.determined for parameter in calibration.parameters)

    write_trace(tmp_path / "trace.jsonl", shared_prefix_trace(60, 1.0, seed=1))
    second = replace(first, calibration="cpu.calibration.json")
    load = TimedTrace(path="trace.jsonl", chunk_tokens=CHUNK, num_prompts=60)
    held_out = Wanted("trace", "shared prefixes beyond the KV pool", "held-out", load)
    run = measure(second, [held_out], tmp_path, "check", vllm_python)["trace"]

    found = compare(run, tmp_path)
    print(found)
    tokens = next(row for row in found.memory if row.name == "KV cache tokens")
    assert tokens.predicted == tokens.measured == 64 * CHUNK
    replay = found.replay
    assert replay is not None
    assert replay.steps >= 200
    assert replay.exact, replay.first_difference
    assert replay.preemptions == replay.recorded_preemptions >= 1
    assert replay.hit_tokens == replay.recorded_hit_tokens >= 1
    assert replay.chunked_prefills >= 1
    throughput = next(row for row in found.client if row.name == "output_tok_s")
    assert 1 / 1.5 < throughput.predicted / throughput.measured < 1.5


def test_a_hybrid_model_is_predicted_and_run(tmp_path, vllm_python):
    """Batches agree. Free blocks do not: moeplan holds both state blocks of a sequence at once."""
    # 16-bit states, as on GPUs; by itself vLLM takes what the CPU's kernels like.
    own = setup(
        "qwen3_next",
        tmp_path,
        ("--mamba-ssm-cache-dtype", "bfloat16"),
        kv_cache_memory_bytes=64 << 20,
        max_num_batched_tokens=1024,
    )
    loads = [Wanted("decode-4", "recurrent decode", "fit", closed(4, 300, 24, 8))]
    run = measure(own, loads, tmp_path, "hybrid", vllm_python)["decode-4"]
    found = compare(run, tmp_path)
    print(found)
    tokens = next(row for row in found.memory if row.name == "KV cache tokens")
    assert tokens.predicted == tokens.measured
    assert found.replay is not None
    assert found.replay.differing == (), found.replay.first_difference
