"""Typical workloads to start from. Lengths are round figures to be replaced by one's own."""

from __future__ import annotations

from collections.abc import Mapping

from moeplan.cli.traffic import TrafficOptions

PRESETS: dict[str, dict[str, str | None]] = {
    "Chat": {"input": "1024", "output": "256", "arrivals": None, "routing": "chat"},
    "RAG": {"input": "8192", "output": "512", "arrivals": None, "routing": None},
    "Coding agent": {
        "input": "32768",
        "output": "1024",
        "arrivals": None,
        "shared_prefix": "24576",
        "routing": "domain",
    },
    "Summarise": {"input": "16384", "output": "512", "arrivals": None, "routing": None},
    "Offline batch": {
        "input": "2048",
        "output": "512",
        "arrivals": "offline",
        "num_prompts": "256",
        "routing": None,
    },
}
"""Options by name of the workload; those that no preset names stay as they are."""
for _words in PRESETS.values():
    _words.setdefault("shared_prefix", None)
    _words.setdefault("num_prompts", None)


def matching(words: Mapping[str, str]) -> str | None:
    """The preset whose words these are, None where the user has own ones."""
    for name, preset in PRESETS.items():
        if all(_filled(option, words.get(option)) == _filled(option, preset[option])
               for option in preset):  # fmt: skip
            return name
    return None


def _filled(option: str, word: str | None) -> str:
    return word or str(TrafficOptions.model_fields[option].default)
