"""Start a gated vLLM, wait until it serves, read what it says of itself, stop it for certain."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FACTS = {
    "version": r"vLLM API server version (\S+)",
    "weights_gib": r"Model loading took ([\d.]+) GiB",
    "load_s": r"Model loading took [\d.]+ GiB memory and ([\d.]+) s",
    "compile_s": r"torch\.compile (?:takes|took) ([\d.]+) s in total",
    "kv_gib": r"Available KV cache memory: ([\d.]+) GiB",
    "kv_tokens": r"KV cache size: ([\d,]+) tokens",
    "max_concurrency": r"Maximum concurrency for [\d,]+ tokens per request: ([\d.]+)x",
    "graph_s": r"Graph capturing finished in (\d+) secs",
    "graph_gib": r"Graph capturing finished in \d+ secs, took ([\d.-]+) GiB",
    "graph_estimate_gib": r"Estimated CUDA graph memory: ([\d.]+) GiB",
    "attention_backend": r"Using (\S+) attention backend",
    "flash_attention": r"Using FlashAttention version (\d)",
    "mla_prefill": r"Using (.*) for MLA prefill",
    "moe_backend": r"Using '?(\w+)'? (?:Unquantized|Mxfp4|MXFP4|Fp8|FP8|NvFp4)\w* MoE backend",
    "linear_backend": r"Selected (\S+) for",
    "default_moe_config": r"(Using default MoE config[^.]*)",
    "block_size": r"Setting attention block size to (\d+)",
    "async_scheduling": r"Asynchronous scheduling is (\w+)",
    "capture_sizes": r"'cudagraph_capture_sizes': (\[[\d, ]*\])",
    "engine_init_s": r"init engine \(profile, create kv cache, warmup model\) took ([\d.]+) s",
}
"""Facts by name: the first match of each pattern in the server's log (vLLM 0.24 wording)."""


def read_facts(log: str) -> dict[str, str]:
    """What the engine's log says of the engine; a fact that the log lacks is left out."""
    found = {name: re.search(pattern, log) for name, pattern in FACTS.items()}
    return {name: match.group(1) for name, match in found.items() if match}


@dataclass(slots=True)
class Server:
    """One `vllm serve` in its own process group."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    gate: Path
    log: Path

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://127.0.0.1:{self.port}"

    def log_text(self) -> str:
        """All that the server printed so far."""
        return self.log.read_text(errors="replace")

    def open_gate(self) -> None:
        """Let the imported process start its engine."""
        self.gate.touch()

    def wait_imported(self, seconds: float) -> None:
        """Return once the imports are done, the process ended or the time is up."""
        marker = self.gate.with_suffix(".imported")
        end = time.monotonic() + seconds
        while time.monotonic() < end and not marker.exists() and self.process.poll() is None:
            time.sleep(0.2)

    def wait_healthy(self, seconds: float) -> float:
        """Seconds until /health answers.

        Raises:
            RuntimeError: the server ended or the time is up.
        """
        begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name}: vLLM ended with {self.process.returncode}")
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.url}/health", timeout=2).close()
                return time.monotonic() - begun
            time.sleep(0.3)
        raise RuntimeError(f"{self.name}: not healthy after {seconds:.0f} s")

    def call(self, method: str, **arguments: Any) -> Any:
        """Run a worker method in the engine; its answer from the first worker."""
        strings = {key: str(value) for key, value in arguments.items()}
        body = json.dumps({"method": method, "kwargs": strings}).encode()
        request = urllib.request.Request(
            f"{self.url}/collective_rpc", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["results"][0]

    def stop(self) -> None:
        """Interrupt, then kill, the whole group; returns when the group's leader is gone."""
        for number, patience in ((signal.SIGTERM, 3), (signal.SIGKILL, 10)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(patience)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


def start(
    name: str, folder: Path, work: Path, port: int, flags: list[str], environment: dict[str, str]
) -> Server:
    """Start the gated process; nothing touches the GPU before `open_gate`."""
    gate, log = work / f"{name}.gate", work / f"{name}.log"
    for old in (gate, gate.with_suffix(".imported")):
        old.unlink(missing_ok=True)
    module = f"{__package__}.gated_serve"
    command = [sys.executable, "-u", "-m", module, str(gate), "serve", str(folder)]
    command += ["--served-model-name", name, "--host", "127.0.0.1", "--port", str(port), *flags]
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
            start_new_session=True,
        )
    return Server(name, process, port, gate, log)
