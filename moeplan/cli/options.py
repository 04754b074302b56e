"""Command-line options, each declared once: as a pydantic field, or as an alias below."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args

import typer
from pydantic.fields import FieldInfo

from moeplan.options import Options, option_words, parse_options

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the same data as JSON.")]

CalibrationFile = Annotated[
    Path | None,
    typer.Option("--calibration", help="File of `moeplan calibrate` that overrides constants."),
]


def with_options(function: Callable[..., None]) -> Callable[..., None]:
    """Spread each `Options` parameter of a command into one option a field.

    The command line then shows the fields; the function gets the checked object.
    """
    signature = inspect.signature(function, eval_str=True)
    groups = {name: p.annotation for name, p in signature.parameters.items() if _is_options(p)}

    @wraps(function)
    def command(**values: Any) -> None:
        for name, kind in groups.items():
            fields = {field: values.pop(field) for field in kind.model_fields}
            values[name] = parse_options(kind, fields)
        function(**values)

    parameters = list(_parameters(signature))
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    del command.__wrapped__  # type: ignore[attr-defined]
    return command


def _is_options(parameter: inspect.Parameter) -> bool:
    kind = parameter.annotation
    return inspect.isclass(kind) and issubclass(kind, Options)


def _parameters(signature: inspect.Signature) -> Iterator[inspect.Parameter]:
    for parameter in signature.parameters.values():
        if not _is_options(parameter):
            yield parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            continue
        for name, field in parameter.annotation.model_fields.items():
            yield _parameter(name, field)


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    """One field as a typer parameter: an argument if it is positional, else `--long-name`.

    Values stay words: the field reads and checks them, so that every refusal quotes the value.
    """
    flag = bool in (field.annotation, *get_args(field.annotation))
    help_text, metavar = field.description, None if flag else _metavar(field.annotation)
    if field.json_schema_extra:
        info: Any = typer.Argument(help=help_text, metavar=name.upper())
    else:
        info = typer.Option(_words(name, field), help=help_text, metavar=metavar)
    default = inspect.Parameter.empty if field.is_required() else field.default
    if default not in (None, inspect.Parameter.empty) and not flag:
        default = str(default)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[_parsed_type(field.annotation, flag=flag), info],
    )


def _metavar(annotation: Any) -> str:
    words = option_words(annotation)
    if words:
        return "|".join(words)
    kinds = (annotation, *get_args(annotation))
    names = {int: "INTEGER", float: "NUMBER", Path: "FILE"}
    return next((name for kind, name in names.items() if kind in kinds), "TEXT")


def _words(name: str, field: FieldInfo) -> str:
    """`--name`, with `--no-name` where a flag is on unless told otherwise, or three-valued."""
    words = name.replace("_", "-")
    switched_off = bool in get_args(field.annotation) or field.default is True
    return f"--{words}/--no-{words}" if switched_off else f"--{words}"


def _parsed_type(annotation: Any, *, flag: bool) -> Any:
    if flag:
        return annotation
    return str | None if NoneType in get_args(annotation) else str
