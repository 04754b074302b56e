"""Recorded open-loop runs of real vLLM: queueing, preemption and percentiles come out."""

import json
from pathlib import Path

import numpy as np
import pytest

from moeplan.deployment import Cluster, Deployment, EngineSettings, Node, Placement
from moeplan.models import load_model
from moeplan.simulation import metrics
from moeplan.simulation.api import simulate
from moeplan.simulation.workload import TraceRow, Workload

TRACES = Path(__file__).parent / "data" / "traces"


def measured(name):
    lines = (TRACES / f"{name}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


ONE_GPU = Placement()


def replayed(name, model, device, fabric, placement=ONE_GPU, **options):
    entry = load_model(model)
    cluster = Cluster((Node(device, placement.gpus),), fabric, "ethernet-100g")
    settings = EngineSettings(version="0.19.0", max_num_batched_tokens=2048, **options)
    deployment = Deployment(
        entry.architecture, entry.checkpoint("bf16"), cluster, placement, "least-busy", settings
    )
    rows = tuple(
        TraceRow(
            timestamp=r["arrival_s"],
            input_length=r["input_tokens"],
            output_length=r["output_tokens"],
        )
        for r in measured(name)
    )
    return simulate(deployment, Workload(arrivals="trace", trace=rows, routing="chat"))


def errors(name, result):
    """Relative errors of mean TTFT, mean TPOT, mean end-to-end time and duration."""
    rows = measured(name)
    pairs = [
        (metrics.ttft(result).mean, np.mean([r["ttft_s"] for r in rows])),
        (metrics.tpot(result).mean, np.nanmean([r["tpot_s"] or np.nan for r in rows])),
        (metrics.e2e(result).mean, np.mean([r["e2e_s"] for r in rows])),
        (metrics.duration_s(result), max(r["arrival_s"] + r["e2e_s"] for r in rows)),
    ]
    return [predicted / seen - 1 for predicted, seen in pairs]


@pytest.mark.parametrize(("seqs", "blocks"), [(128, None), (256, 2588)])
def test_a_full_cache_queues_and_preempts_as_it_did(seqs, blocks):
    name = f"rtx4090-llama-3.1-8b-tp1-seqs{seqs}"
    result = replayed(
        name,
        "llama-3.1-8b",
        "rtx_4090",
        "pcie4",
        max_num_seqs=seqs,
        num_gpu_blocks_override=blocks,
    )
    assert result.preemptions.sum() > 50
    assert max(map(abs, errors(name, result))) < 0.12


def test_two_engines_with_common_experts_are_near_two_replicas():
    name = "rtxpro6000-qwen3-30b-a3b-dp2ep2"
    result = replayed(
        name,
        "qwen3-30b-a3b",
        "rtx_pro_6000_server",
        "pcie5",
        Placement(replicas=2),
        max_num_seqs=128,
    )
    assert max(map(abs, errors(name, result))) < 0.2


def test_a_running_limit_queues():
    name = "rtxpro6000-llama-3.1-8b-tp1"
    result = replayed(name, "llama-3.1-8b", "rtx_pro_6000_server", "pcie5", max_num_seqs=128)
    ttft, tpot, e2e, duration = errors(name, result)
    assert abs(tpot) < 0.2
    assert abs(e2e) < 0.25
    assert abs(duration) < 0.2
    assert abs(ttft) < 0.5  # a queue amplifies the error of the step time


def test_staging_through_the_host_explains_an_overloaded_tensor_parallel_pair():
    name = "rtxpro6000-qwen3-32b-tp2"
    durations = [
        errors(
            name,
            replayed(
                name,
                "qwen3-32b",
                "rtx_pro_6000_server",
                fabric,
                Placement(tp=2),
                max_num_seqs=128,
            ),
        )[-1]
        for fabric in ("pcie5", "pcie5-no-p2p")
    ]
    assert durations[0] < durations[1] < 0
    assert abs(durations[1]) < 0.2
