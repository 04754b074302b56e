"""Uploaded files: data of limited size, kept in a folder of the app's own under a name of its own.

The user's file name is only ever shown.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from moeplan.errors import InputError
from moeplan.ui.state import UPLOAD_MARK, Inputs

MEGA = 1_000_000
MOST_BYTES = 16 * MEGA
MOST_CONFIG_BYTES = MEGA
_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Kept:
    """One uploaded file: where it lies, and what its owner calls it."""

    path: Path
    name: str


@st.cache_resource
def _folder() -> TemporaryDirectory:
    return TemporaryDirectory(prefix="moeplan-ui-")


def upload(inputs: Inputs, name: str, label: str, file_name: str, most: int = MOST_BYTES) -> None:
    """A file chooser that sets the word `name`; says so where the file is refused.

    `file_name` is what the file is called on this side, such as "config.json".
    """
    key = inputs.key(f"{name} file")
    suffix = file_name.rsplit(".", 1)[-1]
    arguments = (inputs, name, file_name, most)
    st.file_uploader(label, type=suffix, key=key, on_change=_take, args=arguments)
    problem, file = st.session_state.get(_problem(key)), kept(inputs.get(name))
    if problem:
        st.error(problem)
    elif file:
        st.caption("Your file is in use; a link cannot carry it.")


def _take(inputs: Inputs, name: str, file_name: str, most: int) -> None:
    """Runs when the user chose or removed a file."""
    key = inputs.key(f"{name} file")
    file = st.session_state[key]
    st.session_state[_problem(key)] = None
    if not inputs.get(name).startswith(UPLOAD_MARK):
        st.session_state[f"{key} before"] = inputs.get(name)
    inputs.put(name, st.session_state[f"{key} before"])
    try:
        if file:
            inputs.put(name, keep(file, file_name, most))
    except InputError as error:
        st.session_state[_problem(key)] = str(error)


def _problem(key: str) -> str:
    return f"{key} problem"


def keep(file: UploadedFile, file_name: str, most: int = MOST_BYTES) -> str:
    """Keep a file; returns the word that stands for it. Raises `InputError` where it is too big."""
    content = file.getvalue()
    if len(content) > most:
        raise InputError(
            f"{file.name!r} holds {len(content) / MEGA:.1f} MB; at most {most / MEGA:g} MB are read"
        )
    return keep_content(content, file.name, file_name)


def keep_content(content: bytes, name: str, file_name: str) -> str:
    """Keep what its owner calls `name` under a name of our own; returns its word."""
    digest = hashlib.sha256(content).hexdigest()[:_DIGITS]
    folder = Path(_folder().name) / f"upload-{digest}"
    folder.mkdir(exist_ok=True)
    path = folder / file_name
    path.write_bytes(content)
    word = f"{UPLOAD_MARK}{digest}/{file_name}"
    st.session_state.setdefault("uploads", {})[word] = Kept(path, name)
    return word


def kept(word: str) -> Kept | None:
    """The file behind a word of this session, None where the word is none of them."""
    return st.session_state.get("uploads", {}).get(word)


def path_of(word: str) -> str:
    """A word as the library takes it: the path of an upload, else the word itself."""
    file = kept(word)
    return str(file.path) if file else word


def named(text: str) -> str:
    """A text with the app's own paths replaced by the names that their owner knows."""
    for file in st.session_state.get("uploads", {}).values():
        text = text.replace(str(file.path), file.name).replace(str(file.path.parent), file.name)
    return text
