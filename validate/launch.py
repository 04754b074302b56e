"""Start a vLLM server, wait until it serves, and always stop it.

with Engine(command, log_path) as engine:
    engine.base_url, engine.command.served_name
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from moeplan.errors import EngineFailedError
from moeplan.validate.failures import PortOccupiedError, StartTimeoutError, failure_from_log
from moeplan.validate.processes import ProcessGroup

LOOPBACK = "127.0.0.1"
INSIDE = Path(__file__).parent / "inside"
"""Folder with the modules that run inside the engine; goes on its import path."""

_HEALTH_EVERY_S = 0.2
_DYING_S = 5.0
"""What an engine may take from dropping its connections to its exit."""
_ENGINE_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    # The default of 5 s drops idle connections of a loaded server in mid-benchmark.
    "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "120",
    # Opens POST /reset_prefix_cache, on the loopback address only.
    "VLLM_SERVER_DEV_MODE": "1",
}
"""Set unless the user's environment says otherwise; all else (NCCL_*, CUDA_*) is inherited."""


@dataclass(frozen=True, slots=True)
class EngineCommand:
    """How to start one server: model folder, vLLM's own options, the interpreter that has vLLM."""

    model: Path
    options: tuple[str, ...] = ()
    """Options of `vllm serve`, one argument an element."""
    python: str = sys.executable
    served_name: str = "moeplan"
    environment: Mapping[str, str] = field(default_factory=dict)

    def argv(self, port: int) -> list[str]:
        """Argument vector that serves on the loopback `port`."""
        head = [self.python, "-m", "vllm.entrypoints.cli.main", "serve", str(self.model)]
        where = ["--served-model-name", self.served_name, "--host", LOOPBACK, "--port", str(port)]
        return [*head, *where, *self.options]

    def env(self) -> dict[str, str]:
        """The environment inherited, completed, and overridden by `environment`."""
        merged = {**_ENGINE_ENVIRONMENT, **os.environ, **self.environment}
        path = merged.get("PYTHONPATH")
        merged["PYTHONPATH"] = f"{INSIDE}{os.pathsep}{path}" if path else str(INSIDE)
        return merged


class Engine:
    """A server in a session of its own; a context manager that yields it once it serves.

    States: not started, starting (inside `__enter__`), serving, stopped. Whatever ends the block
    (an exception, Ctrl-C, a start that fails) leaves no process of it behind.
    """

    def __init__(
        self,
        command: EngineCommand,
        log_path: Path,
        *,
        port: int | None = None,
        start_timeout_s: float = 1800.0,
        stop_grace_s: float = 60.0,
    ) -> None:
        self.command = command
        self.log_path = log_path
        self.port = port
        self.start_timeout_s = start_timeout_s
        self.stop_grace_s = stop_grace_s
        self.start_seconds: float | None = None
        """Seconds from launch to the first healthy answer."""
        self._processes: ProcessGroup | None = None

    @property
    def base_url(self) -> str:
        """Address of the server, without a trailing slash."""
        return f"http://{LOOPBACK}:{self.port}"

    def log(self) -> str:
        """All that the engine has written so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def check_alive(self) -> None:
        """Raise `EngineFailedError` with the engine's last meaningful line if it has exited."""
        if self._processes is None:
            raise EngineFailedError("the engine was not started; use it in a with block")
        code = self._processes.poll()
        if code is not None:
            raise failure_from_log(self.log(), f"the engine exited with code {code}", self.log_path)

    def get(self, path: str, timeout_s: float = 5.0) -> bytes:
        """Body of a GET request to the server; raises OSError where it does not answer 200."""
        with urllib.request.urlopen(self.base_url + path, timeout=timeout_s) as answer:
            return answer.read()

    def post(self, path: str, content: Any = None, timeout_s: float = 30.0) -> Any:
        """Answer to a POST request as plain values, None if it is empty; raises OSError."""
        request = urllib.request.Request(
            self.base_url + path,
            data=json.dumps(content).encode() if content is not None else b"",
            headers={"Content-Type": "application/json"},
            method="POST",
        )
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            body = answer.read()
        return json.loads(body) if body else None

    def reset_prefix_cache(self) -> None:
        """Forget all cached prefixes, so that the next run starts as the first did.

        Raises `EngineFailedError` where the engine refuses (it does while requests run).
        """
        try:
            self.post("/reset_prefix_cache")
        except OSError as error:
            raise self.failure(f"the engine did not reset its prefix cache: {error}") from None

    def failure(self, what: str) -> EngineFailedError:
        """The error to raise where the engine did not answer: its own reason if it is dying."""
        end = time.monotonic() + _DYING_S
        while time.monotonic() < end:
            try:
                self.check_alive()
            except EngineFailedError as error:
                return error
            time.sleep(_HEALTH_EVERY_S)
        return EngineFailedError(f"{what} (log: {self.log_path})")

    def __enter__(self) -> Self:
        self.port = claim_port(self.port)
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.log_path.open("ab") as output:
                self._processes = ProcessGroup(
                    self.command.argv(self.port), env=self.command.env(), output=output
                )
            self._wait_until_healthy()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End every process of the engine; does nothing where none runs."""
        if self._processes is not None:
            self._processes.stop(self.stop_grace_s)

    def _wait_until_healthy(self) -> None:
        begin = time.monotonic()
        while not self._healthy():
            self.check_alive()
            waited = time.monotonic() - begin
            if waited > self.start_timeout_s:
                raise StartTimeoutError(
                    f"the engine did not serve within {self.start_timeout_s:.0f} s; "
                    f"see {self.log_path}, or allow more with --start-timeout"
                )
            time.sleep(_HEALTH_EVERY_S)
        self.check_alive()
        self.start_seconds = time.monotonic() - begin

    def _healthy(self) -> bool:
        """Whether our own server answers: another one on this port would not know our name."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            self.get("/health")
            models = json.loads(self.get("/v1/models"))["data"]
            return any(model["id"] == self.command.served_name for model in models)
        return False


def claim_port(port: int | None) -> int:
    """A free loopback port: `port` itself, or any; raises `PortOccupiedError` where it is taken."""
    with socket.socket() as probe:
        # As servers do: a port in TIME_WAIT after an earlier server is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port or 0))
        except OSError as error:
            raise PortOccupiedError(
                f"port {port} on {LOOPBACK} is taken by another process; "
                "stop that, or leave --port out for a free one"
            ) from error
        return int(probe.getsockname()[1])
