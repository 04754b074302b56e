"""Measured runs: published, served by moeplan's validator, and imported in this session."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import streamlit as st

from moeplan.records.published import published_records
from moeplan.records.record import RunRecord
from moeplan.records.served import served_records


@st.cache_resource(show_spinner=False)
def shipped_records() -> list[RunRecord]:
    """The published runs in the package."""
    return published_records()


def own_records() -> list[RunRecord]:
    """Runs that the user imported in this session."""
    return st.session_state.setdefault("records", [])


def all_records() -> list[RunRecord]:
    """Published runs, those that moeplan's validator served, then the user's own."""
    return [*shipped_records(), *served_records(), *own_records()]


def digest(records: Iterable[RunRecord]) -> str:
    """Hash of their content."""
    content = "".join(record.model_dump_json() for record in records)
    return hashlib.sha256(content.encode()).hexdigest()
