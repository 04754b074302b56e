"""Where errors end: one line on stderr and an exit code, never a traceback.

Exit codes: 0 done, 1 our own fault, 2 wrong input, 3 nothing feasible, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any

import typer
from typer.core import TyperGroup

from moeplan.errors import MoeplanError

DEBUG_VARIABLE = "MOEPLAN_DEBUG"
"""Set to 1, it prints the traceback of an unexpected error."""


class ErrorBoundary(TyperGroup):
    """A command group that turns every exception of a command into a line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; raise `typer.Exit` with the code that fits what went wrong."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except MoeplanError as error:
            raise _stop(str(error), error.exit_code) from None
        except Exception as error:
            raise _usage_or_fault(error) from None


def _usage_or_fault(error: Exception) -> Exception:
    if type(error).__name__ == "NoArgsIsHelpError":  # shows the help of a bare group
        return error
    if hasattr(error, "format_message"):  # a usage error, of click or of typer's own copy of it
        path = error.ctx.command_path if getattr(error, "ctx", None) else "moeplan"
        return _stop(f"{error.format_message()} (`{path} --help` shows the usage)", 2)
    if os.environ.get(DEBUG_VARIABLE) == "1":
        traceback.print_exception(error)
    what = f"{type(error).__name__}: {error}".splitlines()[0]
    return _stop(
        f"moeplan failed ({what}); run again with {DEBUG_VARIABLE}=1 and report the traceback with "
        "the command",
        1,
    )


def _stop(message: str, code: int) -> typer.Exit:
    line = " ".join(message.split())
    print(f"error: {line}", file=sys.stderr)
    return typer.Exit(code)
