"""Everything that moeplan refuses, and why.

    MoeplanError
    ├── InputError            the user's input is wrong; exit code 2
    │   ├── UnknownNameError  no such model, device, fabric, format, ...; carries the nearest names
    │   ├── ModelConfigError  a config.json that cannot be read as an architecture
    │   ├── DeploymentError   a combination that no engine can run (rule and remedy)
    │   └── RecordError       a malformed record, trace or plan (file, line, field)
    ├── DoesNotFitError       the weights or one sequence do not fit; exit code 3
    ├── NoFeasiblePlanError   nothing meets the request; exit code 3, carries the nearest
    └── EngineFailedError     a launched engine failed for a reason outside moeplan; exit code 3

Catch MoeplanError at the edge (command line, app, validator); its text is one line that says what
was given, what is allowed and what to type next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MoeplanError(Exception):
    """Base of all errors that moeplan raises on purpose."""

    exit_code = 1


class InputError(MoeplanError):
    """The user's input is wrong: the text names the field, the value and the remedy."""

    exit_code = 2


class UnknownNameError(InputError):
    """A name that no catalogue holds.

    `kind` says what was looked up ("model", "device"), `name` what was given and `nearest` up to
    three known names that resemble it.
    """

    def __init__(
        self,
        kind: str,
        name: str,
        known: Iterable[str],
        listing: str | None = None,
        remedy: str | None = None,
    ):
        known = list(known)
        self.kind = kind
        self.name = name
        by_fold = {k.casefold(): k for k in known}
        close = difflib.get_close_matches(name.casefold(), by_fold, n=3, cutoff=0.5)
        self.nearest = [by_fold[c] for c in close]
        hint = f"; nearest: {', '.join(self.nearest)}" if self.nearest else ""
        more = f" ({listing} lists them)" if listing else ""
        what_next = f"; {remedy}" if remedy else ""
        super().__init__(f"unknown {kind} {name!r}{hint}{more}{what_next}")


class ModelConfigError(InputError):
    """A config.json that lacks a structural field, or holds one that moeplan does not know."""


class DeploymentError(InputError):
    """A deployment that no engine can run: the text states the rule and the remedy."""


class RecordError(InputError):
    """A malformed record, trace or plan: the text names the file, line and field."""


class DoesNotFitError(MoeplanError):
    """The weights, or a single sequence beside them, exceed the memory of the GPUs.

    `missing_gib` is what one GPU lacks, in GiB (2^30 bytes).
    """

    exit_code = 3

    def __init__(self, message: str, missing_gib: float):
        self.missing_gib = missing_gib
        super().__init__(message)


class NoFeasiblePlanError(MoeplanError):
    """No deployment meets the request; the text names the nearest that exists and what binds."""

    exit_code = 3


class EngineFailedError(MoeplanError):
    """A launched engine or benchmark failed for a reason outside moeplan."""

    exit_code = 3
