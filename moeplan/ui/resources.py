"""What all sessions share: hardware, the catalogue, published records."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from moeplan.cli.session import read_hardware
from moeplan.errors import UnknownNameError
from moeplan.hardware_specs import Hardware
from moeplan.models import ModelEntry, list_models, load_model
from moeplan.ui.uploads import kept, path_of


@st.cache_resource(max_entries=8, show_spinner="Reading hardware")
def _hardware(calibration: str | None) -> Hardware:
    return read_hardware(Path(calibration) if calibration else None)


def hardware() -> Hardware:
    """All known hardware under the calibration in use."""
    word = calibration()
    return _hardware(path_of(word) if word else None)


def shipped_hardware() -> Hardware:
    """All known hardware as it ships."""
    return _hardware(None)


def calibration() -> str:
    """The word of the calibration in use in this session; "" for none."""
    return st.session_state.get("calibration", "")


@st.cache_data(show_spinner=False)
def model_names() -> list[str]:
    """Slugs of the catalogue."""
    return list(list_models())


@st.cache_data(show_spinner=False)
def _catalogued() -> set[str]:
    """Every name that the catalogue answers to, without case."""
    entries = [load_model(slug) for slug in model_names()]
    names = {entry.slug for entry in entries} | {entry.hf_id for entry in entries if entry.hf_id}
    names |= {alias for entry in entries for alias in entry.aliases}
    return {name.casefold() for name in names}


def model_word(word: str) -> str:
    """What `load_model` may be given: a catalogued name, or the path of an upload.

    Raises `UnknownNameError` for anything else, so that no link makes the app read a file.
    """
    if not kept(word) and word.casefold() not in _catalogued():
        raise UnknownNameError("model", word, model_names())
    return path_of(word)


def model(word: str) -> ModelEntry:
    """The model behind a word."""
    return load_model(model_word(word))
