"""The user's own measurements: import, list, forget."""

from __future__ import annotations

import shlex
from typing import Any

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from moeplan.cli.records import parse_facts
from moeplan.errors import MoeplanError, RecordError
from moeplan.records.importers import IMPORTERS, import_results
from moeplan.records.reader import read_records
from moeplan.records.record import RunRecord
from moeplan.ui.figures import escaped
from moeplan.ui.records import own_records
from moeplan.ui.resources import hardware, model_names
from moeplan.ui.tables import save, table
from moeplan.ui.uploads import keep, named, path_of

FORMATS = ("bf16", "fp8", "nvfp4", "mxfp4", "int4")
NOT_SAID = "as the file says"


def show() -> None:
    """Import of result files."""
    st.subheader("Your own measurements")
    st.caption(f"Result files of {', '.join(IMPORTERS)}, or run records (.jsonl).")
    with st.form("import", border=True):
        facts = _facts()
        files = st.file_uploader(
            "Result files", type=["json", "jsonl"], accept_multiple_files=True, key="own results"
        )
        if st.form_submit_button("Import", icon=":material/upload:"):
            _import(files, facts)
            st.rerun()  # the counts above are of before
    for problem in st.session_state.get("import problems", []):
        st.error(escaped(problem))
    _own()


def _facts() -> list[str]:
    """What no result file says, as field=value pairs."""
    st.caption("What the files do not say:")
    columns = st.columns(3)
    with columns[0]:
        model = st.selectbox("Model", [NOT_SAID, *model_names()], key="fact model")
        gpus = st.number_input("GPUs", 1, 1024, None, placeholder=NOT_SAID, key="fact gpus")
    with columns[1]:
        device = st.selectbox("GPU", [NOT_SAID, *hardware().devices], key="fact device")
        tp = st.number_input("TP", 1, 1024, None, placeholder=NOT_SAID, key="fact tp")
    with columns[2]:
        weights = st.selectbox("Weights", [NOT_SAID, *FORMATS], key="fact weights")
    given = {"architecture": model, "hardware": device, "weight_format": weights, "gpus": gpus}
    pairs = [f"{name}={value}" for name, value in given.items() if value not in (NOT_SAID, None)]
    return [*pairs, *([f'parallelism={{"tp": {tp}}}'] if tp else [])]


def _import(files: list[UploadedFile], facts: list[str]) -> None:
    """Read every file; what cannot be read becomes a line."""
    problems = [] if files else ["Choose a result file first."]
    known = {record.id for record in own_records()}
    for file in files:
        try:
            found, faults = _read(file, facts)
        except MoeplanError as error:
            problems.append(named(str(error)))
            continue
        problems += faults
        new = [record for record in found if record.id not in known]
        known |= {record.id for record in new}
        own_records().extend(new)
        if new:
            st.session_state.setdefault("imported", []).append((file.name, facts))
    st.session_state["import problems"] = problems


def _read(file: UploadedFile, facts: list[str]) -> tuple[list[RunRecord], list[str]]:
    lines = file.name.lower().endswith(".jsonl")
    path = path_of(keep(file, "results.jsonl" if lines else "results.json"))
    if lines:
        found = read_records(path)
        if not found.records and not found.problems:
            raise RecordError(f"{file.name}: no line holds a record")
        return found.records, [named(problem) for problem in found.problems[:_MOST_PROBLEMS]]
    return import_results(path, None, parse_facts(facts)), []


_MOST_PROBLEMS = 3


def _own() -> None:
    records = own_records()
    if not records:
        return
    rows = [{"id": r.id, "model": r.model, "figures": len(r.measured)} for r in records]
    columns: dict[str, Any] = {
        "record": lambda row: row["id"],
        "model": lambda row: row["model"],
        "figures": lambda row: row["figures"],
    }
    table("Your records", rows, columns)
    lines = "".join(r.model_dump_json(exclude_none=True, exclude_defaults=True) + "\n"
                    for r in records)  # fmt: skip
    save("Run records", lines, "records.jsonl", "application/jsonl")
    if st.button("Forget them", icon=":material/delete:"):
        records.clear()
        st.session_state["imported"] = []
        st.rerun()


def command_lines() -> list[str]:
    """The imports of this session as commands."""
    lines = []
    for name, facts in st.session_state.get("imported", []):
        words = ["moeplan", "records", "import", name, "--out", "records.jsonl"]
        lines.append(shlex.join([*words, *(part for fact in facts for part in ("--set", fact))]))
    return lines
