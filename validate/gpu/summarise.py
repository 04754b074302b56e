"""Turn the raw folders of a measurement into evidence: steps, routing checks, engines, runs.

    python -m <package>.summarise RAW_DIR EVIDENCE_DIR

RAW_DIR holds one folder a machine, each with host.json and one folder a model. Writes
engines.jsonl, steps.jsonl, routing.jsonl, runs.jsonl (the format of published measurements) and
runs_unchecked.jsonl (points whose routing or steadiness is not established) to EVIDENCE_DIR.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

from .runs import is_evidence, run_record, stall
from .steps import Step, lines, read_steps, spread, steady_decodes, within

DECODES = ("decode", "decode_long", "decode_skewed")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Objects of a file; none when the file is missing."""
    return [json.loads(line) for line in lines(path)] if path.exists() else []


class Card:
    """What nvidia-smi said, twice a second, on the steps' clock."""

    def __init__(self, folder: Path) -> None:
        clock = json.loads((folder / "clock.json").read_text())
        shift = clock["monotonic"] - clock["epoch"]
        self.rows: list[tuple[float, float, float, float]] = []
        for row in csv.reader(lines(folder / "gpu.csv.gz")):
            stamp = datetime.datetime.strptime(row[0], "%Y/%m/%d %H:%M:%S.%f")
            numbers = [float(field.split()[0]) for field in (row[1], row[3], row[4])]
            time = stamp.replace(tzinfo=datetime.UTC).timestamp() + shift
            self.rows.append((time, *numbers))

    def during(self, begin: float, end: float) -> dict[str, float]:
        """Median SM clock (MHz), power (W), temperature (°C); else the nearest sample."""
        rows = [row for row in self.rows if begin <= row[0] <= end]
        rows = rows or [min(self.rows, key=lambda row: abs(row[0] - (begin + end) / 2))]
        names = ("sm_mhz", "power_w", "celsius")
        return {name: median(row[i] for row in rows) for i, name in enumerate(names, 1)}


def decode_record(phase: dict[str, Any], steps: list[Step]) -> dict[str, Any] | None:
    """Steady decode steps of one phase."""
    chosen = steady_decodes(steps, phase["batch"])
    if not chosen:
        return None
    context = mean(step.context for step in chosen) / phase["batch"]
    batch = {"decodes": phase["batch"], "mean_context": round(context, 1), "chunks": []}
    return {"kind": "decode", **batch, **spread([step.period for step in chosen])}


def prefill_records(phase: dict[str, Any], steps: list[Step]) -> Iterator[dict[str, Any]]:
    """Lone prompts of one length, without the first; an idle engine, from scheduling to return."""
    alone = [s for s in steps if not s.decodes and [c[0] for c in s.chunks] == [phase["tokens"]]]
    if len(alone) > 1:
        batch = {"decodes": 0, "mean_context": 0, "chunks": [[phase["tokens"], 0]]}
        yield {"kind": "prefill", **batch, **spread([s.returned - s.scheduled for s in alone[1:]])}


def prompt_records(phase: dict[str, Any], steps: list[Step]) -> Iterator[dict[str, Any]]:
    """One long prompt in chunks: first scheduling to last return, over all of its chunks.

    Single chunks are not given: launching one delays the return of the one before.
    """
    chunked = [step for step in steps if step.chunks]
    if not chunked:
        return
    seconds = chunked[-1].returned - chunked[0].scheduled
    chunks = [chunk for step in chunked for chunk in step.chunks]
    batch = {"decodes": 0, "mean_context": 0, "chunks": chunks}
    longest = max(step.period for step in chunked)
    if len(chunked) > 1 and phase["batch"] == 1:
        kind = {"kind": "prompt_in_chunks", "longest_step": round(longest, 4)}
        yield {**kind, **batch, **spread([seconds])}


def mixed_records(phase: dict[str, Any], steps: list[Step]) -> Iterator[dict[str, Any]]:
    """Steps that carry one prefill chunk beside the batch's decodes.

    A step without CUDA graph is launched while the one before still runs and delays its return, so
    the chunk's cost is what the two steps took together, less one plain decode step.
    """
    plain = median(step.period for step in steady_decodes(steps, phase["batch"]))
    groups: dict[tuple[Any, ...], list[tuple[float, int]]] = defaultdict(list)
    for before, step in pairwise(steps):
        if step.chunks and not before.chunks and before.decodes == step.decodes == phase["batch"]:
            groups[step.chunks].append((before.period + step.period - plain, step.context))
    for chunks, members in sorted(groups.items()):
        context = mean(context for _, context in members) / phase["batch"]
        batch = {"decodes": phase["batch"], "mean_context": round(context, 1)}
        times = spread([seconds for seconds, _ in members])
        yield {"kind": "mixed", **batch, "chunks": list(chunks), **times}


