"""The client protocol of a record as a `Workload`.

Rules for what a source does not say: 10 prompts per unit of concurrency, fixed lengths, and the
routing preset of the traffic that the tool sends, unless the run counted the experts it touched.
"""

from __future__ import annotations

import re
from typing import Any

from moeplan.records.record import ClientProtocol, RunRecord
from moeplan.records.rules import NotCovered, Rules
from moeplan.simulation.workload import Workload

PROMPTS_PER_CONCURRENCY = 10
CHARACTER_COUNT_FACTOR = 0.65
"""True tokens of llm_decode_bench's prompts over its nominal ones: it pads at 4 characters a token
with text that runs about 6 (notes of its rows; TTFT of 15 of them agrees)."""
CONSTANT_GAPS = 1e6
"""Burstiness at which gamma gaps differ by a thousandth."""
STREAM_SECONDS = 30.0
"""llm_decode_bench cuts its decode streams after this time."""

_RANDOM_TOOLS = ("vllm bench serve", "sglang bench_serving", "trtllm-bench")
_CHAT_WORDS = ("sharegpt", "speed-bench", "chat")


def is_prefill_test(record: RunRecord) -> bool:
    """Whether the record is a prompt-only cell of llm_decode_bench."""
    return record.tool == "llm_decode_bench" and record.workload.output_tokens == 1


def stream_limit_s(record: RunRecord) -> float | None:
    """Seconds after which the tool cuts a stream, None where it does not."""
    cut = record.tool == "llm_decode_bench" and not is_prefill_test(record)
    return STREAM_SECONDS if cut else None


def workload_of(record: RunRecord, rules: Rules) -> Workload:
    """The requests that the record's client sent; raises `NotCovered` where it does not say."""
    protocol = record.workload
    if protocol.prefix_hit_tokens:
        raise NotCovered("prompts whose prefix was cached before the run")
    if protocol.prefix_groups and protocol.prefix_groups > 1:
        raise NotCovered("several groups of shared prefixes")
    fields: dict[str, Any] = {
        **_arrivals(record, rules),
        **_lengths(record, rules),
        "shared_prefix_tokens": protocol.shared_prefix_tokens or 0,
        "routing": _routing(record, rules),
        "popularity_sigma": _counted_sigma(record, rules),
    }
    return Workload(**fields)


def _arrivals(record: RunRecord, rules: Rules) -> dict[str, Any]:
    protocol = record.workload
    if protocol.mode == "offline":
        return {"arrivals": "offline", "num_prompts": _offline_prompts(protocol)}
    if protocol.mode == "open_loop":
        return _open_loop(record, rules)
    concurrency = 1 if protocol.mode == "single_stream" else protocol.concurrency
    if concurrency is None:
        raise NotCovered("closed loop without concurrency")
    if record.tool == "llm_decode_bench":
        rules.use("llm_decode_bench: one stream a client, all at once")
        return {"arrivals": "offline", "num_prompts": concurrency}
    kind = "rounds" if record.tool == "llama-benchy" else "closed"
    return {
        "arrivals": kind,
        "concurrency": concurrency,
        "num_prompts": _prompts(protocol, concurrency, rules),
    }


def _offline_prompts(protocol: ClientProtocol) -> int:
    prompts = protocol.num_prompts or protocol.concurrency
    if prompts is None:
        raise NotCovered("offline run without a number of prompts")
    return prompts


def _prompts(protocol: ClientProtocol, concurrency: int, rules: Rules) -> int:
    if protocol.num_prompts is not None:
        return protocol.num_prompts
    rules.use(f"number of prompts: {PROMPTS_PER_CONCURRENCY} × concurrency")
    return PROMPTS_PER_CONCURRENCY * concurrency


def _open_loop(record: RunRecord, rules: Rules) -> dict[str, Any]:
    protocol = record.workload
    if protocol.num_prompts is None:
        raise NotCovered("open loop without a number of prompts")
    cap = _client_cap(record)
    if protocol.request_rate == "inf" or protocol.request_rate is None:
        closed = {"arrivals": "closed", "concurrency": cap} if cap else {"arrivals": "offline"}
        return {"num_prompts": protocol.num_prompts, **closed}
    burstiness = _burstiness(record, rules)
    return {
        "arrivals": "poisson" if burstiness == 1 else "gamma",
        "burstiness": burstiness,
        "request_rate": protocol.request_rate,
        "concurrency": cap,
        "num_prompts": protocol.num_prompts,
    }


def _client_cap(record: RunRecord) -> int | None:
    """Requests that the client keeps in flight at most; GuideLLM's rows give the observed peak."""
    if record.tool != "guidellm":
        return record.workload.concurrency
    said = re.search(r"client cap (\d+)", record.notes or "")
    return int(said.group(1)) if said else None


def _burstiness(record: RunRecord, rules: Rules) -> float:
    if record.workload.burstiness is not None:
        return record.workload.burstiness
    notes = record.notes or ""
    said = re.search(r"burstiness (\d+(?:\.\d+)?)", notes)
    if said:
        rules.use(f"arrivals: burstiness {said.group(1)}, from the notes")
        return float(said.group(1))
    if "constant-rate" in notes:
        rules.use("arrivals: constant gaps, from the notes")
        return CONSTANT_GAPS
    rules.use("arrivals: Poisson")
    return 1.0


def _lengths(record: RunRecord, rules: Rules) -> dict[str, Any]:
    """Tokens in and out, and their spread."""
    protocol = record.workload
    spread = protocol.length_range
    if spread is None:
        rules.use("lengths: fixed, at the mean where one is given")
    fixed = spread is None or spread == (1.0, 1.0)
    tokens_in = (protocol.mean_input_tokens if fixed else None) or protocol.input_tokens
    tokens_out = (protocol.mean_output_tokens if fixed else None) or protocol.output_tokens
    if is_prefill_test(record):
        rules.use(f"true prompt tokens: {CHARACTER_COUNT_FACTOR} of the nominal ones")
        tokens_in *= CHARACTER_COUNT_FACTOR
    if record.tool == "llama-benchy":
        tokens_in += protocol.context_depth_tokens or 0
    return {
        "input_tokens": max(round(tokens_in), 1),
        "output_tokens": max(round(tokens_out), 1),
        "input_range": spread or (1.0, 1.0),
        "output_range": spread or (1.0, 1.0),
    }


def _counted_sigma(record: RunRecord, rules: Rules) -> float | None:
    """Spread of expert popularity where the run counted the experts that it touched."""
    check = record.engine_facts and record.engine_facts.routing
    if check is None or check.sigma is None:
        return None
    rules.use(f"routing: spread {check.sigma:.2f}, as counted")
    return check.sigma


def _routing(record: RunRecord, rules: Rules) -> str:
    """Preset of expert popularity by the traffic; open loops of random data are vLLM's bench."""
    protocol = record.workload
    if protocol.routing is not None:
        return protocol.routing
    text = (protocol.length_distribution or "").lower()
    if any(word in text for word in _CHAT_WORDS):
        preset = "chat"
    elif record.tool in _RANDOM_TOOLS or text.startswith("random"):
        preset = "random"
    elif record.tool == "llama-benchy":
        preset = "domain"
    else:
        preset = "default"
    rules.use(f"routing: preset {preset!r}")
    return preset
