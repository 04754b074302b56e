"""Commands that are imported when they are used, so that `--help` need not load them all."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import typer

from moeplan.cli.boundary import ErrorBoundary
from moeplan.errors import UnknownNameError

COMMANDS = {
    "recommend": "Find the best deployment for a workload.",
    "simulate": "Simulate serving: latencies and throughput.",
    "compare": "Compare models and checkpoints on one deployment.",
    "explain": "Take one engine step apart.",
    "fit": "Show the memory map and what fits.",
    "models": "List known models, or show one in full.",
    "hardware": "List known hardware, or show one in full.",
    "score": "Compare predictions with measured runs.",
    "records": "Turn benchmark results into run records.",
    "ui": "Open the planner in a browser.",
}
"""One line about each command; `moeplan.cli.NAME` holds the function (or group) of that name."""
GUESTS = {
    "validate": ("moeplan.validate.cli", "Predict, run real vLLM, compare."),
    "calibrate": (
        "moeplan.validate.cli",
        "Fit the parameters that measured steps identify; held-out runs only judge.",
    ),
}
"""Command groups of layers above this one, where they are installed: module and one line."""


class LazyGroup(ErrorBoundary):
    """The root group: knows its commands by name and imports one on use."""

    def list_commands(self, _ctx: Any) -> list[str]:
        """Names in the order of the help."""
        return list(listing())

    def get_command(self, _ctx: Any, cmd_name: str) -> Any:
        """Import a command; raises `UnknownNameError` with the nearest names."""
        if cmd_name not in listing():
            raise UnknownNameError("command", cmd_name, listing(), "moeplan --help")
        home = GUESTS[cmd_name][0] if cmd_name in GUESTS else f"moeplan.cli.{cmd_name}"
        found = getattr(import_module(home), cmd_name)
        if not isinstance(found, typer.Typer):
            function, found = found, typer.Typer(rich_markup_mode=None, add_completion=False)
            found.command(cmd_name)(function)
        return typer.main.get_command(found)

    def format_commands(self, _ctx: Any, formatter: Any) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(listing().items()))


def listing() -> dict[str, str]:
    """Every command that is installed, with its one line."""
    guests = {name: line for name, (home, line) in GUESTS.items() if find_spec(home)}
    return COMMANDS | guests
