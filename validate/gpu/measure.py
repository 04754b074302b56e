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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .load import Client
from .make_model import write_model
from .server import Server, read_facts, start

CAPTURE_SIZES = [1, 2, 4, 8, 16, 32, 64, 128, 256]
DECODE_BATCHES = [1, 2, 4, 8, 12, 16, 32, 48, 64, 96, 128, 192, 256]
LONG_DECODES = [(1, 8192), (1, 32000), (8, 8192), (16, 4096), (32, 2048), (64, 1500)]
PREFILL_TOKENS = [64, 128, 256, 512, 1024, 2048, 4096, 8192]
SKEW_BATCHES = [4, 8, 16, 32, 64, 128, 256]
CHECK_BATCHES = [1, 4, 16, 64, 256]
SKEW = 1.16
"""Lognormal width of expert popularity in mixed real traffic (hardware notes, two sources)."""


@dataclass(frozen=True, slots=True)
class Served:
    """One closed-loop point of vLLM's own benchmark."""

    concurrency: int
    prompts: int
    input_tokens: int = 1024
    output_tokens: int = 128
    routing: str = "uniform"


SERVED = [Served(1, 5), Served(8, 32), Served(32, 128), Served(64, 256)]
SERVED_EXTRA = [Served(128, 384, 128, 128)]


