"""The machine that a run was measured on, as far as it tells."""

from __future__ import annotations

import os
import platform
import subprocess
from typing import Any

_GPU_FIELDS = (
    "name",
    "driver_version",
    "memory.total",
    "power.limit",
    "clocks.max.sm",
    "clocks.max.memory",
)
_STEERING = (
    "CUDA_VISIBLE_",
    "NCCL_",
    "NVSHMEM_DISABLE_",
    "TORCH_SYMM_MEM_",
    "VLLM_ALLREDUCE_",
    "VLLM_USE_",
    "DG_JIT_USE_",
)
"""Environment variables that choose kernels and links."""


def host_facts() -> dict[str, Any]:
    """Kernel, cores and GPUs (empty without nvidia-smi); no host name, no user."""
    return {
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "gpus": _gpus(),
        "steering": {k: v for k, v in sorted(os.environ.items()) if k.startswith(_STEERING)},
    }


def _gpus() -> list[dict[str, str]]:
    argv = ["nvidia-smi", f"--query-gpu={','.join(_GPU_FIELDS)}", "--format=csv,noheader"]
    try:
        found = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = (line.split(", ") for line in found.stdout.splitlines() if line.strip())
    return [dict(zip(_GPU_FIELDS, row, strict=False)) for row in rows]
