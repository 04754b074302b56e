"""Which options a command takes, and the command line that prints what a page shows."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any, get_args

from moeplan.cli.explain import StepOptions
from moeplan.cli.recommend import PlanOptions
from moeplan.cli.traffic import TrafficOptions
from moeplan.options import Options, parse_options
from moeplan.scenario import EngineOptions, MachineOptions, Scenario
from moeplan.ui.resources import calibration, model_word
from moeplan.ui.uploads import kept, path_of

TAKES: dict[str, tuple[type[Options], ...]] = {
    "recommend": (MachineOptions, TrafficOptions, PlanOptions, EngineOptions),
    "simulate": (Scenario, TrafficOptions),
    "timeline": (Scenario, TrafficOptions),
    "explain": (Scenario, StepOptions),
    "fit": (Scenario,),
}
"""Options of each command, in the order of its parameters."""
_FILES = ("trace",)


def parsed(command: str, words: Mapping[str, str]) -> list[Any]:
    """Checked options of a command, one object a kind. Raises `InputError`."""
    return [parse_options(kind, _values(kind, words)) for kind in TAKES[command]]


def _values(kind: type[Options], words: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {name: words[name] for name in kind.model_fields if name in words}
    if "model" in values:
        values["model"] = model_word(values["model"])
    for name in _FILES:
        if name in values and kept(values[name]) is None:
            del values[name]  # only an upload of this session names a file
        elif name in values:
            values[name] = path_of(values[name])
    return values


def command_line(command: str, words: Mapping[str, str], *extra: str) -> str:
    """The command that prints these figures, options at their defaults left out."""
    parts = ["moeplan", command]
    options: list[str] = []
    for kind in TAKES[command]:
        for name, field in kind.model_fields.items():
            word = words.get(name)
            if word is None or _is_default(field.default, word):
                continue
            if field.json_schema_extra:
                parts.append(_shown(word))
            else:
                options += _option(name, field.annotation, word)
    if calibration():
        options += ["--calibration", _shown(calibration())]
    return shlex.join([*parts, *options, *extra])


def _is_default(default: Any, word: str) -> bool:
    return word.casefold() == str(default).casefold()


def _option(name: str, annotation: Any, word: str) -> list[str]:
    flag = name.replace("_", "-")
    if bool in (annotation, *get_args(annotation)):
        return [f"--{flag}" if word.casefold() == "true" else f"--no-{flag}"]
    return [f"--{flag}", _shown(word)]


def _shown(word: str) -> str:
    """A word as the user would type it: an upload under the user's own file name."""
    file = kept(word)
    return file.name if file else word
