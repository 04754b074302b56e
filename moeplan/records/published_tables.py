"""The four published systems and the limits that their predictions are held to."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from itertools import combinations

from moeplan.records.published import (
    PublishedRow,
    PublishedTable,
    TableBuilder,
    Verdict,
    rows_of,
)
from moeplan.records.score import RecordScore

Scores = dict[str, RecordScore]
LAMBDA_GAPS = 1023
"""Gaps between the 1,024 output tokens of Lambda's requests."""
TIE = 0.03
KUBIS_MODELS = {"gptoss": 1.20, "gemma": 1.50, "nemo": 1.41}
"""Measured gain of TP=2 at concurrency 1 by model."""
KUBIS_TOPOLOGIES = {"solo": "gb10-kubis", "tp2": "gb10x2-kubis", "shuffle": "gb10x2-kubis"}
KUBIS_CONCURRENCIES = (1, 2, 4, 8, 16, 32, 64)


def median_verdict(what: str, rows: Iterable[PublishedRow], limit: float) -> Verdict:
    """Median error of the counted rows against a limit; a table without rows fails."""
    errors = [row.error for row in rows if row.counted]
    figure = statistics.median(errors) if errors else math.nan
    return Verdict(what, f"median error ≤ {limit:.0%}", figure, figure <= limit)


# ------------------------------------------------------------------ Lambda


def lambda_table(scores: Scores) -> PublishedTable:
    """Nemotron-3-Super, 8192/1024, 512 prompts at 32, on five machines."""
    members = [s for i, s in scores.items() if i.startswith("lambda-") and "#" not in i]
    throughput = rows_of(members, ("output_tok_s",))
    whole = [row for item in members for row in _whole_request(item)]
    order = _formats_in_order(scores)
    return PublishedTable(
        "Nemotron-3-Super 8192/1024 at 32 [Lambda]",
        "lambda.ai, Nemotron 3 Super model page",
        (*throughput, *whole, *_split(scores)),
        (
            median_verdict("output tok/s", throughput, 0.12),
            median_verdict("TTFT + 1023 × ITL", whole, 0.12),
            order,
        ),
        (
            "TTFT and ITL apart are shown and not judged: the source's 4-7 s on every device fit "
            "prefill-only steps, whose split stands beside it",
        ),
    )


def _whole_request(item: RecordScore) -> list[PublishedRow]:
    """TTFT + 1023 × ITL in ms: the end-to-end time, whatever the scheduler does first."""
    try:
        ttft, itl = item.metrics["ttft_ms_mean"], item.metrics["itl_ms_mean"]
    except KeyError:
        return []
    measured = ttft.measured + LAMBDA_GAPS * itl.measured
    predicted = ttft.predicted.value + LAMBDA_GAPS * itl.predicted.value
    return [PublishedRow(item.record.id, "ttft_plus_1023_itl_ms", measured, predicted)]


def _split(scores: Scores) -> list[PublishedRow]:
    """TTFT and ITL with mixed steps and with prefill-only steps; not judged."""
    members = [item for name, item in scores.items() if name.startswith("lambda-")]
    return rows_of(members, ("ttft_ms_mean", "itl_ms_mean"), counted=lambda _: False)


def _formats_in_order(scores: Scores) -> Verdict:
    """NVFP4 over FP8 on two B200; must exceed 1."""
    pair = [scores.get(f"lambda-nemotron3super-b200-2-x-{f}") for f in ("nvfp4", "fp8")]
    rates = [s.metrics["output_tok_s"].predicted.value for s in pair if s and s.covered]
    ratio = rates[0] / rates[1] if len(rates) == 2 else math.nan
    return Verdict("NVFP4 / FP8 on 2×B200, predicted", "above 1", ratio, ratio > 1)


# ---------------------------------------------------------------- kubis.ai


def kubis_table(scores: Scores) -> PublishedTable:
    """Three models on one and two GB10."""
    members = [item for name, item in scores.items() if "-kubis-" in name]
    judged = lambda item: "-least-" not in item.record.id  # noqa: E731
    wrong = [name for name, cell in _cells(scores).items() if not _in_order(cell)]
    decode = rows_of(members, ("decode_tok_s",), judged)
    prompt = rows_of(members, ("prefill_tok_s", "ttft_ms_mean"), judged)
    return PublishedTable(
        "GPT-OSS-120B, Gemma-4-26B FP8, Nemotron-3-Super on GB10 [kubis.ai]",
        "kubis.ai, topology benchmarks on DGX Spark",
        (*decode, *prompt),
        (
            median_verdict("decode (tg)", decode, 0.15),
            median_verdict("prefill", [r for r in prompt if r.metric == "prefill_tok_s"], 0.25),
            median_verdict("TTFT", [r for r in prompt if r.metric == "ttft_ms_mean"], 0.25),
            *(_gain(scores, model, gain) for model, gain in KUBIS_MODELS.items()),
            _order(scores),
        ),
        (
            "least-busy rows are shown and not judged: the source's router used one box",
            f"cells with the topologies out of order: {', '.join(wrong) or 'none'}",
        ),
    )