class Job:
    """One model on one server: its pieces run in order and each keeps its own failures."""

    def __init__(self, spec: dict[str, Any], server: Server, results: Path, bench: Any) -> None:
        self.spec, self.server, self.bench = spec, server, bench
        self.folder = results / spec["name"]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.client = Client(server.url, spec["name"], spec["vocab_size"])
        self.begun = time.monotonic()

    def keep(self, name: str, record: Any) -> None:
        """Append one line to a file of this job."""
        with (self.folder / f"{name}.jsonl").open("a") as sink:
            sink.write(json.dumps(record) + "\n")

    def piece(self, name: str, work: Callable[[], None]) -> None:
        """Run one part within the job's time; a failure is recorded, the next part goes on."""
        spent = time.monotonic() - self.begun
        if spent > self.spec["budget_s"]:
            self.keep("pieces", {"piece": name, "skipped_at_s": spent})
            return
        compiled = self._compilations()
        try:
            work()
            error = None
        except Exception:
            error = traceback.format_exc()[-1500:]
        about = {"piece": name, "from_s": spent, "to_s": time.monotonic() - self.begun}
        compiled = self._compilations() - compiled
        self.keep("pieces", about | {"error": error, "kernels_compiled": compiled})
        (self.folder / "phases.json").write_text(json.dumps(self.client.phases))
        print(self.spec["name"], about, "FAILED " + error if error else "", flush=True)

    def _compilations(self) -> int:
        return self.server.log_text().count("JIT compilation during inference")

    def start_engine(self) -> None:
        """Open the gate, wait for health, keep the engine's own facts and its log."""
        self.server.open_gate()
        try:
            healthy = self.server.wait_healthy(self.spec.get("start_s", 300))
        finally:
            self.save_log()
        facts = read_facts(self.server.log_text()) | {"healthy_after_s": healthy}
        with contextlib.suppress(Exception):
            facts["memory"] = self.server.call("moeplan_memory")
        (self.folder / "facts.json").write_text(json.dumps(facts | {"job": self.spec}))
        self.begun = time.monotonic()

    def save_log(self) -> None:
        """Copy the server's log to the results."""
        (self.folder / "server.log").write_text(self.server.log_text())

    def warm(self) -> None:
        """Meet each decode batch and prompt length once, unmeasured."""
        for batch in (1, 8, 32, 256):
            self.client.decode("warm", batch, 64, 6)
        for tokens in (256, 512, 1024, 2048, 4096, 8192):
            self.client.prefill("warm", tokens, 1)

    def decode_sweep(self, kind: str, batches: list[int]) -> None:
        """Decode steps at short context."""
        for batch in batches:
            self.client.decode(kind, batch, 128, 72 if batch <= 32 else 48)

    def long_decodes(self) -> None:
        """Decode steps at long context; the prompts' chunks are prefills with context."""
        for batch, context in LONG_DECODES:
            self.client.decode("decode_long", batch, context, 40)

    def prefills(self) -> None:
        """Lone prompts; the first of each length is a warm-up."""
        for tokens in PREFILL_TOKENS:
            self.client.prefill("prefill", tokens, 5 if tokens < 4096 else 4)

    def mixed(self) -> None:
        """Prefill chunks that ride on a batch of 32 decodes."""
        lengths = [512] * 4 + [1024] * 4 + [2048] * 4 + [4096] * 3
        self.client.mixed(32, 1024, 250, lengths)

    def count_experts(self, routing: str) -> None:
        """Distinct experts by tokens in the step, in eager mode on real requests."""
        if not self.spec.get("top_k"):
            return
        self.server.call("moeplan_count_on", top_k=self.spec["top_k"])
        try:
            for batch in CHECK_BATCHES:
                self.client.decode("count", batch, 64, 6, routing=routing)
        finally:
            counted = self.server.call("moeplan_count_off")
        self.keep("routing", {"routing": routing, "experts": self.spec["experts"], **counted})

    def set_skew(self, sigma: float) -> None:
        """Redraw the routers."""
        self.keep("routing_set", self.server.call("moeplan_set_routing", sigma=sigma))

    def serve_points(self, points: list[Served]) -> None:
        """vLLM's own benchmark, one point after another, in this process."""
        for index, point in enumerate(points):
            self._serve(point, index)

    def _serve(self, point: Served, seed: int) -> None:
        options = {
            "backend": "vllm",
            "base-url": self.server.url,
            "model": self.spec["name"],
            "tokenizer": self.spec["folder"],
            "dataset-name": "random",
            "random-input-len": point.input_tokens,
            "random-output-len": point.output_tokens,
            "num-prompts": point.prompts,
            "max-concurrency": point.concurrency,
            "seed": seed + 100 * point.concurrency + point.input_tokens,
            "temperature": 0,
            "percentile-metrics": "ttft,tpot,itl,e2el",
            "metric-percentiles": "50,90,99",
        }
        words = [part for key, value in options.items() for part in (f"--{key}", str(value))]
        compiled, begun = self._compilations(), time.perf_counter()
        result = self.bench([*words, "--ignore-eos", "--disable-tqdm"])
        span = {"t0": begun, "t1": time.perf_counter()}
        scalars = {k: v for k, v in result.items() if isinstance(v, str | int | float)}
        about = {name: getattr(point, name) for name in Served.__slots__}
        about["kernels_compiled"] = self._compilations() - compiled
        self.keep("served", about | span | {"result": scalars})
        self.client.phases.append({"kind": "served", **about, **span})

    def run(self) -> None:
        """All parts, the most valuable first."""
        parts: list[tuple[str, Callable[[], None]]] = [
            ("warm", self.warm),
            ("warm_sweep", lambda: self.decode_sweep("warm", DECODE_BATCHES)),
            ("decode", lambda: self.decode_sweep("decode", DECODE_BATCHES)),
            ("prefill", self.prefills),
            ("count_uniform", lambda: self.count_experts("uniform")),
            ("served_warm", lambda: self.serve_points([Served(64, 64, 1024, 8, "warm")])),
            ("served", lambda: self.serve_points(SERVED)),
            ("decode_long", self.long_decodes),
            ("mixed", self.mixed),
            *self.skewed_parts(),
            ("served_extra", lambda: self.serve_points(self.extra_points())),
        ]
        for name, work in parts:
            self.piece(name, work)
        self.save_log()

    def skewed_parts(self) -> list[tuple[str, Callable[[], None]]]:
        """The same model with skewed routing, then uniform again."""
        if not self.spec.get("top_k"):
            return []
        point = Served(32, 96, routing="skewed")
        return [
            ("skew", lambda: self.set_skew(SKEW)),
            ("decode_skewed", lambda: self.decode_sweep("decode_skewed", SKEW_BATCHES)),
            ("count_skewed", lambda: self.count_experts("skewed")),
            ("served_skewed", lambda: self.serve_points([point])),
            ("unskew", lambda: self.set_skew(0.0)),
        ]

    def extra_points(self) -> list[Served]:
        """Points of every model and those that this job asks for."""
        return SERVED_EXTRA + [Served(**point) for point in self.spec.get("served", [])]


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
    watcher = watch_gpu(options.results)
    servers = [
        prepare(spec, 8100 + index, options.work, options.results)
        for index, spec in enumerate(specs)
    ]
    try:
        if options.probe:
            describe_host(options.results)
            probe_device(options.results)
        bench = load_bench()
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
