"""What every page has: refusals in one line, its command line, links to other pages."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import streamlit as st

from moeplan.cli.boundary import DEBUG_VARIABLE
from moeplan.errors import DoesNotFitError, MoeplanError, NoFeasiblePlanError
from moeplan.ui import state
from moeplan.ui.figures import escaped
from moeplan.ui.uploads import named


@contextmanager
def refusals() -> Iterator[None]:
    """Show an error as one line that helps, in place of what would have stood in the block."""
    try:
        yield
    except (DoesNotFitError, NoFeasiblePlanError) as error:
        st.warning(escaped(_line(error)), icon=":material/block:")
    except MoeplanError as error:
        st.error(escaped(_line(error)), icon=":material/edit:")
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE) == "1":
            raise
        what = escaped(f"{type(error).__name__}: {error}".splitlines()[0])
        st.error(
            f"moeplan failed ({what}). Start it with {DEBUG_VARIABLE}=1 and report the traceback "
            "with this page's address.",
            icon=":material/bug_report:",
        )


def _line(error: Exception) -> str:
    return " ".join(named(str(error)).split())


def on_the_command_line(lines: Sequence[str]) -> None:
    """The commands that print what the page shows."""
    with st.expander("The same on the command line", icon=":material/terminal:"):
        st.code("\n".join(lines), language=None, wrap_lines=True)
        st.caption("Add `--json` for the same figures as data.")


def title(name: str, question: str) -> None:
    """Head of a page."""
    st.header(name)
    st.caption(f"{question} Inputs stand on the left, on a phone behind ».")


def sidebar(form: Callable[[state.Inputs], None], inputs: state.Inputs) -> None:
    """The inputs of a page; its link follows them."""
    with st.sidebar:
        form(inputs)
    inputs.publish()
    for note in inputs.notes:
        st.warning(escaped(note), icon=":material/edit:")


def open_in(pages: Sequence[str], words: Mapping[str, str], key: str) -> None:
    """Buttons that show a deployment on other pages."""
    with st.container(horizontal=True):
        for page in pages:
            if st.button(page, key=f"{key} to {page}", icon=":material/arrow_forward:"):
                state.hand_over(page, words)
                st.switch_page(st.session_state["pages"][page])


def metrics(figures: Mapping[str, str], intervals: Mapping[str, str] | None = None) -> None:
    """Figures side by side, as many as fit in a line; intervals in small print under them."""
    known = intervals or {}
    with st.container(horizontal=True, gap="small"):
        for name, figure in figures.items():
            st.metric(
                name,
                figure,
                known.get(name) or None,
                delta_color="off",
                delta_arrow="off",
                width=_METRIC_WIDTH,
            )


_METRIC_WIDTH = 148
