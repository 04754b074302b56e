"""`moeplan ui`: the planner in a browser."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import Annotated

import typer

from moeplan.errors import InputError

LOOPBACK = "127.0.0.1"
SETTINGS = {
    "server.address": LOOPBACK,
    "server.headless": "true",
    "server.maxUploadSize": "16",
    "browser.gatherUsageStats": "false",
    "runner.magicEnabled": "false",
    "client.toolbarMode": "minimal",
    "client.showErrorDetails": "none",
    "theme.light.primaryColor": "#0072B2",
    "theme.dark.primaryColor": "#56B4E9",
}
"""Streamlit's settings: loopback only, no telemetry, uploads of at most 16 MB."""
SCRIPT = "moeplan.ui.app"

Port = Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen on.")]
Address = Annotated[
    str,
    typer.Option("--address", help="Address to listen on; any other than this lets others in."),
]


def ui(port: Port = 8501, address: Address = LOOPBACK) -> None:
    """Open the planner in a browser.

    Prints the address to open; Ctrl-C ends it.
    """
    if find_spec("streamlit") is None:
        raise InputError("ui needs Streamlit; install it with: pip install 'moeplan[ui]'")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *streamlit_arguments(port, address)])


def streamlit_arguments(port: int, address: str) -> list[str]:
    """What Python is called with to serve the planner."""
    settings = SETTINGS | {"server.port": str(port), "server.address": address}
    found = find_spec(SCRIPT)
    script = str(found.origin) if found else SCRIPT
    flags = [f"--{name}={value}" for name, value in settings.items()]
    return ["-m", "streamlit", "run", script, *flags]
