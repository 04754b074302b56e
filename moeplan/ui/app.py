"""The planner: a Streamlit script of six pages."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from moeplan.ui import compare, evidence, load_curve, recommend, timeline, why

ICON = Path(__file__).with_name("icon.svg")
"""A file of ours: Streamlit would fetch a named icon from elsewhere."""
PAGES = (
    ("Recommend", recommend.page, "recommend", ":material/recommend:"),
    ("Load curve", load_curve.page, "load-curve", ":material/show_chart:"),
    ("Why", why.page, "why", ":material/troubleshoot:"),
    ("Compare", compare.page, "compare", ":material/compare_arrows:"),
    ("Evidence", evidence.page, "evidence", ":material/fact_check:"),
    ("Timeline", timeline.page, "timeline", ":material/timeline:"),
)
"""Title, function, address and icon; the first is the start page."""


def main() -> None:
    """Run the page that the address names."""
    st.set_page_config(page_title="moeplan", page_icon=str(ICON), layout="wide")
    pages = {
        name: st.Page(function, title=name, url_path=path, icon=icon, default=name == "Recommend")
        for name, function, path, icon in PAGES
    }
    st.session_state["pages"] = pages
    st.navigation(list(pages.values()), position="top").run()


if __name__ == "__main__":
    main()
