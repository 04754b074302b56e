"""A stand-in for vLLM's serving benchmark: writes a result as quickly as it can.

FAKE_BENCH: hang (sleeps), error (raises), die (exits), fail (a request fails), short (one output
too short).
"""

import json
import os
import time
from pathlib import Path


def add_cli_args(parser):
    parser.add_argument("--num-prompts", type=int)
    parser.add_argument("--random-input-len", type=int)
    parser.add_argument("--random-output-len", type=int)
    parser.add_argument("--dataset-name")
    parser.add_argument("--dataset-path")
    parser.add_argument("--result-dir")
    parser.add_argument("--result-filename")
    for name in ("backend", "base-url", "model", "tokenizer", "seed", "temperature"):
        parser.add_argument(f"--{name}")
    for name in ("percentile-metrics", "metric-percentiles", "max-concurrency", "request-rate"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--burstiness")
    parser.add_argument("--timed-trace-chunk-hash-size")
    for name in ("disable-tqdm", "save-result", "save-detailed", "ignore-eos"):
        parser.add_argument(f"--{name}", action="store_true")


def lengths(options):
    if options.dataset_name == "timed_trace":
        rows = [json.loads(line) for line in Path(options.dataset_path).read_text().splitlines()]
        rows = rows[: options.num_prompts]
        return [r["input_length"] for r in rows], [r["output_length"] for r in rows]
    count = options.num_prompts
    return [options.random_input_len] * count, [options.random_output_len] * count


def main(options):
    fault = os.environ.get("FAKE_BENCH", "")
    if fault == "hang":
        time.sleep(600)
    if fault == "error":
        raise ValueError("Token id 99999 is out of vocabulary")
    if fault == "die":
        os._exit(9)
    inputs, outputs = lengths(options)
    if fault == "short":
        outputs[0] -= 1
    failed = int(fault == "fail")
    result = {
        "completed": len(inputs) - failed,
        "failed": failed,
        "duration": 0.5,
        "input_lens": inputs,
        "output_lens": outputs,
        "ttfts": [0.01] * len(inputs),
        "itls": [[0.005] * (n - 1) for n in outputs],
        "start_times": [0.0] * len(inputs),
        "errors": ["ServerDisconnected" if i < failed else "" for i in range(len(inputs))],
        "output_throughput": sum(outputs) / 0.5,
        "total_token_throughput": (sum(inputs) + sum(outputs)) / 0.5,
        "request_throughput": len(inputs) / 0.5,
        "mean_ttft_ms": 10.0,
        "median_ttft_ms": 10.0,
        "mean_tpot_ms": 5.0,
        "median_tpot_ms": 5.0,
        "p99_tpot_ms": 5.0,
        "p99_ttft_ms": 10.0,
        "mean_itl_ms": 5.0,
        "mean_e2el_ms": 100.0,
    }
    Path(options.result_dir, options.result_filename).write_text(json.dumps(result))
    return result
