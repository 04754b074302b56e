"""Rewrites the tables of docs/accuracy.md from what moeplan computes now.

    python docs/make_tables.py                     tables of what ships with the source tree
    python docs/make_tables.py --measured OUT      also those of a `moeplan score ... --json OUT`
    python docs/make_tables.py --check             exit 1 if a shipped table is out of date

OUT must be grouped by hardware, architecture, concurrency and drafts. A table stands between
`<!-- table NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from moeplan.cli.score_published import figure, verdict
from moeplan.hardware_specs import Hardware, load_hardware
from moeplan.records.annotations import is_doubted
from moeplan.records.published import PublishedReport, PublishedRow, published_report
from moeplan.records.reader import read_many
from moeplan.records.score import RecordScore, score
from moeplan.validate.gpu import compare_steps as gpu
from moeplan.validate.gpu.tables import table

DOCUMENT = Path(__file__).parent / "accuracy.md"
EVIDENCE = Path(__file__).parents[1] / "validate" / "evidence" / "2026-11-27-h100"
_BLOCK = re.compile(r"(<!-- table ([\w-]+) -->\n).*?(<!-- end -->)", re.S)
METRICS = {
    "throughput": "throughput",
    "tpot": "TPOT",
    "itl": "ITL",
    "ttft": "TTFT",
    "e2e": "end to end",
    "decode": "decode rate",
    "prefill": "prompt rate",
    "peak": "peak throughput",
    "kv_cache": "KV cache",
    "weights": "weights",
}
"""Families of `moeplan score` and how the tables call them."""
WIDE = ("throughput", "tpot", "ttft", "decode", "prefill")
"""Families that the tables by device and by model show."""

Tables = dict[str, str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite or check the document; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measured", type=Path, metavar="OUT")
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args(arguments)
    tables = shipped_tables(load_hardware())
    if given.measured:
        tables |= measured_tables(json.loads(given.measured.read_text(encoding="utf-8")))
    old = DOCUMENT.read_text(encoding="utf-8")
    new = with_tables(old, tables)
    if given.check:
        if new != old:
            print(f"{DOCUMENT}: tables are out of date; run docs/make_tables.py", file=sys.stderr)
        return int(new != old)
    DOCUMENT.write_text(new, encoding="utf-8")
    return 0


def with_tables(text: str, tables: Mapping[str, str]) -> str:
    """The text with these tables in their places; others stay as they are."""

    def block(found: re.Match[str]) -> str:
        body = tables.get(found[2])
        return found[0] if body is None else f"{found[1]}{body}\n{found[3]}"

    return _BLOCK.sub(block, text)


def block_names(text: str) -> list[str]:
    """Names of the tables that a text has places for."""
    return [found[2] for found in _BLOCK.finditer(text)]


# ----------------------------------------------------------- what ships


def shipped_tables(hardware: Hardware) -> Tables:
    """Tables of the published runs and of the own H100 measurement."""
    report = published_report(hardware, jobs=1)
    steps = gpu.compare_steps(EVIDENCE, hardware)
    return {
        "published-limits": limits_table(report),
        "published-lambda": lambda_table(report),
        "published-kubis": kubis_table(report),
        "published-rest": rest_table(report),
        "constants": constants_table(report),
        "h100-kinds": gpu.summary_table(steps),
        "h100-decode": gpu.engine_table(steps),
        "h100-prompts": gpu.prompt_table(steps),
        "h100-memory": gpu.memory_table(gpu.compare_memory(EVIDENCE, hardware)),
        "h100-served": served_table(hardware),
    }


def limits_table(report: PublishedReport) -> str:
    """Every limit, its real figure, and the reason of a miss."""
    rows = [
        [t.name, v.what, v.limit, figure(v), verdict(v) + (f": {v.reason}" if v.reason else "")]
        for t in report.tables
        for v in t.verdicts
    ]
    return table(["system", "limit on", "limit", "real figure", ""], rows)


def lambda_table(report: PublishedReport) -> str:
    """Lambda's machines: throughput, end to end, and the split under both schedulers."""
    found = {(row.label, row.metric): row for row in report.tables[0].rows}
    labels = dict.fromkeys(label.partition("#")[0] for label, _ in found)
    split = ("ttft_ms_mean", "itl_ms_mean")
    columns = [("", "output_tok_s"), ("", "ttft_plus_1023_itl_ms")]
    columns += [(suffix, metric) for suffix in ("", "#prefill-only") for metric in split]
    rows = [
        [label.removeprefix("lambda-nemotron3super-")]
        + [_cell(found[label + suffix, metric]) for suffix, metric in columns]
        for label in labels
    ]
    head = ["machine", "tok/s", "TTFT + 1023 ITL, ms", "TTFT ms", "ITL ms"]
    return table([*head, "TTFT ms, prefill-only steps", "ITL ms, prefill-only steps"], rows)


def _cell(row: PublishedRow) -> str:
    return f"{row.measured:,.0f} → {row.predicted:,.0f} ({row.predicted / row.measured - 1:+.0%})"


