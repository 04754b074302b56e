"""One kind of GPU, or what stands in the user's racks: several kinds, each searched apart."""

from __future__ import annotations

import streamlit as st

from moeplan.ui import forms
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
    kinds = _kinds(inputs) or [picked(inputs.words, _PARTS)]
    shown = [_one_kind(inputs, index, words) for index, words in enumerate(kinds)]
    inputs.put("kinds", join([words for words in shown if words]))
    if len(shown) < MOST_KINDS and st.button("Add GPUs", icon=":material/add:"):
        _set(inputs, [*(w for w in shown if w), {"device": "gb10", "gpus": "1"}])
        st.rerun()


def machines(inputs: Inputs) -> list[dict[str, str]]:
    """The words of one search for each kind of machine."""
    common = {n: w for n, w in inputs.words.items() if n not in (*_PARTS, "kinds", "pick")}
    if st.session_state.get(inputs.key("kinds shown")) != SEVERAL:
        return [common | picked(inputs.words, _PARTS)]
    return [common | kind for kind in _kinds(inputs)]


def _one_kind(inputs: Inputs, index: int, words: dict[str, str]) -> dict[str, str]:
    """Inputs of one kind; {} once the user took it away."""
    own = Inputs(f"{inputs.page}/kind {index}", dict(words))
    with st.container(border=True):
        forms.machine_inputs(own, "GPUs")
        if st.button("Remove", key=own.key("remove"), type="tertiary"):
            _set(inputs, [w for i, w in enumerate(_kinds(inputs)) if i != index])
            st.rerun()
    return own.words


def _set(inputs: Inputs, kinds: list[dict[str, str]]) -> None:
    """Replace the kinds; their widgets begin anew."""
    inputs.put("kinds", join(kinds))
    for key in [k for k in st.session_state if str(k).startswith(f"{inputs.page}/kind ")]:
        del st.session_state[key]


def _kinds(inputs: Inputs) -> list[dict[str, str]]:
    """Read "device:h100_sxm,gpus:8;device:gb10,gpus:2"."""
    return split(inputs.get("kinds"))[:MOST_KINDS]


def split(text: str) -> list[dict[str, str]]:
    """Read several groups of words: "a:1,b:2;a:3"."""
    groups = [part.split(",") for part in text.split(";") if part.strip()]
    pairs = [[word.partition(":") for word in group] for group in groups]
    return [{name: value for name, _, value in group if name and value} for group in pairs]


def join(groups: list[dict[str, str]]) -> str:
    """Write several groups of words so that `split` reads them."""
    return ";".join(",".join(f"{n}:{w}" for n, w in group.items()) for group in groups)
