"""The calibration in use: fitted to the user's own records here, or loaded from a file."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import streamlit as st

from moeplan.calibration import Calibration, load_calibration, save_calibration
from moeplan.calibration.from_records import LEAST_SHARE, ClientSteps, calibrate_records
from moeplan.errors import MoeplanError
from moeplan.ui import frame
from moeplan.ui.answers import worked
from moeplan.ui.figures import escaped
from moeplan.ui.records import digest, own_records
from moeplan.ui.resources import calibration, shipped_hardware
from moeplan.ui.state import Inputs
from moeplan.ui.tables import fields, save, table
from moeplan.ui.uploads import keep, keep_content, kept, named

FILE_NAME = "calibration.json"


def show(inputs: Inputs) -> None:
    """What is in use, a way to fit one, and a way to load one."""
    st.subheader("Calibration")
    st.caption("A calibration replaces constants by what your own GPUs show, on all pages.")
    _in_use()
    with st.container(border=True):
        st.markdown("**Fit one to your own measurements**")
        with frame.refusals():
            _fit()
    _load(inputs)


def _in_use() -> None:
    file = kept(calibration())
    if file is None:
        st.info("None in use: figures rest on the constants that ship.", icon=":material/tune:")
        return
    found = load_calibration(file.path)
    st.success(escaped(f"{file.name} is in use on all pages: {len(found.overrides)} constants."))
    if st.button("Stop using it"):
        st.session_state["calibration"] = ""
        st.rerun()
    columns: dict[str, Any] = {
        "constant": lambda row: row["address"],
        "shipped": lambda row: row["prior"],
        "calibrated": lambda row: row["value"],
        "spread": lambda row: row["spread"],
        "source of the shipped one": lambda row: row["prior_source"],
    }
    table(
        "Calibration",
        [p.model_dump() for p in (*found.parameters, *found.host) if p.determined],
        columns,
    )


def _fit() -> None:
    st.caption(
        "A load generator's figure counts where one kind of engine step makes up at least "
        f"{LEAST_SHARE:.0%} of it in the simulation of the run: times per token of lone requests "
        "and of steady crowds with long answers, times to first token of lone long prompts. Steps "
        "that `moeplan validate run` records inside vLLM say more: `moeplan calibrate` fits those, "
        "and its file can be loaded below."
    )
    records = own_records()
    if not records:
        st.caption("Import your results above first.")
        return
    asked = digest(records)
    if st.button("Calibrate from these records", icon=":material/tune:"):
        st.session_state["calibrating"] = asked
    if st.session_state.get("calibrating") != asked:
        return
    hardware = shipped_hardware()
    found, steps = worked(
        "calibrate", (asked,), lambda bar: calibrate_records(records, hardware, bar), form=tuple
    )
    _show_fit(found, steps)


def _show_fit(found: Calibration, steps: ClientSteps) -> None:
    before, after = found.before.median_error, found.after.median_error
    st.markdown(
        f"{len(steps.used)} of {len(steps.used) + len(steps.unused)} records show the time of a "
        f"step, {found.after.cells} steps in all. They determine **{len(found.overrides)} "
        f"constants**; the steps' median error falls from {before:.1%} to {after:.1%}. These steps "
        "were fitted: judge by other figures, above."
    )
    content = _content(found)
    with st.container(horizontal=True):
        if st.button("Use it on all pages", type="primary", disabled=not found.overrides):
            st.session_state["calibration"] = keep_content(content, FILE_NAME, FILE_NAME)
            st.rerun()
        save("Calibration file", content.decode(), FILE_NAME, "application/json")
    if steps.unused:
        with st.expander(f"Why {len(steps.unused)} records show none"):
            rows = [{"record": name, "reason": reason} for name, reason in steps.unused.items()]
            table("Records without steps", rows, fields("record", "reason"))


def _content(found: Calibration) -> bytes:
    """The file that `moeplan calibrate` writes."""
    with TemporaryDirectory(prefix="moeplan-ui-") as folder:
        path = Path(folder) / FILE_NAME
        save_calibration(path, found)
        return path.read_bytes()


def _load(inputs: Inputs) -> None:
    key = inputs.key("calibration file")
    st.file_uploader("Calibration file", type="json", key=key, on_change=_take, args=(key,))
    problem = st.session_state.get("calibration problem")
    if problem:
        st.error(escaped(problem))


def _take(key: str) -> None:
    """Put an uploaded calibration to use on all pages, or say what is wrong with it."""
    file = st.session_state[key]
    st.session_state["calibration"] = ""
    st.session_state["calibration problem"] = None
    if file is None:
        return
    try:
        word = keep(file, FILE_NAME)
        load_calibration(kept(word).path)
        st.session_state["calibration"] = word
    except MoeplanError as error:
        st.session_state["calibration problem"] = named(str(error))


def command_lines() -> list[str]:
    """What fits the same calibration, once one was asked for."""
    if st.session_state.get("calibrating") != digest(own_records()):
        return []
    return [f"moeplan calibrate records.jsonl --out {FILE_NAME}"]