def kubis_table(report: PublishedReport) -> str:
    """Errors by model and topology; decode by concurrency."""
    groups: dict[tuple[str, str], list[PublishedRow]] = {}
    for row in report.tables[1].rows:
        _, _, model, topology, _ = row.label.split("-")
        groups.setdefault((model, topology), []).append(row)
    head = ["model", "topology", "decode, error by concurrency", "prompt rate", "TTFT"]
    return table(head, [[*key, *_kubis_cells(rows)] for key, rows in groups.items()])


def _kubis_cells(rows: Iterable[PublishedRow]) -> list[str]:
    by_metric: dict[str, list[PublishedRow]] = {}
    for row in rows:
        by_metric.setdefault(row.metric, []).append(row)
    decode = ", ".join(
        f"{row.label.rpartition('-')[2]} {row.predicted / row.measured - 1:+.0%}"
        for row in by_metric["decode_tok_s"]
    )
    others = [by_metric.get(name, []) for name in ("prefill_tok_s", "ttft_ms_mean")]
    return [decode, *(_median_error(found) for found in others)]


def _median_error(rows: Sequence[PublishedRow]) -> str:
    return f"{statistics.median(row.error for row in rows):.0%}, n = {len(rows)}" if rows else "–"


def rest_table(report: PublishedReport) -> str:
    """Every row of the two small systems."""
    rows = [
        [row.label, row.metric, f"{row.measured:,.4g}", f"{row.predicted:,.4g}",
         f"{row.predicted / row.measured - 1:+.1%}"]
        for part in report.tables[2:]
        for row in part.rows
    ]  # fmt: skip
    return table(["row", "metric", "measured", "predicted", "error"], rows)


def constants_table(report: PublishedReport) -> str:
    """How many of the constants behind the published rows have which grade."""
    grades = Counter(constant.grade for constant in report.constants)
    rows = [[grade, str(number)] for grade, number in grades.most_common()]
    return table(["grade", "constants"], [*rows, ["all", str(len(report.constants))]])


def served_table(hardware: Hardware) -> str:
    """Own served points that may be scored."""
    records = read_many([EVIDENCE / "runs.jsonl"]).records
    rows = [
        [item.record.id.removeprefix("own-h100-"), name, f"{found.measured:,.4g}",
         f"{found.predicted.value:,.4g}", f"{found.predicted.value / found.measured - 1:+.1%}"]
        for item in score(records, hardware, jobs=1)
        for name, found in _clean(item)
    ]  # fmt: skip
    return table(["served point", "metric", "measured", "predicted", "error"], rows)


def _clean(item: RecordScore) -> list[tuple[str, Any]]:
    """Output rate, TTFT and TPOT, where nothing casts a doubt on them."""
    names = ("output_tok_s", "ttft_ms_mean", "tpot_ms_mean")
    return [
        (name, item.metrics[name])
        for name in names
        if name in item.metrics and not is_doubted(item.record, name)
    ]


# --------------------------------------------------- what was scored apart


def measured_tables(report: Mapping[str, Any]) -> Tables:
    """Tables of the JSON that `moeplan score` writes."""
    summary = report["summary"]
    views = summary["groups"]
    by_value = {
        f"measured-{name}-{view}": wide_table(views[view][dimension], label)
        for name, dimension, label in (
            ("device", "hardware", "device"),
            ("model", "architecture", "model"),
            ("concurrency", "concurrency", "requests in flight"),
            ("drafts", "drafts", "drafts"),
        )
        for view in ("everything", "clean")
    }
    return {
        "measured-coverage": coverage_table(summary),
        "measured-all": all_table(views),
        **by_value,
    }


def coverage_table(summary: Mapping[str, Any]) -> str:
    """Records, how many are predicted, and why the others are not."""
    total, covered = summary["records"], summary["covered"]
    rows = [["records", f"{total:,}"], ["predicted", f"{covered:,} ({covered / total:.0%})"]]
    rows += [[f"not: {why}", f"{n:,}"] for why, n in summary["not_covered"].items()]
    return table(["", "number"], rows)


def all_table(views: Mapping[str, Any]) -> str:
    """All metrics, every record and those without doubts."""
    every, clean = (views[view]["all"]["all"] for view in ("everything", "clean"))
    rows = [
        [name, *_figures(every.get(family)), *_figures(clean.get(family))]
        for family, name in METRICS.items()
        if family in every
    ]
    head = ["n", "median", "p90", "bias"]
    return table(["metric", *head, *(f"clean {word}" for word in head)], rows)


def _figures(found: Mapping[str, Any] | None) -> list[str]:
    if not found:
        return ["0", "–", "–", "–"]
    errors = (f"{found[name]:.1%}" for name in ("median_error", "p90_error"))
    return [f"{found['n']:,}", *errors, f"{found['bias']:+.3f}"]


def wide_table(parts: Mapping[str, Any], label: str) -> str:
    """Median and 90th-percentile error, and the number of records, by value and metric."""
    cell: Callable[[Any], str] = lambda f: (  # noqa: E731
        f"{f['median_error']:.0%} / {f['p90_error']:.0%} ({f['n']})" if f else ""
    )
    rows = [
        [value, *(cell(families.get(name)) for name in WIDE)]
        for value, families in parts.items()
        if any(name in families for name in WIDE)
    ]
    return table([label, *(METRICS[name] for name in WIDE)], rows)


if __name__ == "__main__":
    sys.exit(main())
