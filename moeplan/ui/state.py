"""What a page was asked: words as one would type them on the command line, kept in the URL.

A page's words live in the session; its link is those words as a query string, so that opening the
link in another browser shows the same view. Uploaded files stay in the session that got them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import streamlit as st

UPLOAD_MARK = "upload:"
"""Opens a word that stands for an uploaded file."""
MOST_WORDS = 200
LONGEST_WORD = 4000


@dataclass(frozen=True)
class Inputs:
    """The words of one page. An absent word means the default of the command line."""

    page: str
    words: dict[str, str]
    notes: list[str] = field(default_factory=list)
    """What is wrong with words that were replaced, for the user to see beside the answer."""

    def get(self, name: str, default: str = "") -> str:
        """A word, or `default` where it is unset."""
        return self.words.get(name, default)

    def put(self, name: str, value: str | None) -> None:
        """Set a word; None or "" unsets it."""
        if value:
            self.words[name] = value
        else:
            self.words.pop(name, None)

    def key(self, name: str) -> str:
        """Key of the widget that holds a word."""
        return f"{self.page}/{name}"

    def change(self, words: Mapping[str, str | None]) -> None:
        """Set words from outside their widgets, which take them over in the next run."""
        for name, value in words.items():
            self.put(name, value)
            st.session_state.pop(self.key(name), None)

    def publish(self) -> None:
        """Make the address bar hold these words; uploads cannot be in a link."""
        shared = {n: w for n, w in self.words.items() if not w.startswith(UPLOAD_MARK)}
        if st.query_params.to_dict() != shared:
            st.query_params.from_dict(shared)


def open_inputs(page: str, start: Mapping[str, str]) -> Inputs:
    """The words of a page: of this session, else of the link, else those to start from."""
    pages = st.session_state.setdefault("words", {})
    if page not in pages:
        linked = _linked()
        carried = st.session_state.get("carried", {})
        pages[page] = linked or dict(start) | _only(carried, start)
    return Inputs(page, pages[page])


def hand_over(page: str, words: Mapping[str, str]) -> None:
    """Let another page start from these words; its widgets begin anew."""
    st.session_state.setdefault("words", {})[page] = dict(words)
    for key in [k for k in st.session_state if str(k).startswith(f"{page}/")]:
        del st.session_state[key]


def carry(words: Mapping[str, str]) -> None:
    """Remember a deployment and its traffic for pages that were not opened yet."""
    st.session_state["carried"] = dict(words)


def _only(words: Mapping[str, str], start: Mapping[str, str]) -> dict[str, str]:
    """Carried words for a page that starts from a deployment."""
    return dict(words) if "model" in start else {}


def _linked() -> dict[str, str]:
    """Words of the address bar; marks of uploads mean nothing in another session."""
    found = list(st.query_params.to_dict().items())[:MOST_WORDS]
    return {name: word[:LONGEST_WORD] for name, word in found if not word.startswith(UPLOAD_MARK)}


def picked(words: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Those words that have one of these names."""
    return {name: words[name] for name in names if name in words}
