"""Which options a command takes, and the command line that prints what a page shows."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
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
    return [parse_options(kind, values(kind, words)) for kind in TAKES[command]]


def values(kind: type[Options], words: Mapping[str, str]) -> dict[str, Any]:
    """The words of one kind as the library takes them: uploads as paths, no other path."""
    found: dict[str, Any] = {name: words[name] for name in kind.model_fields if name in words}
    if "model" in found:
        found["model"] = model_word(found["model"])
    for name in _FILES:
        if name in found and kept(found[name]) is None:
            del found[name]  # only an upload of this session names a file
        elif name in found:
            found[name] = path_of(found[name])
    return found


def command_line(command: str, words: Mapping[str, str], *extra: str) -> str:
    """The command that prints these figures, options at their defaults left out."""
    kinds = TAKES[command]
    given = [shown_word(words[name]) for kind in kinds for name in _positional(kind, words)]
    options = options_line(kinds, words)
    return " ".join(filter(None, (shlex.join(["moeplan", command, *given]), options, *extra)))


def _positional(kind: type[Options], words: Mapping[str, str]) -> list[str]:
    return [n for n, field in kind.model_fields.items() if field.json_schema_extra and n in words]


def options_line(kinds: Iterable[type[Options]], words: Mapping[str, str]) -> str:
    """The options of these kinds that are not at their defaults, and the calibration in use."""
    options: list[str] = []
    for kind in kinds:
        for name, field in kind.model_fields.items():
            word = words.get(name)
            if word and not field.json_schema_extra and not _is_default(field.default, word):
                options += _option(name, field.annotation, word)
    if calibration():
        options += ["--calibration", shown_word(calibration())]
    return shlex.join(options)


def _is_default(default: Any, word: str) -> bool:
    return word.casefold() == str(default).casefold()


def _option(name: str, annotation: Any, word: str) -> list[str]:
    flag = name.replace("_", "-")
    if bool in (annotation, *get_args(annotation)):
        return [f"--{flag}" if word.casefold() == "true" else f"--no-{flag}"]
    return [f"--{flag}", shown_word(word)]


def shown_word(word: str) -> str:
    """A word as the user would type it: an upload under the user's own file name."""
    file = kept(word)
    return file.name if file else word
