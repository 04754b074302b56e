"""Shared by the rules that turn a record into a deployment and a workload."""

from __future__ import annotations

from moeplan.errors import InputError


class NotCovered(InputError):  # noqa: N818 - an outcome of scoring, not a fault
    """A record that cannot be predicted; `reason` is what the score counts it under."""

    def __init__(self, reason: str):
        self.reason = reason
        super().__init__(reason)


class Rules(list[str]):
    """The rules that a prediction used, in the order of use."""

    def use(self, text: str | None) -> None:
        """Note a rule once; None is no rule."""
        if text and text not in self:
            self.append(text)
