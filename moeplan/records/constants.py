"""The constants behind predictions of given records, and whether one rests on what it predicts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from moeplan.errors import MoeplanError
from moeplan.hardware_specs import Hardware
from moeplan.hardware_specs.provenance import Provenance
from moeplan.records.code_constants import code_constants
from moeplan.records.record import RunRecord
from moeplan.records.setup import deployment_of

JUDGED_SOURCES: dict[str, str] = {
    "Lambda's Nemotron page": r"\blambda(\.ai|'s| labs)|^lambda$",
    "kubis.ai": r"\bkubis",
    "KaletoAI": r"\bkaletoai|\bbehemoth",
    "rtx6kpro's Qwen3.5-122B runs": r"\brtxpro6000x2-vs|\bq35-122b|visual-synthesizer\S*\W+bench",
}
"""Published runs whose tables are judged, and how a source that names them reads."""
_SEPARATORS = re.compile(r"[;,()]|\band\b")
_NAMES_A_SOURCE = re.compile(
    r"\w/\w|\w\.(ai|com|io|org|md|json)\b|thread \d+|\b(InferenceX|vLLM|NVIDIA|study)\b", re.I
)


@dataclass(frozen=True, slots=True)
class UsedConstant:
    """One number that predictions rest on."""

    address: str
    value: float
    grade: str
    source: str
    date: str | None
    samples: int | None
    note: str | None
    records: int
    """Records whose prediction uses it."""

    @property
    def rests_on(self) -> str | None:
        """The judged source that this constant rests on alone, None where there is none."""
        return rests_alone_on(self.source)


def constants_used(records: Iterable[RunRecord], hardware: Hardware) -> list[UsedConstant]:
    """Every constant that the predictions of these records use, hardware data first.

    Those that stand in code serve every record. Records that cannot be predicted use none.
    """
    uses: Counter[int] = Counter()
    predicted = 0
    for tables in _tables(records, hardware):
        predicted += 1
        uses.update(id(table) for table in tables)
    found = [
        _constant(address, value, table, uses[id(table)])
        for address, (value, table) in hardware.parameters().items()
        if id(table) in uses
    ]
    code = code_constants().items()
    return found + [_constant(name, value, table, predicted) for name, (value, table) in code]


def _tables(records: Iterable[RunRecord], hardware: Hardware) -> Iterator[list[Provenance]]:
    from moeplan.cost.predictor import prepare
    from moeplan.cost.used_tables import used_tables

    for record in records:
        try:
            deployment, workload, _ = deployment_of(record, hardware)
            sigma = workload.routing_sigma
            yield used_tables(prepare(deployment, hardware, workload.longest_tokens, sigma))
        except MoeplanError:
            continue


def _constant(address: str, value: float, table: Provenance, records: int) -> UsedConstant:
    return UsedConstant(
        address,
        value,
        table.grade,
        table.source,
        table.date,
        table.samples,
        table.note,
        records,
    )


def rests_alone_on(source: str) -> str | None:
    """The judged source that a source text names, unless the text names others beside it."""
    parts = [part.strip() for part in _SEPARATORS.split(source) if part.strip()]
    judged = [name for part in parts if (name := _judged(part))]
    others = [part for part in parts if not _judged(part) and _NAMES_A_SOURCE.search(part)]
    return judged[0] if judged and not others else None


def _judged(part: str) -> str | None:
    found = (name for name, words in JUDGED_SOURCES.items() if re.search(words, part, re.I))
    return next(found, None)
