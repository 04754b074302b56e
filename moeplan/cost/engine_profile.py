"""Which profile serves an engine version, and which rules that version has."""

from __future__ import annotations

import re
from types import MappingProxyType

from moeplan.deployment import EngineSettings
from moeplan.errors import DeploymentError
from moeplan.hardware_specs.schema import Device, EngineProfile, Hardware

IN_FLIGHT_BATCHES = "in-flight batches in windowed KV groups"
VLLM_SINCE: MappingProxyType[str, tuple[int, int]] = MappingProxyType(
    {
        IN_FLIGHT_BATCHES: (0, 26),
        "graphs inside the memory budget": (0, 21),
        "blocks beyond the budget": (0, 27),
        "graph of max_num_seqs": (0, 29),
        "asynchronous pipeline": (0, 29),
        "experts skip padding": (0, 33),
        "n-grams drafted beside the step": (0, 33),
        "shared experts beside the routed ones": (0, 12),
        "kernels tuned while compiling": (0, 12),
        "second runner for some architectures": (0, 24),
        "swizzled scales replace the loaded ones": (0, 25),
    }
)
"""First vLLM release with a rule, found by reading the releases 0.20 to 0.33 side by side.

The asynchronous pipeline is model runner V2 as the default for all architectures. Shared experts
got their stream in pull requests 26440 and 28406 (November 2025). Inductor's standalone
compilation, which tunes kernels as it compiles, came back with PyTorch 2.9 (pull request 27460,
October 2025). Loaded MXFP4 scales go with pull request 46549 (24 June 2026): 0.24 keeps them, 0.32
does not. The second runner serves a list of architectures in 0.24 (`config/vllm.py`); when that
list began is not known.
"""

SECOND_RUNNER_MODELS = frozenset(
    {"llama", "mistral", "qwen3", "qwen2_moe", "deepseek_v2", "granitemoe"}
)
"""Model types of `DEFAULT_V2_MODEL_RUNNER_ARCHITECTURES` in vLLM 0.24 (`config/vllm.py`)."""


def vllm_has(settings: EngineSettings, rule: str) -> bool:
    """Whether the engine is a vLLM that has a rule of `VLLM_SINCE`."""
    return settings.engine == "vllm" and version_key(settings.version) >= VLLM_SINCE[rule]


def second_runner(settings: EngineSettings, model_type: str) -> bool:
    """Whether vLLM runs a model with its second model runner by default."""
    if vllm_has(settings, "asynchronous pipeline"):
        return True
    listed = vllm_has(settings, "second runner for some architectures")
    return listed and model_type in SECOND_RUNNER_MODELS


def version_key(version: str) -> tuple[int, ...]:
    """Leading numbers of a version: "0.19.0 (NGC 26.04)" → (0, 19, 0); refuses text without any."""
    found = re.match(r"v?(\d+(?:\.\d+)*)", version.strip())
    if not found:
        raise DeploymentError(f"engine version {version!r} has no number; write it like 0.33.0")
    return tuple(int(part) for part in found[1].split("."))


def capability(device: Device) -> tuple[int, int]:
    """CUDA compute capability, major and minor."""
    major, minor = device.compute_capability.removeprefix("sm_").split(".")
    return int(major), int(minor)


def find_profile(settings: EngineSettings, hardware: Hardware) -> tuple[EngineProfile, str]:
    """Profile of an engine version and why; the nearest in version where none covers it."""
    known = [p for p in hardware.engines if p.engine == settings.engine]
    if not known:
        raise DeploymentError(
            f"no profile of engine {settings.engine!r}; known: "
            f"{', '.join(sorted({p.engine for p in hardware.engines}))}"
        )
    version = version_key(settings.version)
    for profile in known:
        if version_key(profile.min_version) <= version < version_key(profile.max_version):
            return profile, f"profile of {profile.engine} {profile.min_version}"
    older = [p for p in known if version_key(p.max_version) <= version]
    profile = (
        max(older, key=lambda p: version_key(p.max_version))
        if older
        else min(known, key=lambda p: version_key(p.min_version))
    )
    why = f"no profile covers {settings.engine} {settings.version}: that of {profile.min_version}"
    return profile, why
