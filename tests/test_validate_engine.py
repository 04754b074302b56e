"""Launching, watching and stopping an engine and a benchmark client: a stand-in for vLLM."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moeplan.errors import EngineFailedError
from moeplan.validate.failures import (
    LoadTimeoutError,
    ModelDoesNotFitError,
    PortOccupiedError,
    StartTimeoutError,
)
from moeplan.validate.launch import Engine, EngineCommand
from moeplan.validate.load import BenchClient, Driver
from moeplan.validate.metrics import cache_config, read_counters
from moeplan.validate.processes import members
from moeplan.validate.workloads import ClosedLoop, Poisson, TimedTrace, TraceRow, write_trace

FAKE = str(Path(__file__).parent / "data" / "fake_vllm")
LOAD = ClosedLoop(concurrency=2, input_tokens=8, output_tokens=4, num_prompts=6)


def engine(tmp_path, fault="", **limits):
    environment = {"PYTHONPATH": FAKE, "FAKE_FAULT": fault}
    command = EngineCommand(Path("m"), environment=environment)
    return Engine(command, tmp_path / "engine.log", stop_grace_s=1.0, **limits)


def client(tmp_path, fault=""):
    return BenchClient(
        sys.executable, tmp_path / "client.log", {"PYTHONPATH": FAKE, "FAKE_BENCH": fault}
    )


def group_of(running):
    return running._processes.group


def test_an_engine_serves_and_is_gone_afterwards(tmp_path):
    with engine(tmp_path) as running:
        group = group_of(running)
        assert running.get("/health") == b""
        assert read_counters(running) == {"num_preemptions": 3.0}
        assert cache_config(running)["num_gpu_blocks"] == "64"
        assert running.start_seconds > 0
    assert members(group) == []


def test_a_stubborn_engine_and_its_children_are_killed(tmp_path):
    with engine(tmp_path, "stubborn") as running:
        group = group_of(running)
        assert len(members(group)) == 2
    assert members(group) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_whatever_ends_the_block_stops_the_engine(tmp_path, error):
    groups = []

    def run():
        with engine(tmp_path) as running:
            groups.append(group_of(running))
            raise error

    with pytest.raises(error):
        run()
    assert members(groups[0]) == []


@pytest.mark.parametrize(
    ("fault", "kind", "text"),
    [
        ("exit", EngineFailedError, "KeyError: 'factor'"),
        ("oom", ModelDoesNotFitError, "--max-model-len 1008 or less"),
        ("port", PortOccupiedError, "use another"),
    ],
)
def test_a_failed_start_says_why(tmp_path, fault, kind, text):
    with pytest.raises(kind, match=text), engine(tmp_path, fault):
        pass


def test_an_engine_that_never_serves_is_stopped(tmp_path):
    late = engine(tmp_path, "hang", start_timeout_s=0.5)
    with pytest.raises(StartTimeoutError, match="--start-timeout"), late:
        pass
    assert members(group_of(late)) == []


def test_an_occupied_port_is_refused_before_launch(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = engine(tmp_path, port=other.getsockname()[1])
        with pytest.raises(PortOccupiedError, match="taken by another process"), taken:
            pass
    assert not (tmp_path / "engine.log").exists()


def test_the_owner_killed_outright_leaves_no_engine(tmp_path):
    script = (
        "import sys, time; sys.path.insert(0, sys.argv[1]);"
        "from test_validate_engine import engine, group_of; from pathlib import Path\n"
        "with engine(Path(sys.argv[2])) as e:\n"
        "    print(group_of(e), flush=True); time.sleep(600)"
    )
    argv = [sys.executable, "-c", script, str(Path(__file__).parent), str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as owner:
        group = int(owner.stdout.readline())
        assert members(group)
        owner.send_signal(signal.SIGKILL)
    end = time.monotonic() + 20
    while members(group) and time.monotonic() < end:
        time.sleep(0.1)
    assert members(group) == []


def test_the_environment_that_steers_nccl_reaches_the_engine(monkeypatch):
    monkeypatch.setenv("NCCL_NVLS_ENABLE", "0")
    monkeypatch.setenv("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", "7")
    env = EngineCommand(Path("m"), environment={"OMP_NUM_THREADS": "1"}).env()
    assert env["NCCL_NVLS_ENABLE"] == "0"
    assert env["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"] == "7"
    assert env["OMP_NUM_THREADS"] == "1"


def test_many_points_run_in_one_client(tmp_path):
    write_trace(
        tmp_path / "t.jsonl",
        [TraceRow(timestamp=0, input_length=9, output_length=3, hash_ids=[i]) for i in range(4)],
    )
    loads = [
        LOAD,
        Poisson(rate=2, input_tokens=8, output_tokens=4, num_prompts=3),
        TimedTrace(path="t.jsonl", num_prompts=4),
    ]
    with client(tmp_path) as bench, engine(tmp_path) as running:
        driver = Driver(running, bench, Path("m"), tmp_path)
        process = bench._group.group
        repeats = [driver.measure(load) for load in loads]
        assert bench._group.group == process
    assert [repeat.result["completed"] for repeat in repeats] == [6, 3, 4]
    assert all(repeat.clean for repeat in repeats)
    assert repeats[2].result["input_lens"] == [9] * 4
    assert members(process) == []


@pytest.mark.parametrize(
    ("fault", "problem"), [("fail", "1 of 6 requests failed: Server"), ("short", "output_lens: 1")]
)
def test_results_that_are_no_evidence_say_so(tmp_path, fault, problem):
    with client(tmp_path, fault) as bench, engine(tmp_path) as running:
        repeat = Driver(running, bench, Path("m"), tmp_path).measure(LOAD)
    assert not repeat.clean
    assert problem in repeat.problems[0]


def test_a_hung_benchmark_is_stopped_and_the_next_run_starts_afresh(tmp_path):
    with client(tmp_path, "hang") as bench, engine(tmp_path) as running:
        driver = Driver(running, bench, Path("m"), tmp_path, timeout_s=0.5)
        hung = bench._group.group
        with pytest.raises(LoadTimeoutError, match="--load-timeout"):
            driver.measure(LOAD)
        assert members(hung) == []
        bench.environment = {"PYTHONPATH": FAKE}
        assert driver.measure(LOAD).clean


@pytest.mark.parametrize(("fault", "text"), [("error", "out of vocabulary"), ("die", "exited")])
def test_a_benchmark_that_fails_says_why(tmp_path, fault, text):
    with client(tmp_path, fault) as bench, engine(tmp_path) as running:
        driver = Driver(running, bench, Path("m"), tmp_path)
        with pytest.raises(EngineFailedError, match=text):
            driver.measure(LOAD)


def test_an_engine_that_dies_in_mid_run_is_noticed(tmp_path):
    with client(tmp_path, "hang") as bench, engine(tmp_path) as running:
        driver = Driver(running, bench, Path("m"), tmp_path, timeout_s=60)
        os.killpg(group_of(running), signal.SIGKILL)
        with pytest.raises(EngineFailedError, match="the engine exited with code -9"):
            driver.measure(LOAD)


def test_kernels_compiled_while_measuring_taint_the_repeat(tmp_path):
    with client(tmp_path) as bench, engine(tmp_path, "jit") as running:
        repeat = Driver(running, bench, Path("m"), tmp_path).measure(LOAD)
    assert "moe_kernel" in repeat.compiled[0]
    assert not repeat.clean


def test_a_run_in_which_a_kernel_was_compiled_is_repeated(tmp_path):
    with client(tmp_path) as bench, engine(tmp_path, "jit-once") as running:
        driver = Driver(running, bench, Path("m"), tmp_path)
        assert driver.measure(LOAD).clean
        assert driver._seed == 2


def test_warming_up_ends_when_nothing_is_compiled(tmp_path):
    with client(tmp_path) as bench, engine(tmp_path, "jit-once") as running:
        assert Driver(running, bench, Path("m"), tmp_path).warm_up(LOAD) == 2
