"""Markdown tables of an evidence folder, for the documentation.

python -m <package>.tables EVIDENCE_DIR
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .steps import lines

Record = dict[str, Any]


def load(path: Path) -> list[Record]:
    """Objects of a JSONL file."""
    return [json.loads(line) for line in lines(path)]


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table."""
    body = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in body)


def engine_name(record: Record) -> str:
    """Model and storage."""
    return f"{record['model']} {record['format']}"


def milliseconds(record: Record | None) -> str:
    """Median, and the tenth to ninetieth percentile when it is wider than 3 %."""
    if record is None:
        return ""
    low, mid, high = (1e3 * record[f"seconds{part}"] for part in ("_p10", "", "_p90"))
    wide = high - low > 0.03 * mid and record["n"] > 1
    return f"{mid:.2f} ({low:.2f}–{high:.2f})" if wide else f"{mid:.2f}"


def pivot(records: list[Record], key: str, columns: Sequence[Any]) -> str:
    """Engines down, values of `key` across, milliseconds in the cells."""
    engines = dict.fromkeys(engine_name(record) for record in records)
    found = {(engine_name(record), json.dumps(record[key])): record for record in records}
    rows = [
        [name, *(milliseconds(found.get((name, json.dumps(column)))) for column in columns)]
        for name in engines
    ]
    return table(["engine", *(str(column) for column in columns)], rows)


def decode_table(steps: list[Record], routing: str) -> str:
    """Decode step times at about 150 to 165 tokens of context."""
    short = [
        s
        for s in steps
        if s["kind"] == "decode" and s["routing"] == routing and s["mean_context"] < 300
    ]
    return pivot(short, "decodes", sorted({record["decodes"] for record in short}))


def long_table(steps: list[Record]) -> str:
    """Decode step times at long context."""
    rows = [
        [engine_name(s), s["decodes"], round(s["mean_context"]), milliseconds(s), s["sm_mhz"]]
        for s in steps
        if s["kind"] == "decode" and s["mean_context"] > 300
    ]
    return table(["engine", "batch", "context", "ms a step", "SM MHz"], rows)


def prefill_table(steps: list[Record]) -> str:
    """Lone prompts: from scheduling to return in an idle engine."""
    alone = [{**s, "tokens": s["chunks"][0][0]} for s in steps if s["kind"] == "prefill"]
    return pivot(alone, "tokens", sorted({record["tokens"] for record in alone}))


def mixed_table(steps: list[Record]) -> str:
    """A prefill chunk beside 32 decodes."""
    mixed = [{**s, "tokens": s["chunks"][0][0]} for s in steps if s["kind"] == "mixed"]
    return pivot(mixed, "tokens", sorted({record["tokens"] for record in mixed}))


def routing_table(checks: list[Record]) -> str:
    """Distinct experts a layer and step, measured and expected."""
    rows = [
        [
            engine_name(c),
            c["routing"],
            c["tokens"],
            f"{c['distinct_mean']:.1f}",
            f"{c['uniform_expected']:.1f}",
            f"{c['independent_expected']:.1f}",
            c["calls"],
        ]
        for c in checks
        if c["tokens"] in (1, 4, 16, 64, 256)
    ]
    head = ["engine", "routing", "tokens", "distinct", "uniform", "independent", "layer calls"]
    return table(head, rows)


def slope_table(steps: list[Record], checks: list[Record], engines: list[Record]) -> str:
    """Growth of the step from 1 to 64 decodes for each more expert touched in a layer."""
    rows = []
    for name in dict.fromkeys(engine_name(e) for e in engines if e["facts"].get("moe_backend")):
        for routing in ("uniform", "skewed"):
            row = slope_row(name, routing, steps, checks)
            if row:
                rows.append(row)
    head = ["engine", "routing", "MoE layers", "distinct at 64", "ms 1 → 64", "us an expert"]
    return table(head, rows)


MOE_LAYERS = {"gpt-oss-20b": 24, "gpt-oss-120b": 36, "qwen3-30b-a3b": 48, "glm-4.7-flash": 46}


def slope_row(
    name: str, routing: str, steps: list[Record], checks: list[Record]
) -> list[Any] | None:
    """One engine's step growth over its experts' growth; None without both ends."""
    times = {
        (s["decodes"], s["routing"]): s["seconds"]
        for s in steps
        if engine_name(s) == name and s["kind"] == "decode" and s["mean_context"] < 300
    }
    distinct = {
        c["tokens"]: c["distinct_mean"]
        for c in checks
        if engine_name(c) == name and c["routing"] == routing
    }
    first, last = times.get((1, "uniform")), times.get((64, routing))
    if first is None or last is None or 64 not in distinct:
        return None
    layers = MOE_LAYERS[name.split()[0]]
    each = (last - first) / layers / (distinct[64] - distinct[1])
    span = f"{1e3 * first:.2f} → {1e3 * last:.2f}"
    return [name, routing, layers, f"{distinct[64]:.1f}", span, f"{1e6 * each:.2f}"]


def engine_table(engines: list[Record]) -> str:
    """Memory and start-up as the engine's log gives them."""
    names = ("weights_gib", "kv_gib", "kv_tokens", "graph_gib", "compile_s", "healthy_after_s")
    rows = [
        [engine_name(e), *(e["facts"].get(name, "") for name in names[:-1]),
         round(e["facts"]["healthy_after_s"])]
        for e in engines
    ]  # fmt: skip
    return table(["engine", *names], rows)


def run_table(runs: list[Record]) -> str:
    """Served points."""
    keys = ("output_tok_s", "tpot_ms_mean", "tpot_ms_p50", "ttft_ms_mean", "ttft_ms_p50")
    rows = [
        [r["id"].removeprefix("own-h100-"), *(r["measured"].get(key, "") for key in keys)]
        for r in runs
    ]
    return table(["point", *keys], rows)


def main() -> None:
    """Print every table under its heading."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("evidence", type=Path)
    folder = parser.parse_args().evidence
    names = ("steps", "routing", "engines", "runs", "runs_unchecked")
    steps, checks, engines, runs, unchecked = (load(folder / f"{name}.jsonl") for name in names)
    parts = {
        "Engines": engine_table(engines),
        "Routing checks": routing_table(checks),
        "Decode steps, uniform routing (ms)": decode_table(steps, "uniform"),
        "Decode steps, skewed routing (ms)": decode_table(steps, "skewed"),
        "Step growth an expert": slope_table(steps, checks, engines),
        "Decode steps at long context": long_table(steps),
        "Lone prompts (ms)": prefill_table(steps),
        "A prefill chunk beside 32 decodes (ms)": mixed_table(steps),
        "Served points": run_table(runs),
        "Served points that are not evidence": run_table(unchecked),
    }
    print("\n\n".join(f"### {title}\n\n{text}" for title, text in parts.items()))


if __name__ == "__main__":
    main()
