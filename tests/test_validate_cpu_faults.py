"""Faults in real vLLM on the CPU: each ends with a clear message, and no process is left."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from moeplan.errors import EngineFailedError
from moeplan.validate.dummy_model import write_tiny_model
from moeplan.validate.failures import ModelDoesNotFitError
from moeplan.validate.launch import Engine, EngineCommand
from moeplan.validate.load import BenchClient, Driver
from moeplan.validate.processes import members
from moeplan.validate.workloads import ClosedLoop

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]
CPU = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}


def engine(folder: Path, python: str, *options: str) -> Engine:
    model = write_tiny_model("qwen3_moe", folder / "model")
    shared = ("--load-format", "dummy", "--enforce-eager", "--max-model-len", "1024")
    command = EngineCommand(model, (*shared, *options), python, environment=CPU)
    return Engine(command, folder / "engine.log", start_timeout_s=300, stop_grace_s=10)


def test_a_model_that_does_not_fit_says_what_would(tmp_path, vllm_python):
    too_small = engine(tmp_path, vllm_python, "--kv-cache-memory-bytes", "524288")
    with pytest.raises(ModelDoesNotFitError, match=r"set --max-model-len \d+ or less"), too_small:
        pass
    assert members(too_small._processes.group) == []


def test_an_engine_killed_in_mid_run_is_noticed_and_nothing_is_left(tmp_path, vllm_python):
    load = ClosedLoop(concurrency=4, input_tokens=64, output_tokens=512, num_prompts=400)
    log = tmp_path / "client.log"
    options = ("--kv-cache-memory-bytes", "33554432", "--max-num-seqs", "4")
    with (
        BenchClient(vllm_python, log) as client,
        engine(tmp_path, vllm_python, *options) as running,
    ):
        engine_group, client_group = running._processes.group, client._group.group
        driver = Driver(running, client, tmp_path / "model", tmp_path, timeout_s=300)
        killer = threading.Thread(target=_kill_core_once_busy, args=(running,))
        killer.start()
        begin = time.monotonic()
        with pytest.raises(EngineFailedError):
            driver.measure(load)
        killer.join()
        assert time.monotonic() - begin < 200
    assert members(engine_group) == []
    assert members(client_group) == []


def _kill_core_once_busy(running: Engine) -> None:
    """SIGKILL to the whole engine while requests are under way."""
    while b"vllm:num_requests_running{" not in running.get("/metrics", 30.0):
        time.sleep(0.5)
    while not any(
        line.startswith(b"vllm:num_requests_running{") and not line.endswith(b" 0.0")
        for line in running.get("/metrics", 30.0).splitlines()
    ):
        time.sleep(0.5)
    os.killpg(running._processes.group, signal.SIGKILL)
