"""Why an engine failed, in one line that says what to do: read from its log.

EngineFailedError
├── PortOccupiedError    another process holds the port
├── ModelDoesNotFitError weights, activations or one sequence exceed the memory
├── StartTimeoutError    it neither served nor exited in time
└── LoadTimeoutError     the benchmark client hung
"""

from __future__ import annotations

import re
from pathlib import Path

from moeplan.errors import EngineFailedError


class PortOccupiedError(EngineFailedError):
    """Another process holds the port."""


class ModelDoesNotFitError(EngineFailedError):
    """Weights, activations or one sequence exceed the memory given to the engine."""


class StartTimeoutError(EngineFailedError):
    """The engine neither served nor exited within the time allowed."""


class LoadTimeoutError(EngineFailedError):
    """The benchmark client did not finish within the time allowed."""


_PORT = re.compile(r"address already in use|errno 98", re.IGNORECASE)
# vLLM v1/core/kv_cache_utils.py, v1/worker/utils.py and torch's allocator (0.24 to 0.33).
_TOO_LARGE = re.compile(
    r"larger than the available KV cache memory|No available memory for the cache blocks|"
    r"less than desired GPU memory utilization|out of memory|OutOfMemoryError|"
    r"Not enough memory|exceeds the available memory",
    re.IGNORECASE,
)
_LONGEST = re.compile(r"estimated maximum model length is (\d+)")
_EXCEPTION = re.compile(r"(?:^|\s|\])(?P<text>[A-Za-z_.]*(?:Error|Exception|Interrupt)\b: \S.*)$")
_BENIGN = re.compile(r"^(?:\([^)]*\) )?(?:INFO|WARNING|DEBUG)\b")
_CONSEQUENCE = re.compile(
    r"Engine core initialization failed|EngineDeadError|EngineCore encountered an issue|"
    r"See stack trace|See root cause|WorkerProc initialization failed|Failed core proc|"
    r"leaked .* objects|destroy_process_group"
)
"""Lines that follow from an earlier error and name no reason of their own."""


def failure_from_log(log: str, what: str, where: Path) -> EngineFailedError:
    """The error to raise for an engine that failed: `what` happened, why by its log, a remedy."""
    reason = root_cause(log)
    text = f"{what}: {reason} (log: {where})"
    if _PORT.search(log):
        return PortOccupiedError(f"{text}; stop what holds the port, or use another")
    if _TOO_LARGE.search(log):
        longest = _LONGEST.search(log)
        remedy = (
            f"set --max-model-len {longest[1]} or less" if longest else "shorten --max-model-len"
        )
        return ModelDoesNotFitError(
            f"{text}; the model does not fit: {remedy}, lower --max-num-batched-tokens, raise "
            "--gpu-memory-utilization or use more GPUs"
        )
    return EngineFailedError(text)


def root_cause(log: str) -> str:
    """The first exception line that names a reason, else the last line that says anything."""
    lines = [line.rstrip() for line in log.splitlines() if line.strip()]
    for line in lines:
        found = _EXCEPTION.search(line)
        if found and not _CONSEQUENCE.search(line) and not _BENIGN.search(line):
            return found["text"].strip()
    for line in reversed(lines):
        if not _CONSEQUENCE.search(line) and not _BENIGN.search(line):
            return line.strip()
    return "it wrote nothing"
