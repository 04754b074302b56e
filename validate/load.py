"""Drive vLLM's own benchmark: many points in one client process, none while kernels compile."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from moeplan.errors import EngineFailedError
from moeplan.validate.engine_log import compiled_kernels
from moeplan.validate.failures import LoadTimeoutError, failure_from_log
from moeplan.validate.launch import INSIDE, Engine
from moeplan.validate.metrics import read_counters
from moeplan.validate.processes import ProcessGroup
from moeplan.validate.workloads import LoadPoint, TimedTrace, requested_lengths

READY_TIMEOUT_S = 300.0
"""For the client's imports, which a loaded two-core machine takes a minute for."""
_POLL_S = 0.2
_MAX_WARM_UPS = 4
_CLIENT_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    # timed_trace seeds its tokens from hash(): the same file must mean the same prompts.
    "PYTHONHASHSEED": "0",
}


@dataclass(frozen=True, slots=True)
class Repeat:
    """One measured run of a load point.

    `result` is what `vllm bench serve --save-result --save-detailed` wrote. `counters` are
    differences of the server's counters over the run. `compiled` holds log lines of kernels that
    were compiled meanwhile, `problems` what else makes it unfit as evidence.
    """

    result: dict[str, Any]
    counters: dict[str, float]
    compiled: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    span_ns: tuple[int, int] = (0, 0)
    """Start and end on the host's monotonic clock: joins the run to probed steps."""

    @property
    def clean(self) -> bool:
        """Whether nothing speaks against the figures."""
        return not self.compiled and not self.problems


