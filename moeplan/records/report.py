"""What many scored records say together: errors and bias by group, and the JSON of `score`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from moeplan.errors import UnknownNameError
from moeplan.records.annotations import is_doubted
from moeplan.records.compare import Comparison
from moeplan.records.record import RunRecord
from moeplan.records.score import RecordScore

FAMILIES: dict[str, tuple[str, ...]] = {
    "throughput": (
        "output_tok_s",
        "output_tok_s_per_gpu",
        "total_tok_s",
        "total_tok_s_per_gpu",
        "request_throughput",
        "duration_s",
    ),
    "tpot": ("tpot_ms_mean", "tpot_ms", "tpot_ms_p50", "tpot_ms_p90", "tpot_ms_p99"),
    "itl": ("itl_ms_mean", "itl_ms", "itl_ms_p50", "itl_ms_p90", "itl_ms_p99"),
    "ttft": ("ttft_ms_mean", "ttft_ms", "ttft_ms_p50", "ttft_ms_p90", "ttft_ms_p99"),
    "e2e": ("e2e_s_mean", "e2e_s", "e2e_s_p50", "e2e_s_p90", "e2e_s_p99"),
    "decode": ("decode_tok_s", "decode_tok_s_per_user"),
    "prefill": ("prefill_tok_s",),
    "peak": ("peak_output_tok_s",),
    "kv_cache": ("kv_cache_tokens", "kv_pool_gib"),
    "weights": ("weights_gib",),
}
"""Metrics of one kind; a record counts once a family, by the first of these that it has."""
_ENGINE_FIELDS = (
    *("engine", "settings", "model", "weight_format", "kv_cache_format", "speculative"),
    *("hardware", "gpus", "nodes", "interconnect", "parallelism"),
)
OF_AN_ENGINE = ("kv_cache", "weights")
"""Families that an engine settles at its start: its runs count once together."""

VIEWS = ("everything", "clean")
_BANDS = ((1, "1"), (16, "2-16"), (64, "17-64"), (10**9, "above 64"))


@dataclass(frozen=True, slots=True)
class Statistics:
    """Errors of one family in one group."""

    n: int
    median_error: float
    """Median of |predicted / measured - 1|."""
    p90_error: float
    bias: float
    """Median of ln(predicted / measured)."""
    inside: float | None = None
    """Fraction of measurements inside their interval; None until intervals exist."""
    median_width: float | None = None
    """Median of (high - low) / predicted."""


@dataclass(frozen=True)
class ScoreReport:
    """All that `moeplan score` prints and writes."""

    scores: Sequence[RecordScore]
    by: tuple[str, ...]
    problems: Sequence[str] = ()
    """Malformed lines, named."""
    calibration: str | None = None

    @property
    def covered(self) -> int:
        """Records with at least one compared metric."""
        return sum(item.covered for item in self.scores)

    def reasons(self) -> dict[str, int]:
        """How many records each reason leaves out, most frequent first."""
        counts = Counter(item.reason or "" for item in self.scores if not item.covered)
        return dict(counts.most_common())

    def groups(self, view: str = "everything") -> dict[str, dict[str, dict[str, Statistics]]]:
        """Statistics by dimension, value and family; dimension "all" has the one value "all"."""
        found = {"all": {"all": statistics_of(self.scores, view)}}
        for dimension in self.by:
            parts: dict[str, list[RecordScore]] = {}
            for item in self.scores:
                if item.covered:
                    parts.setdefault(DIMENSIONS[dimension](item), []).append(item)
            found[dimension] = {
                value: statistics_of(items, view) for value, items in sorted(parts.items())
            }
        return found

    def to_json(self, version: str) -> dict[str, Any]:
        """The object that `--json` writes."""
        return {
            "records": [_record_json(item) for item in self.scores],
            "summary": self.summary(),
            "version": version,
            "calibration": self.calibration,
        }

    def summary(self) -> dict[str, Any]:
        """Counts, reasons, and the group statistics of both views."""
        return {
            "records": len(self.scores),
            "covered": self.covered,
            "not_covered": self.reasons(),
            "malformed": list(self.problems),
            "groups": {view: _groups_json(self.groups(view)) for view in VIEWS},
        }


def make_report(
    scores: Sequence[RecordScore],
    by: Iterable[str] = ("hardware", "architecture"),
    problems: Sequence[str] = (),
    calibration: str | None = None,
) -> ScoreReport:
    """A report grouped `by` dimensions; raises `UnknownNameError` for one that does not exist."""
    names = tuple(by)
    for name in names:
        if name not in DIMENSIONS:
            raise UnknownNameError("group", name, DIMENSIONS)
    return ScoreReport(scores, names, problems, calibration)


def statistics_of(scores: Iterable[RecordScore], view: str) -> dict[str, Statistics]:
    """Statistics by family over one metric a record; the clean view leaves doubted ones out."""
    samples: dict[str, list[Comparison]] = {}
    seen: set[object] = set()
    for item, family, name in _chosen(scores, view):
        found = item.metrics[name]
        if family in OF_AN_ENGINE:
            engine = (family, found.measured, _engine_of(item.record))
            if engine in seen:
                continue
            seen.add(engine)
        samples.setdefault(family, []).append(found)
    return {family: statistics(found) for family, found in samples.items()}


def _chosen(scores: Iterable[RecordScore], view: str) -> Iterator[tuple[RecordScore, str, str]]:
    """Each record with the families that it has and the metric that counts for each."""
    for item in scores:
        for family, names in FAMILIES.items():
            name = next((name for name in names if name in item.metrics), None)
            if name is not None and not (view == "clean" and is_doubted(item.record, name)):
                yield item, family, name


def _engine_of(record: RunRecord) -> str:
    """What runs of one engine have in common; another start of it differs in what it measured."""
    return repr([record.source.title, *(getattr(record, name) for name in _ENGINE_FIELDS)])


def statistics(sample: Sequence[Comparison]) -> Statistics:
    """Errors of at least one comparison."""
    errors = np.array([item.error for item in sample])
    ratios = np.array([item.log_ratio for item in sample])
    with_interval = [item for item in sample if item.inside is not None]
    widths = [
        (item.predicted.high - item.predicted.low) / item.predicted.value
        for item in with_interval
        if item.predicted.high is not None and item.predicted.low is not None
    ]
    return Statistics(
        n=len(sample),
        median_error=float(np.median(errors)),
        p90_error=float(np.percentile(errors, 90)),
        bias=float(np.median(ratios)),
        inside=float(np.mean([item.inside for item in with_interval])) if with_interval else None,
        median_width=float(np.median(widths)) if widths else None,
    )


def concurrency_band(item: RecordScore) -> str:
    """Requests in flight, in four bands; open loops apart."""
    protocol = item.record.workload
    if protocol.mode == "open_loop" or protocol.concurrency is None:
        return "1" if protocol.mode == "single_stream" else f"{protocol.mode.replace('_', ' ')}"
    return next(name for top, name in _BANDS if protocol.concurrency <= top)


def _version(item: RecordScore) -> str:
    engine = item.record.engine
    return f"{engine.name} {'.'.join((engine.version or 'not said').split('.')[:2])}"


def drafts(item: RecordScore) -> str:
    """Drafter of a record, and whether it says how much was accepted."""
    said = item.record.speculative
    if said is None:
        return "none"
    counted = "counted" if said.mean_accepted_length is not None else "not counted"
    return f"{said.method.casefold()}, acceptance {counted}"


DIMENSIONS: dict[str, Callable[[RecordScore], str]] = {
    "hardware": lambda item: item.record.hardware or "not said",
    "architecture": lambda item: item.record.architecture or item.record.model,
    "engine": lambda item: item.record.engine.name,
    "version": _version,
    "source": lambda item: item.record.source.title,
    "tool": lambda item: item.record.tool or "not said",
    "format": lambda item: item.record.weight_format or "not said",
    "kv": lambda item: item.record.kv_cache_format or "not said",
    "tp": lambda item: f"TP{item.record.parallelism.tp or '?'}",
    "concurrency": concurrency_band,
    "drafts": drafts,
    "mode": lambda item: item.record.workload.mode,
}
"""What records can be grouped by."""


def _record_json(item: RecordScore) -> dict[str, Any]:
    return {
        "id": item.record.id,
        "covered": item.covered,
        "reason": item.reason,
        "metrics": {name: _metric_json(found) for name, found in item.metrics.items()},
        "not_compared": item.not_compared,
        "rules": list(item.rules),
    }


def _metric_json(found: Comparison) -> dict[str, float | None]:
    predicted = found.predicted
    return {
        "measured": found.measured,
        "predicted": predicted.value,
        "low": predicted.low,
        "high": predicted.high,
    }


def _groups_json(
    groups: Mapping[str, Mapping[str, Mapping[str, Statistics]]],
) -> dict[str, Any]:
    return {
        dimension: {
            value: {family: _rounded(asdict(found)) for family, found in families.items()}
            for value, families in parts.items()
        }
        for dimension, parts in groups.items()
    }


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    """Figures to six digits; they rest on far fewer."""
    return {
        name: round(value, 6) if isinstance(value, float) and math.isfinite(value) else value
        for name, value in values.items()
    }
