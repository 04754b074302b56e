"""Numbers of the step-time formulas that hold on every device; what a device or kernel family
changes is hardware data. `moeplan hardware --constants` lists them with their sources."""

REFERENCE_WIDTH = 4096
"""Matrix width from which on a GEMM reaches its full rate."""
WINDOW_RATE = 0.5
"""Share of the prefill attention rate that windows leave: their masks fill tiles partly."""
LEAST_PADDING = 4
"""Rows that pad each touched expert's batch at least."""
PADDING_SHARE = 0.25
"""Rows of padding a row of an expert's batch, beyond the least."""
DRAFT_NOVELTY = 0.73
"""Experts that a further token of one sequence adds in a step, over those of a strange token."""