class BenchClient:
    """One process with the benchmark imported; runs points one after another.

    A context manager. `run` restarts the process where the last run hung or killed it.
    """

    def __init__(self, python: str, log_path: Path, environment: Mapping[str, str] | None = None):
        self.python = python
        self.log_path = log_path
        self.environment = environment or {}
        self._group: ProcessGroup | None = None
        self._answers: IO[bytes] | None = None
        self._pending = b""

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process; does nothing where none runs."""
        if self._group is not None:
            if self._group.process.stdin is not None:
                self._group.process.stdin.close()
            self._group.stop(grace_s=5.0)
            self._group = None
        if self._answers is not None:
            self._answers.close()
            self._answers = None

    def run(self, argv: list[str], timeout_s: float, engine: Engine) -> None:
        """One `vllm bench serve` with these options.

        Raises `LoadTimeoutError` where it hangs, `EngineFailedError` where it or the engine fails.
        """
        if self._group is None:
            self._start()
        self._await("ready", READY_TIMEOUT_S, engine, first=True)
        self._send({"argv": argv})
        answer = self._await("done", timeout_s, engine)
        if not answer["ok"]:
            engine.check_alive()
            raise EngineFailedError(f"vllm bench serve: {answer['error']} (log: {self.log_path})")

    def _start(self) -> None:
        reading, writing = os.pipe()
        argv = [self.python, str(INSIDE / "moeplan_bench.py"), str(writing)]
        env = {**os.environ, **_CLIENT_ENVIRONMENT, **self.environment}
        try:
            self.log_path.parent.mkdir(parents=True, exist_ok=True)
            with self.log_path.open("ab") as output:
                self._group = ProcessGroup(
                    argv, env=env, output=output, stdin=subprocess.PIPE, pass_fds=[writing]
                )
        finally:
            os.close(writing)
        self._answers = os.fdopen(reading, "rb", buffering=0)
        self._pending = b""
        self._ready = False

    def _send(self, message: dict[str, Any]) -> None:
        assert self._group is not None
        assert self._group.process.stdin is not None
        try:
            self._group.process.stdin.write(json.dumps(message).encode() + b"\n")
            self._group.process.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None

    def _await(
        self, what: str, timeout_s: float, engine: Engine, first: bool = False
    ) -> dict[str, Any]:
        if first and self._ready:
            return {}
        end = time.monotonic() + timeout_s
        while b"\n" not in self._pending:
            if time.monotonic() > end:
                self.stop()
                raise LoadTimeoutError(
                    f"the benchmark was not {what} within {timeout_s:.0f} s and was stopped; "
                    f"see {self.log_path}, or allow more with --load-timeout"
                )
            engine.check_alive()
            self._read_more()
        line, _, self._pending = self._pending.partition(b"\n")
        self._ready = True
        return json.loads(line)

    def _read_more(self) -> None:
        assert self._answers is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._answers, selectors.EVENT_READ)
            if selector.select(_POLL_S):
                piece = self._answers.read(1 << 16)
                if not piece:
                    raise self._died()
                self._pending += piece

    def _died(self) -> EngineFailedError:
        log = self.log_path.read_text(errors="replace")
        self.stop()
        return failure_from_log(log, "the benchmark client exited", self.log_path)


@dataclass(slots=True)
class Driver:
    """Measures load points against one engine through one client."""

    engine: Engine
    client: BenchClient
    tokenizer: Path
    plan_folder: Path
    """Folder that the plan's trace files are relative to."""
    timeout_s: float = 600.0
    """Longest time of one benchmark run."""
    _seed: int = 0

    def warm_up(self, load: LoadPoint) -> int:
        """Run the point's shapes until a run compiles nothing; returns the number of runs.

        A trace is not replayed: its shared prefixes would be found in the cache by the real run.
        """
        if isinstance(load, TimedTrace):
            return 0
        for count in range(1, _MAX_WARM_UPS + 1):
            if not self._once(load.shrunk()).compiled:
                return count
        return _MAX_WARM_UPS

    def measure(self, load: LoadPoint, attempts: int = 3) -> Repeat:
        """One measured run, from an empty prefix cache.

        A run during which a kernel was compiled is repeated, up to `attempts` times in all; the
        last one is returned with the lines that taint it.
        """
        repeat = self._once(load)
        for _ in range(attempts - 1):
            if not repeat.compiled:
                break
            repeat = self._once(load)
        return repeat

    def _once(self, load: LoadPoint) -> Repeat:
        self.engine.reset_prefix_cache()
        self._seed += 1
        seen = len(self.engine.log())
        before = self._counters()
        begin = time.monotonic_ns()
        result = self._bench(load)
        span = (begin, time.monotonic_ns())
        after = self._counters()
        counters = {name: after[name] - before.get(name, 0.0) for name in after}
        compiled = compiled_kernels(self.engine.log()[seen:])
        problems = check_result(result, load, self.plan_folder)
        return Repeat(result, counters, compiled, problems, span)

    def _counters(self) -> dict[str, float]:
        try:
            return read_counters(self.engine)
        except OSError as error:
            raise self.engine.failure(f"the engine did not tell its counters: {error}") from None

    def _bench(self, load: LoadPoint) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="moeplan-bench-") as folder:
            path = Path(folder) / "result.json"
            options = self._common_options(path) + load.bench_options(self.plan_folder)
            self.client.run(options, self.timeout_s, self.engine)
            return json.loads(path.read_text())

    def _common_options(self, result: Path) -> list[str]:
        return [
            *("--backend", "vllm", "--base-url", self.engine.base_url),
            *("--model", self.engine.command.served_name, "--tokenizer", str(self.tokenizer)),
            *("--seed", str(self._seed), "--temperature", "0", "--disable-tqdm"),
            *("--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,90,99"),
            *("--save-result", "--save-detailed"),
            *("--result-dir", str(result.parent), "--result-filename", result.name),
        ]


def check_result(result: dict[str, Any], load: LoadPoint, folder: Path) -> list[str]:
    """What makes a benchmark result unfit as evidence: failures, lengths other than requested."""
    problems = []
    inputs, outputs = requested_lengths(load, folder)
    failed = len(inputs) - result["completed"]
    if failed:
        reason = next((text for text in result.get("errors", []) if text), "no reason given")
        last = str(reason).strip().splitlines()[-1]
        problems.append(f"{failed} of {len(inputs)} requests failed: {last}")
    for what, asked in (("input_lens", inputs), ("output_lens", outputs)):
        wrong = sum(a != b for a, b in zip(asked, result.get(what, asked), strict=False))
        if wrong:
            problems.append(f"{what}: {wrong} of {len(asked)} requests differ from the plan")
    return problems
