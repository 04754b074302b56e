"""Streamlit widgets for options: range, default and help come from the option's own field."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import NoneType
from typing import Any, get_args

import streamlit as st
from annotated_types import Ge, Le

from moeplan.errors import InputError
from moeplan.options import Options, option_words, parse_option
from moeplan.ui.state import Inputs

AUTO = "auto"
UNSET = "engine's default"
MOST_IN_A_BROWSER = 2**53 - 1
"""Larger whole numbers are not exact in JavaScript."""


def option(inputs: Inputs, kind: type[Options], name: str, label: str, **extra: Any) -> None:
    """The widget that fits a field: a choice, a number, a switch or a line of text."""
    field = kind.model_fields[name]
    kinds = (field.annotation, *get_args(field.annotation))
    extra = {"help": field.description} | extra
    if bool in kinds:
        _switch(inputs, kind, name, label, NoneType in kinds, extra)
    elif option_words(field.annotation):
        words = option_words(field.annotation)
        if NoneType in kinds:
            words = [UNSET, *words]
        default = str(field.default or UNSET)
        choice(inputs, name, label, words, default=default, unset=default, **extra)
    elif int in kinds or float in kinds:
        _number(inputs, kind, name, label, extra)
    else:
        text(inputs, name, label, **extra)


def choice(
    inputs: Inputs,
    name: str,
    label: str,
    words: Sequence[str],
    *,
    default: str | None = None,
    shown: Callable[[str], str] = str,
    unset: str = UNSET,
    **extra: Any,
) -> str:
    """A select box over words; a word that is not among them is named and replaced."""
    first = default if default in words else words[0]
    given = inputs.get(name) or first
    if given not in words:
        note = f"{label}: {given!r} is none of the choices here; {first} stands for it."
        inputs.notes.append(note)
        given = first
    key = _begin(inputs, name, given)
    if st.session_state[key] not in words:
        st.session_state[key] = first
    st.selectbox(label, words, key=key, format_func=shown, **extra)
    value = st.session_state[key]
    inputs.put(name, None if value == unset else value)
    return value


def text(inputs: Inputs, name: str, label: str, **extra: Any) -> str:
    """A line of text; the command's own parser judges it."""
    key = _begin(inputs, name, inputs.get(name))
    st.text_input(label, key=key, **extra)
    inputs.put(name, st.session_state[key].strip())
    return inputs.get(name)


def ladder(
    inputs: Inputs, name: str, label: str, rungs: Iterable[int], start: int = 1, **extra: Any
) -> None:
    """A slider over whole numbers that grow by steps; a linked value between them joins.

    `start` is the default of the command line.
    """
    rungs = {*rungs, start}
    given = inputs.get(name)
    value = int(given) if given.isascii() and given.isdigit() and int(given) else start
    key = _begin(inputs, name, value)
    rungs.add(int(st.session_state[key]))
    st.select_slider(label, sorted(rungs), key=key, format_func=lambda n: f"{n:,}", **extra)
    inputs.put(name, str(st.session_state[key]))


def _number(
    inputs: Inputs, kind: type[Options], name: str, label: str, extra: dict[str, Any]
) -> None:
    field = kind.model_fields[name]
    whole = int in (field.annotation, *get_args(field.annotation))
    read = int if whole else float
    given = _checked(inputs, kind, name)
    start = given if given is not None else field.default
    key = _begin(inputs, name, None if start is None else read(start))
    least = next((rule.ge for rule in field.metadata if isinstance(rule, Ge)), None)
    most = next((rule.le for rule in field.metadata if isinstance(rule, Le)), None)
    st.number_input(
        label,
        min_value=None if least is None else read(least),
        max_value=None if most is None else read(min(most, MOST_IN_A_BROWSER)),
        step=1 if whole else None,
        key=key,
        placeholder=AUTO,
        **extra,
    )
    value = st.session_state[key]
    inputs.put(name, None if value in (None, field.default) else f"{value:.12g}")


def _switch(
    inputs: Inputs,
    kind: type[Options],
    name: str,
    label: str,
    three_valued: bool,
    extra: dict[str, Any],
) -> None:
    given = _checked(inputs, kind, name)
    if three_valued:
        words = {UNSET: None, "on": "True", "off": "False"}
        start = {None: UNSET, True: "on", False: "off"}[given]
        key = _begin(inputs, name, start)
        st.selectbox(label, list(words), key=key, **extra)
        inputs.put(name, words[st.session_state[key]])
        return
    key = _begin(inputs, name, bool(given))
    st.checkbox(label, key=key, **extra)
    inputs.put(name, "True" if st.session_state[key] else None)


def _checked(inputs: Inputs, kind: type[Options], name: str) -> Any:
    """The value of a word; one that breaks the field's rule is named and dropped."""
    if name not in inputs.words:
        return None
    try:
        return parse_option(kind, name, inputs.words[name])
    except InputError as error:
        inputs.notes.append(str(error))
        inputs.put(name, None)
        st.session_state.pop(inputs.key(name), None)
        return None


def _begin(inputs: Inputs, name: str, value: Any) -> str:
    """The key of a widget, which starts from `value` where it is new."""
    key = inputs.key(name)
    if key not in st.session_state:
        st.session_state[key] = value
    return key