def phase_records(phase: dict[str, Any], steps: list[Step]) -> Iterator[dict[str, Any]]:
    """Step records of one phase."""
    kind = phase["kind"]
    if kind in DECODES:
        record = decode_record(phase, steps)
        if record:
            yield record
        if kind == "decode_long":
            yield from prompt_records(phase, steps)
    elif kind == "prefill":
        yield from prefill_records(phase, steps)
    elif kind == "mixed":
        yield from mixed_records(phase, steps)


def routing_of(phase: dict[str, Any]) -> str:
    """Name of the routing that a phase ran under."""
    return "skewed" if phase["kind"] == "decode_skewed" else phase.get("routing", "uniform")


def step_records(model: dict[str, Any], folder: Path, card: Card) -> Iterator[dict[str, Any]]:
    """All step records of one engine."""
    steps = read_steps(steps_path(folder))
    for phase in json.loads((folder / "phases.json").read_text()):
        state = card.during(phase["t0"], phase["t1"])
        for record in phase_records(phase, within(steps, phase)):
            yield {**model, "routing": routing_of(phase), **record, **state}


def steps_path(folder: Path) -> Path:
    """The engine's recorded steps, packed or not."""
    packed = folder / "steps.jsonl.gz"
    return packed if packed.exists() else folder / "steps.jsonl"


def expected_distinct(experts: int, inclusion: list[float], tokens: int) -> float:
    """Distinct experts of `tokens` independent tokens that pick expert i with `inclusion[i]`."""
    return experts - sum((1 - share) ** tokens for share in inclusion)


def routing_records(model: dict[str, Any], folder: Path) -> Iterator[dict[str, Any]]:
    """Measured distinct experts beside what uniform and what independent picks would touch."""
    for check in read_jsonl(folder / "routing.jsonl"):
        experts, top_k = check["experts"], check["top_k"]
        shares = [layer_shares(picks, top_k) for picks in check["picks"].values()]
        for tokens, counts in sorted(check["distinct"].items(), key=lambda item: int(item[0])):
            uniform = expected_distinct(experts, [top_k / experts] * experts, int(tokens))
            independent = mean(expected_distinct(experts, share, int(tokens)) for share in shares)
            yield {
                **model,
                "routing": check["routing"],
                "experts": experts,
                "top_k": top_k,
                "tokens": int(tokens),
                "distinct_mean": round(mean(counts), 3),
                "distinct_min": min(counts),
                "calls": len(counts),
                "uniform_expected": round(uniform, 3),
                "independent_expected": round(independent, 3),
                "non_finite_logits": check["non_finite_logits"],
            }


def layer_shares(picks: list[int], top_k: int) -> list[float]:
    """Share of tokens that picked each expert of one layer."""
    tokens = sum(picks) / top_k
    return [count / tokens for count in picks]


def describe(folder: Path, host: dict[str, Any]) -> dict[str, Any]:
    """What identifies the engine in every record."""
    facts = json.loads((folder / "facts.json").read_text())
    job = facts["job"]
    return {
        "model": job["slug"],
        "format": job["storage"],
        "layers": job.get("layers") or "all",
        "device": "h100_sxm",
        "device_name": host["gpu"].split(",")[0],
        "engine": "vllm 0.24.0",
        "machine": folder.parent.name,
    }


def engine_record(model: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The engine's own facts, without folders of the host."""
    facts = json.loads((folder / "facts.json").read_text())
    job = facts.pop("job")
    options = {key: job[key] for key in ("max_model_len", "top_k", "experts")}
    return {**model, "options": options, "facts": facts}


def served_records(model: dict[str, Any], folder: Path) -> Iterator[dict[str, Any]]:
    """Measured served points (warm-ups left out) in the format of published measurements."""
    facts = json.loads((folder / "facts.json").read_text())
    steps = read_steps(steps_path(folder))
    seen: dict[tuple[Any, ...], int] = defaultdict(int)
    for point in read_jsonl(folder / "served.jsonl"):
        if point["routing"] == "warm":
            continue
        key = (point["routing"], point["concurrency"], point["input_tokens"])
        seen[key] += 1
        stalled = stall(within(steps, point))
        yield run_record(model, facts, point, seen[key], stalled)


def main() -> None:
    """Write one file a kind of record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("raw", type=Path)
    parser.add_argument("evidence", type=Path)
    options = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for machine in sorted(path for path in options.raw.iterdir() if path.is_dir()):
        card, host = Card(machine), json.loads((machine / "host.json").read_text())
        for folder in sorted(path.parent for path in machine.glob("*/facts.json")):
            model = describe(folder, host)
            found["engines"].append(engine_record(model, folder))
            found["steps"] += step_records(model, folder, card)
            found["routing"] += routing_records(model, folder)
            for record in served_records(model, folder):
                found["runs" if is_evidence(record) else "runs_unchecked"].append(record)
    for name, records in found.items():
        text = "".join(json.dumps(record) + "\n" for record in records)
        (options.evidence / f"{name}.jsonl").write_text(text)


if __name__ == "__main__":
    main()
