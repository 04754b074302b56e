"""Two ceilings of the card: device-memory bandwidth and dense BF16 rate, on random data."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable

import torch


def seconds(work: Callable[[], object], repeats: int = 20) -> float:
    """Median seconds of one call, by device events, after three calls of warm-up."""
    times = []
    for _ in range(repeats + 3):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(times[3:])


def main() -> None:
    """Print one JSON object: bytes and FLOP a second."""
    source = torch.randn(1 << 31, device="cuda", dtype=torch.bfloat16)
    target = torch.empty_like(source)
    size = source.numel() * 2
    left, right = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    row = torch.randn(1, 16384, device="cuda", dtype=torch.bfloat16)
    matrix = source[: 16384 * 65536].view(16384, 65536)
    result = {
        "device": torch.cuda.get_device_name(),
        "copy_bytes_per_s": 2 * size / seconds(lambda: target.copy_(source)),
        "reduce_read_bytes_per_s": size / seconds(lambda: source.max()),
        "gemv_read_bytes_per_s": matrix.numel() * 2 / seconds(lambda: row @ matrix),
        "gemm_8192_flop_per_s": 2 * 8192**3 / seconds(lambda: left @ right),
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
