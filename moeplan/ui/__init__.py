"""The what-if planner: Streamlit pages that show what the command line prints.

Every figure is read from the object that `--json` prints; pages hold widgets, plots and words.
"""