def _kubis(scores: Scores, model: str, topology: str, concurrency: int) -> RecordScore | None:
    item = scores.get(f"{KUBIS_TOPOLOGIES[topology]}-{model}-{topology}-c{concurrency}")
    return item if item and "decode_tok_s" in item.metrics else None


def _gain(scores: Scores, model: str, measured: float) -> Verdict:
    """Predicted decode rate of TP=2 over one box at concurrency 1."""
    pair = [_kubis(scores, model, topology, 1) for topology in ("tp2", "solo")]
    rates = [item.metrics["decode_tok_s"].predicted.value for item in pair if item]
    gain = rates[0] / rates[1] if len(rates) == 2 else math.nan
    return Verdict(
        f"TP=2 gain at c=1, {model}",
        f"within 0.15 of {measured:.2f}",
        gain,
        abs(gain - measured) <= 0.15,
    )


def _cells(scores: Scores) -> dict[str, list[RecordScore]]:
    """Topologies that were measured in each (model, concurrency) cell, where there are several."""
    cells = {
        f"{model} c{c}": [f for name in KUBIS_TOPOLOGIES if (f := _kubis(scores, model, name, c))]
        for model in KUBIS_MODELS
        for c in KUBIS_CONCURRENCIES
    }
    return {name: cell for name, cell in cells.items() if len(cell) > 1}


def _order(scores: Scores) -> Verdict:
    """Share of (model, concurrency) cells in which the topologies come in the measured order."""
    judged = [_in_order(cell) for cell in _cells(scores).values()]
    share = sum(judged) / len(judged) if judged else math.nan
    return Verdict(
        "cells with the topologies in order",
        "≥ 85 % (measured ties within 3 % count)",
        share,
        share >= 0.85,
    )


def _in_order(cell: Sequence[RecordScore]) -> bool:
    """Whether each pair is ordered as measured, or tied in the measurement."""
    figures = [item.metrics["decode_tok_s"] for item in cell]
    for one, two in combinations(figures, 2):
        tied = abs(one.measured / two.measured - 1) <= TIE
        agree = (one.measured > two.measured) == (one.predicted.value > two.predicted.value)
        if not (tied or agree):
            return False
    return True


# ------------------------------------------------- KaletoAI, rtx6kpro


def kaletoai_table(scores: Scores) -> PublishedTable:
    """A dense 123B model on one GB10 with two kernel families."""
    members = [item for name, item in scores.items() if name.startswith("gb10-behemoth123b-")]
    rows = rows_of(
        members,
        ("decode_tok_s", "weights_gib", "kv_pool_gib"),
        lambda item: item.record.id.endswith("-short"),
    )
    verdicts = [
        Verdict(f"{row.label}: {row.metric}", "error ≤ 10 %", row.error, row.error <= 0.10)
        for row in rows
        if row.counted
    ]
    return PublishedTable(
        "Behemoth-X-123B NVFP4 on one GB10 [KaletoAI]",
        "model card of Behemoth-X-123B-v2.2 NVFP4",
        tuple(rows),
        tuple(verdicts) or (median_verdict("decode", [], 0.10),),
        ("the 2.6K-prompt rate is shown and not judged: a single run that may hold its prefill",),
    )


def rtx6kpro_table(scores: Scores) -> PublishedTable:
    """Qwen3.5-122B-A10B on two RTX PRO 6000, concurrency 1 to 128."""
    members = [
        item
        for name, item in scores.items()
        if name.startswith("rtxpro6000x2-vs-q35-122b-vllm-ctx0-")
    ]
    rows = rows_of(members, ("decode_tok_s",))
    return PublishedTable(
        "Qwen3.5-122B-A10B NVFP4, TP=2 on 2×RTX PRO 6000 [rtx6kpro]",
        "github.com/Visual-Synthesizer/rtx6kpro",
        tuple(rows),
        (median_verdict("decode tok/s", rows, 0.25),),
        ("the source counts tokens as characters / 4",),
    )


TABLES: tuple[TableBuilder, ...] = (lambda_table, kubis_table, kaletoai_table, rtx6kpro_table)
