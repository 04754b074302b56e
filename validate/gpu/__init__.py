"""Readers of the step study of 2026-11-27 (`validate/evidence/2026-11-27-h100`).

`summarise` turned its raw records into evidence, `tables` prints it, `compare_steps` prices its
steps with today's constants, `fit_check` fits them. The scripts that measured it are those of
commit 6891f37; `validate run` does their work now.
"""
