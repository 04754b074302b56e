"""Speculative decoding of a record: its drafts, and how many of them were accepted."""

from __future__ import annotations

from moeplan.records.record import RunRecord
from moeplan.records.rules import NotCovered, Rules
from moeplan.speculation import Method, Speculation, speculation

_METHODS: dict[str, Method] = {
    "mtp": "mtp",
    "nextn": "mtp",
    "eagle": "mtp",
    "eagle3": "eagle3",
    "ngram": "ngram",
}
"""Drafter by the name in a record; SGLang calls MTP layers NEXTN and starts them as EAGLE."""


def speculation_of(record: RunRecord, rules: Rules) -> Speculation | None:
    """The record's speculation; the usual acceptance where it counts none.

    Raises `NotCovered` for drafters that are not modelled, and for n-grams without a count.
    """
    said = record.speculative
    if said is None:
        return None
    name = said.method.casefold()
    method = _METHODS.get(name)
    if method is None or (name == "eagle" and record.engine.name == "vllm"):
        raise NotCovered(f"speculative decoding by {said.method!r}")
    drafts = said.draft_tokens
    if drafts is not None and record.engine.name == "sglang":
        drafts = max(drafts - 1, 1)
        rules.use("draft tokens: SGLang counts the verified token among them")
    if drafts is None:
        rules.use(f"draft tokens: what is usual for {method}")
    mean = said.mean_accepted_length
    if mean is None and method == "ngram":
        raise NotCovered("n-gram drafts without their acceptance")
    found = speculation(method, drafts, mean)
    if mean is None:
        rules.use(f"acceptance: the usual {found.mean_tokens:.2f} tokens a step")
    return found
