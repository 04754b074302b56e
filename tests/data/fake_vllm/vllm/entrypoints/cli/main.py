"""A stand-in for `vllm serve`: the same options, pages and log wording, and faults on demand.

FAKE_FAULT: exit (a traceback), oom, port (address in use), hang (never healthy), stubborn (ignores
SIGTERM and has a child), crash-on-reset (dies when a benchmark begins), unknown (a log of another
wording), no-extension (no worker methods), jit (compiles a kernel at every request for metrics),
jit-once (at the first).
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULT = os.environ.get("FAKE_FAULT", "")
LOG = """\
(APIServer pid=1) INFO 11-27 09:02:29 [model.py:733] Resolved architecture: Qwen3MoeForCausalLM
(EngineCore pid=2) INFO 11-27 [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: \
model='m', enforce_eager=True, tensor_parallel_size=1
(Worker pid=3) INFO [gpu_model_runner.py:5150] Model loading took 1.5 GiB memory and 2.0 seconds
(Worker pid=3) INFO [unquantized.py:364] Using TRITON Unquantized MoE backend out of ['TRITON'].
(Worker pid=3) INFO 11-27 [gpu_worker.py:760] Available KV cache memory: 0.06 GiB
(EngineCore pid=2) INFO 11-27 [kv_cache_utils.py:2327] CPU KV cache size: 65,536 tokens, \
Maximum concurrency for 2,048 tokens per request: 32.00x
(EngineCore pid=2) INFO [core.py] init engine (profile, create kv cache, warmup model) took 0.06 s
"""
JIT_WARNING = "WARNING Triton kernel JIT compilation during inference: moe_kernel."
PORT_ERROR = "OSError: [Errno 98] error while attempting to bind on address: address already in use"
OOM_ERROR = """\
(EngineCore pid=2) ERROR 11-27 [core.py:1510] EngineCore failed to start.
(EngineCore pid=2) ERROR 11-27 [core.py:1510] ValueError: To serve at least one request with the \
models's max seq len (2048), (1.0 GiB KV cache is needed, which is larger than the available KV \
cache memory (0.5 GiB). Based on the available memory, the estimated maximum model length is 1008.
RuntimeError: Engine core initialization failed. See root cause above.
"""


class Handler(BaseHTTPRequestHandler):
    """The pages that the validator asks for."""

    def do_GET(self):
        pages = {
            "/health": "",
            "/v1/models": json.dumps({"data": [{"id": self.server.model_name}]}),
            "/metrics": 'vllm:num_preemptions_total{engine="0"} 3.0\n'
            'vllm:cache_config_info{block_size="32",num_gpu_blocks="64"} 1.0\n',
        }
        if self.path == "/metrics" and self.server.jit:
            print(JIT_WARNING, flush=True)
            self.server.jit -= 1
        self.send_response(200 if self.path in pages else 404)
        self.end_headers()
        self.wfile.write(pages.get(self.path, "").encode())

    def do_POST(self):
        if FAULT == "crash-on-reset":
            print("torch.AcceleratorError: CUDA error: an illegal memory access", flush=True)
            os._exit(1)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(500 if FAULT == "no-extension" and "rpc" in self.path else 200)
        self.end_headers()
        if self.path == "/collective_rpc":
            counts = {"1": [2, 2], "4": [5, 5, 6], "9": [7], "16": [8, 7]}
            answers = {"moeplan_count_off": {"distinct": counts}}
            answer = answers.get(json.loads(body)["method"], {"routers": 2})
            self.wfile.write(json.dumps({"results": [answer]}).encode())

    def log_message(self, *_args):
        """Say nothing."""


def fail(text):
    print(text, flush=True)
    sys.exit(1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("verb")
    parser.add_argument("model")
    parser.add_argument("--served-model-name")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    options, _ = parser.parse_known_args()
    print("some other engine entirely" if FAULT == "unknown" else LOG, flush=True)
    if FAULT == "exit":
        fail("Traceback (most recent call last):\nKeyError: 'factor'\nRuntimeError: Engine core "
             "initialization failed. See root cause above.")  # fmt: skip
    if FAULT == "oom":
        fail(OOM_ERROR)
    if FAULT == "port":
        fail(PORT_ERROR)
    if FAULT == "hang":
        time.sleep(600)
    if FAULT == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    server = ThreadingHTTPServer((options.host, options.port), Handler)
    server.jit = {"jit": 100, "jit-once": 1}.get(FAULT, 0)
    server.model_name = options.served_model_name
    server.serve_forever()


if __name__ == "__main__":
    main()
