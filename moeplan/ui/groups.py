"""Several like things on one page (machines, deployments): each has inputs of its own.

Their words stand in one word of the page: "device:h100_sxm,gpus:8;device:gb10,gpus:2".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import quote, unquote

import streamlit as st

from moeplan.ui.state import Inputs

Group = dict[str, str]


def split(text: str) -> list[Group]:
    """Read groups of words; what is no pair is left out."""
    return [group for part in text.split(";") if (group := _group(part))]


def _group(text: str) -> Group:
    pairs = [word.partition(":") for word in text.split(",")]
    return {name: unquote(value) for name, _, value in pairs if name and value}


def join(groups: Sequence[Group]) -> str:
    """Write groups of words so that `split` reads them."""
    return ";".join(
        ",".join(f"{name}:{quote(word, safe='/. ')}" for name, word in group.items())
        for group in groups
    )


def group_inputs(
    inputs: Inputs,
    word: str,
    form: Callable[[Inputs], None],
    title: Callable[[Group], str],
    *,
    add: str,
    most: int,
) -> list[Group]:
    """One box of inputs a group, to be added and taken away; returns their words now."""
    groups = split(inputs.get(word))[:most]
    found = []
    for index, group in enumerate(groups):
        own = Inputs(f"{inputs.page}/{word} {index}", dict(group), inputs.notes)
        with st.expander(title(group), expanded=len(groups) == 1):
            form(own)
            if len(groups) > 1 and st.button("Remove", key=own.key("remove"), type="tertiary"):
                _replace(inputs, word, [g for i, g in enumerate(groups) if i != index])
        found.append(own.words)
    inputs.put(word, join(found))
    if len(found) < most and st.button(add, icon=":material/add:", key=inputs.key(f"add {word}")):
        _replace(inputs, word, [*found, dict(found[-1])])
    return found


def _replace(inputs: Inputs, word: str, groups: Sequence[Group]) -> None:
    """Set other groups and begin anew: widgets count from the first."""
    inputs.put(word, join(groups))
    for key in [k for k in st.session_state if str(k).startswith(f"{inputs.page}/{word} ")]:
        del st.session_state[key]
    st.rerun()
