"""The planner as a Streamlit script: `streamlit run app.py`."""

from moeplan.ui.app import main

main()
