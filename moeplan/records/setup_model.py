"""Which model and checkpoint a record ran."""

from __future__ import annotations

from typing import Literal

from moeplan.errors import UnknownNameError
from moeplan.models.catalogue import ModelEntry, load_model
from moeplan.models.checkpoint import Checkpoint
from moeplan.records.record import RunRecord
from moeplan.records.rules import NotCovered, Rules

_FORMATS = {
    "bf16": "bf16",
    "fp16": "bf16",
    "fp8": "fp8",
    "nvfp4": "nvfp4",
    "mxfp4": "mxfp4",
    "int4": "int4",
    "int4_awq": "int4",
    "int4_gptq": "int4",
    "int4_autoround": "int4",
    "w4a16": "int4",
}
"""Checkpoint name by the format that a record states."""


def model_of(record: RunRecord, rules: Rules) -> tuple[ModelEntry, Checkpoint]:
    """Catalogued model and checkpoint; raises `NotCovered` where there is none."""
    entries = _entries(record)
    if not entries:
        raise NotCovered(f"model {record.architecture or record.model} is not in the catalogue")
    if record.weight_format is None:
        return _by_repository(record, entries[0], rules)
    name = _FORMATS.get(record.weight_format)
    if name is None:
        raise NotCovered(f"weights stored as {record.weight_format!r}")
    for entry in entries:
        found = _published(entry, name, record, rules)
        if found is not None:
            return entry, found
    return _hypothetical(entries[0], name, record, rules)


def _entries(record: RunRecord) -> list[ModelEntry]:
    """The model by its published name, by a name inside that text, then by the record's slug."""
    names = [record.model, *_names_inside(record), record.architecture]
    found = []
    for name in names:
        try:
            if name and _is_catalogue_name(name):
                found.append(load_model(name))
        except UnknownNameError:
            continue
    return found


def _names_inside(record: RunRecord) -> list[str]:
    """Repositories that the model text names among other words, with or without their owner."""
    words = [word.strip("(),;") for word in record.model.split()]
    if len(words) < 2 or not record.architecture:
        return []
    try:
        entry = load_model(record.architecture)
    except UnknownNameError:
        return []
    known = [name for name in (entry.hf_id, *entry.aliases) if name]
    by_name = {name.split("/")[-1].casefold(): name for name in known}
    return [by_name.get(word.split("/")[-1].casefold(), "") for word in words]


def _is_catalogue_name(name: str) -> bool:
    """Whether the text can only be a name: records never point at files of this machine."""
    return not name.endswith(".json") and not name.startswith((".", "/", "~"))


def _published(entry: ModelEntry, name: str, record: RunRecord, rules: Rules) -> Checkpoint | None:
    """The checkpoint of that format in the repository that the record names, or the usual one."""
    own = record.model.casefold()
    same = [c for c in entry.checkpoints if c.name == name]
    exact = [c for c in same if (c.repo or "").casefold() == own]
    if not exact and same:
        rules.use(f"checkpoint: {same[0].repo} stands for {record.model!r} in {name}")
    return next(iter([*exact, *same]), None)


def _hypothetical(
    entry: ModelEntry, name: str, record: RunRecord, rules: Rules
) -> tuple[ModelEntry, Checkpoint]:
    """The uniform re-quantisation where nobody's is catalogued.

    For 4-bit integers always (they differ little); for other formats only where the record names
    the 16-bit repository, that is, where whoever ran it quantised it.
    """
    if name == "int4":
        rules.use(f"checkpoint: hypothetical, all of {entry.slug} in 4 bits with groups of 128")
    elif _names_16_bit(entry, record):
        rules.use(f"checkpoint: hypothetical, {entry.hf_id} quantised to {name} by its user")
    else:
        raise NotCovered(f"no {name} checkpoint of {entry.slug} in the catalogue")
    return entry, entry.hypothetical(name)


def _names_16_bit(entry: ModelEntry, record: RunRecord) -> bool:
    named = (entry.hf_id or "").casefold()
    return bool(named) and record.model.casefold().split(" ")[0] == named


def _by_repository(
    record: RunRecord, entry: ModelEntry, rules: Rules
) -> tuple[ModelEntry, Checkpoint]:
    if entry.default_repo is None and entry.hf_id != record.model:
        raise NotCovered("weight format not said")
    rules.use(f"weight format: that of {entry.default_checkpoint.repo}")
    return entry, entry.default_checkpoint


def kv_format_of(
    record: RunRecord, checkpoint: Checkpoint, rules: Rules
) -> Literal["auto", "bf16", "fp8"]:
    """Format of the KV cache, the checkpoint's own scheme where the source is silent."""
    said = record.kv_cache_format
    if said is None:
        return _silent_kv_format(record, checkpoint, rules)
    word = said.split()[0].lower()
    if word not in ("bf16", "fp8"):
        raise NotCovered(f"KV cache in {said!r}")
    if word != said:
        rules.use(f"KV format: {said!r} taken as {word}")
    return "fp8" if word == "fp8" else "bf16"


def _silent_kv_format(
    record: RunRecord, checkpoint: Checkpoint, rules: Rules
) -> Literal["auto", "bf16"]:
    """A stand-in's scheme says nothing about the checkpoint that ran, unless both are NVIDIA's."""
    own = (checkpoint.repo or "").casefold() == record.model.casefold()
    if own or record.model.casefold().startswith("nvidia"):
        rules.use(f"KV format: the checkpoint's own, {checkpoint.kv_format}")
        return "auto" if checkpoint.kv_format == "fp8" else "bf16"
    rules.use("KV format: bf16, none is said")
    return "bf16"
