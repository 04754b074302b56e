"""`vllm serve` in two parts: import everything, then wait for a file before starting.

    python -m <package>.gated_serve GATE_FILE serve MODEL [vLLM's own flags]

Imports cost 20 to 40 s of one core. Several of these processes import while the GPU is still idle
or busy with another model, and each starts its engine by fork, without a second import.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from pathlib import Path

MODULES = (
    "vllm.entrypoints.cli.main",
    "vllm.entrypoints.openai.api_server",
    "vllm.v1.engine.async_llm",
    "vllm.v1.engine.core",
    "vllm.v1.worker.gpu_worker",
    "vllm.v1.worker.gpu_model_runner",
    "vllm.model_executor.layers.fused_moe",
    "torch._inductor.compile_fx",
    "torch._dynamo",
)


def main() -> None:
    """Import, wait for the gate, hand over to vLLM's command line."""
    gate, arguments = Path(sys.argv[1]), sys.argv[2:]
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "fork")
    for name in MODULES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            print(f"not imported ahead: {name}: {error}", flush=True)
    gate.with_suffix(".imported").touch()
    while not gate.exists():
        time.sleep(0.05)
    sys.argv = ["vllm", *arguments]
    importlib.import_module("vllm.entrypoints.cli.main").main()


if __name__ == "__main__":
    main()
