"""Answers of the commands, kept while their words stay the same; long ones show progress.

Each answer is the object that the command prints with `--json`.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any

import streamlit as st

from moeplan.cli import render
from moeplan.cli.explain import explain_answer
from moeplan.cli.fit import fit_answer
from moeplan.cli.recommend import recommend_answer
from moeplan.cli.simulate import simulate_answer, timeline_answer
from moeplan.ui.commands import TAKES, parsed
from moeplan.ui.resources import calibration, hardware
from moeplan.ui.state import picked

PATIENCE_S = 0.4
"""Work shorter than this shows no progress: a bar that flashes by only disturbs."""
REFRESH_S = 0.1
MOST_KEPT = 128
FEW_KEPT = 4
LARGE = ("timeline",)
"""Answers of megabytes."""

Progress = Callable[[float], None]


class Kept:
    """The last answers of all sessions, by what was asked."""

    def __init__(self, most: int = MOST_KEPT):
        self._most = most
        self._answers: OrderedDict[Any, Any] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Any) -> Any:
        """An answer, or None."""
        with self._lock:
            if key in self._answers:
                self._answers.move_to_end(key)
            return self._answers.get(key)

    def put(self, key: Any, answer: Any) -> None:
        """Keep an answer; the one used longest ago makes room."""
        with self._lock:
            self._answers[key] = answer
            if len(self._answers) > self._most:
                self._answers.popitem(last=False)


@st.cache_resource
def _kept(what: str) -> Kept:
    return Kept(FEW_KEPT if what in LARGE else MOST_KEPT)


def answer(command: str, words: Mapping[str, str]) -> dict[str, Any]:
    """What `moeplan COMMAND … --json` prints for these words. Raises `MoeplanError`.

    "timeline" stands for `simulate --timeline`.
    """
    own = _own(command, words)
    return worked(command, (own,), lambda bar: _run(command, dict(own), bar))


def is_kept(command: str, words: Mapping[str, str]) -> bool:
    """Whether the answer to these words is there at once."""
    return _kept(command).get((command, calibration(), _own(command, words))) is not None


def _own(command: str, words: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The words that a command takes, as a key."""
    names = [name for kind in TAKES[command] for name in kind.model_fields]
    return tuple(sorted(picked(words, names).items()))


def _run(command: str, words: Mapping[str, str], bar: Progress) -> dict[str, Any]:
    options, known = parsed(command, words), hardware()
    if command == "recommend":
        return recommend_answer(*options, known, bar)
    if command in _SIMULATING:
        return _SIMULATING[command](*options, known, bar)
    return _INSTANT[command](*options, known)


_SIMULATING = {"simulate": simulate_answer, "timeline": timeline_answer}
_INSTANT = {"explain": explain_answer, "fit": fit_answer}


def worked(
    what: str,
    asked: tuple[Any, ...],
    work: Callable[[Progress], Any],
    form: Callable[[Any], Any] = render.plain,
) -> Any:
    """The kept answer to `asked`, else that of `work`, in the form of JSON unless said.

    Work that takes a while shows how far it is and can be stopped; a stopped page stays stopped
    until the user asks again.
    """
    key = (what, calibration(), *asked)
    found = _kept(what).get(key)
    if found is None:
        _stay_stopped(key)
        with _Bar(what, key) as bar:
            found = form(work(bar))
        _kept(what).put(key, found)
    return found


def _stay_stopped(key: Any) -> None:
    if st.session_state.get("stopped") != key:
        return
    st.info("Stopped before the end.", icon=":material/front_hand:")
    if not st.button("Go on", type="primary"):
        st.stop()
    st.session_state["stopped"] = None


class _Bar:
    """Shows itself after `PATIENCE_S`; every update is a place where Streamlit can interrupt."""

    def __init__(self, what: str, key: Any):
        self._what, self._key = what, key
        self._place: Any = None
        self._bar: Any = None
        self._next = time.monotonic() + PATIENCE_S

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._place is not None:
            self._place.empty()

    def __call__(self, share: float) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + REFRESH_S
        share = min(max(share, 0.0), 1.0)
        text = f"{_DOING.get(self._what, 'Working')} · {share:.0%}"
        if self._bar is None:
            self._show(text, share)
        else:
            self._bar.progress(share, text)

    def _show(self, text: str, share: float) -> None:
        self._place = st.empty()
        with self._place.container(border=True):
            self._bar = st.progress(share, text)
            st.button(
                "Stop",
                key=f"stop {self._key}",
                on_click=_stop,
                args=(self._key,),
                icon=":material/stop:",
            )


def _stop(key: Any) -> None:
    st.session_state["stopped"] = key


_DOING = {
    "recommend": "Searching deployments",
    "simulate": "Simulating",
    "score": "Comparing records with predictions",
    "timeline": "Recording steps",
    "calibrate": "Fitting constants",
}
