"""Counters of a running vLLM server, from its Prometheus page."""

from __future__ import annotations

import re
from typing import Protocol

COUNTERS = (
    "vllm:num_preemptions_total",
    "vllm:prefix_cache_queries_total",
    "vllm:prefix_cache_hits_total",
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:iteration_tokens_total_count",
    "vllm:iteration_tokens_total_sum",
    "vllm:spec_decode_num_drafts_total",
    "vllm:spec_decode_num_draft_tokens_total",
    "vllm:spec_decode_num_accepted_tokens_total",
)
"""Names shared by 0.24 to 0.33; tokens, steps (iteration_tokens_total_count) and preemptions."""

_LINE = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class HasPages(Protocol):
    """What answers GET requests."""

    def get(self, path: str, timeout_s: float = 5.0) -> bytes:
        """Body of a page."""


def read_counters(server: HasPages) -> dict[str, float]:
    """Counters by short name ("num_preemptions"), summed over engines; absent ones are left out."""
    found: dict[str, float] = {}
    for line in server.get("/metrics", 30.0).decode().splitlines():
        match = _LINE.match(line)
        if match and match["name"] in COUNTERS:
            short = match["name"].removeprefix("vllm:").replace("_total", "")
            found[short] = found.get(short, 0.0) + float(match["value"])
    return found


def cache_config(server: HasPages) -> dict[str, str]:
    """Labels of vllm:cache_config_info (num_gpu_blocks, block_size, ...); empty where absent."""
    for line in server.get("/metrics", 30.0).decode().splitlines():
        match = _LINE.match(line)
        if match and match["name"] == "vllm:cache_config_info" and match["labels"]:
            return dict(_LABEL.findall(match["labels"]))
    return {}
