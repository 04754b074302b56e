"""Measure a queue of models on this host's GPU: exact step times, served runs, routing checks.

    python -m <package>.measure JOBS.json --work /tmp/work --results /tmp/results [--only NAME ...]

All servers import at once and start one after another. Everything is written as it comes, so that
a run that is cut short keeps what it has.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .job import Job
from .make_model import write_model
from .server import Server, start

CAPTURE_SIZES = [1, 2, 4, 8, 16, 32, 64, 128, 256]


def load_bench() -> Callable[[list[str]], dict[str, Any]]:
    """vLLM's serving benchmark as a function of its command-line words."""
    from vllm.benchmarks import serve
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser()
    serve.add_cli_args(parser)

    def bench(words: list[str]) -> dict[str, Any]:
        arguments = parser.parse_args(words)
        arguments.subparser = "bench"
        return serve.main(arguments)

    return bench


def server_flags(spec: dict[str, Any]) -> list[str]:
    """vLLM's flags for one job."""
    graphs = {"cudagraph_capture_sizes": CAPTURE_SIZES}
    flags = ["--load-format", "dummy", "--max-num-seqs", "256", "--no-enable-prefix-caching"]
    flags += ["--max-model-len", str(spec["max_model_len"])]
    flags += ["--scheduler-cls", f"{__package__}.step_recorder.{spec['recorder']}"]
    flags += ["--worker-extension-cls", f"{__package__}.worker_hooks.RoutedWorker"]
    if spec.get("graphs", True):
        flags += ["--compilation-config", json.dumps(graphs)]
    return flags + spec.get("flags", [])


def prepare(spec: dict[str, Any], port: int, work: Path, results: Path) -> Server:
    """Write the model folder and start the process that imports and waits."""
    config = json.loads(Path(spec["config"]).read_text())
    folder = write_model(work / spec["name"], config, spec["storage"], spec.get("layers"))
    spec["folder"], spec["vocab_size"] = str(folder), config["vocab_size"]
    steps = results / spec["name"] / "steps.jsonl"
    steps.parent.mkdir(parents=True, exist_ok=True)
    environment = {"MOEPLAN_STEPS": str(steps), "VLLM_SERVER_DEV_MODE": "1"}
    environment |= {"VLLM_CACHE_ROOT": str(work / "cache")}
    return start(spec["name"], folder, work, port, server_flags(spec), environment)


def watch_gpu(results: Path) -> subprocess.Popen[bytes] | None:
    """Clocks, power, temperature and memory twice a second; None without nvidia-smi."""
    query = "timestamp,clocks.sm,clocks.mem,power.draw,temperature.gpu,memory.used,utilization.gpu"
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader", "-lms", "500"]
    sink = (results / "gpu.csv").open("wb")
    offset = {"epoch": time.time(), "monotonic": time.perf_counter()}
    (results / "clock.json").write_text(json.dumps(offset))
    try:
        return subprocess.Popen(command, stdout=sink, stderr=subprocess.DEVNULL)
    except FileNotFoundError:
        return None


def describe_host(results: Path) -> None:
    """What the machine is: GPU, driver, CPU, torch."""
    commands = {
        "gpu": ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,power.limit",
                "--format=csv,noheader"],
        "cpu": ["sh", "-c", "grep -m1 'model name' /proc/cpuinfo; nproc; uname -r"],
        "torch": [sys.executable, "-c", "import torch, triton; print(torch.__version__, triton.__version__)"],  # noqa: E501
    }  # fmt: skip
    host = {}
    for name, command in commands.items():
        with contextlib.suppress(OSError):
            host[name] = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    (results / "host.json").write_text(json.dumps(host))


def probe_device(results: Path) -> None:
    """Bandwidth and GEMM ceilings, while the servers import and the GPU is idle."""
    command = [sys.executable, "-m", f"{__package__}.device_probe"]
    with (results / "device.json").open("wb") as sink:
        subprocess.run(command, stdout=sink, timeout=120, check=False)


def main() -> None:
    """Run the queue."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("jobs", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--probe", action="store_true")
    parser.add_argument("--after", type=Path, help="wait for this file before the first model")
    options = parser.parse_args()
    specs = json.loads(options.jobs.read_text())
    if options.only:
        specs = [spec for spec in specs if spec["name"] in options.only]
    for folder in (options.work, options.results):
        folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    run_queue(specs, options)


def run_queue(specs: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Import everything at once, then one model after another; always stop every server."""
    watcher = None if options.after else watch_gpu(options.results)
    servers = [
        prepare(spec, 8100 + index, options.work, options.results)
        for index, spec in enumerate(specs)
    ]
    try:
        if options.probe:
            describe_host(options.results)
            probe_device(options.results)
        bench = load_bench()
        while options.after and not options.after.exists():
            time.sleep(0.2)
        for spec, server in zip(specs, servers, strict=True):
            run_job(spec, server, options.results, bench)
    finally:
        for server in servers:
            server.stop()
        if watcher:
            watcher.terminate()


def run_job(spec: dict[str, Any], server: Server, results: Path, bench: Any) -> None:
    """One model; what goes wrong is printed and recorded, the queue goes on."""
    job = Job(spec, server, results, bench)
    begun = time.monotonic()
    try:
        server.wait_imported(120)
        job.start_engine()
        print(spec["name"], "healthy after", round(time.monotonic() - begun), "s", flush=True)
        job.run()
    except Exception:
        job.keep("pieces", {"piece": "start", "error": traceback.format_exc()[-3000:]})
        print(spec["name"], traceback.format_exc(), job.server.log_text()[-3000:], flush=True)
    finally:
        server.stop()
    print(spec["name"], "done after", round(time.monotonic() - begun), "s", flush=True)


if __name__ == "__main__":
    main()
