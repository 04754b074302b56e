"""The validator: write a prediction down, run real vLLM, compare, recalibrate.

`launch` starts and always stops an engine, `engine_log` reads what it says of itself, `load` drives
vLLM's own benchmark, `probe` reads the steps that `inside/moeplan_stepprobe.py` records in the
engine, `store` keeps runs, `plan`, `run`, `compare` and `report` are the stages of a validation.
Modules under `inside/` run in vLLM's interpreter; nothing else here imports vLLM.
"""
