"""One kind of GPU, or what stands in the user's racks: several kinds, each searched apart."""

from __future__ import annotations

import streamlit as st

from moeplan.ui import forms
from moeplan.ui.groups import group_inputs, join, split
from moeplan.ui.state import Inputs, picked

ONE, SEVERAL = "One kind", "What I have"
MOST_KINDS = 6
_PARTS = ("device", "gpus", "nodes", "fabric")


def list_input(inputs: Inputs) -> None:
    """Device, count and fabric of one machine or of several kinds."""
    key = inputs.key("kinds shown")
    if key not in st.session_state:
        st.session_state[key] = SEVERAL if inputs.get("kinds") else ONE
    st.segmented_control("Machines", [ONE, SEVERAL], key=key, label_visibility="collapsed")
    if st.session_state[key] != SEVERAL:
        inputs.put("kinds", None)
        forms.machine_inputs(inputs)
        return
    if not inputs.get("kinds"):
        inputs.put("kinds", join([picked(inputs.words, _PARTS)]))
    group_inputs(
        inputs, "kinds", forms.machine_inputs, machine_name, add="Add GPUs", most=MOST_KINDS
    )


def machines(inputs: Inputs) -> list[dict[str, str]]:
    """The words of one search for each kind of machine."""
    common = {n: w for n, w in inputs.words.items() if n not in (*_PARTS, "kinds", "pick")}
    kinds = split(inputs.get("kinds")) or [picked(inputs.words, _PARTS)]
    return [common | kind for kind in kinds]


def machine_name(words: dict[str, str]) -> str:
    """Count, device and fabric."""
    fabric = f" over {words['fabric']}" if "fabric" in words else ""
    return f"{words.get('gpus', '1')}× {words.get('device', '?')}{fabric}"
