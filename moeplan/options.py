"""Options: pydantic fields that carry their own range, default and help text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from moeplan.errors import InputError, UnknownNameError


class Options(BaseModel):
    """What a user says about one subject. Unknown names are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


OptionsType = TypeVar("OptionsType", bound=Options)


def parse_options(kind: type[OptionsType], values: Mapping[str, Any]) -> OptionsType:
    """Check the values of options; raise `InputError` naming the first bad one and its rule."""
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise _explained(kind, error.errors(include_url=False)) from None


def parse_option(kind: type[Options], name: str, value: Any) -> Any:
    """Check one option alone; raise `InputError` naming its value and its rule."""
    field = kind.model_fields[name]
    try:
        return TypeAdapter(Annotated[field.annotation, field]).validate_python(value)
    except ValidationError as error:
        faults = [fault | {"loc": (name,)} for fault in error.errors(include_url=False)]
        raise _explained(kind, faults) from None


def _explained(kind: type[Options], faults: Sequence[Any]) -> InputError:
    fault = faults[0]
    name, value, rule = str(fault["loc"][0]), fault["input"], fault["type"]
    if rule == "extra_forbidden":
        return UnknownNameError("option", name, kind.model_fields)
    if rule == "literal_error":
        words = option_words(kind.model_fields[name].annotation)
        return InputError(f"{name} is {_shown(value)}; it must be one of {', '.join(words)}")
    if rule == "missing":
        return InputError(f"{name} is missing; give it a value")
    return InputError(f"{name} is {_shown(value)}; {_rule_text(fault)}")


def _shown(value: object) -> str:
    """A given value as one word, quoted where it is none."""
    text = str(value)
    return text if text and not any(c.isspace() for c in text) else repr(value)


def option_words(annotation: Any) -> list[str]:
    """Words that an option takes: those of its `Literal`, also inside an `Optional`; else none."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [word for part in get_args(annotation) for word in option_words(part)]


_RULES = {
    "greater_than_equal": "at least {ge:,}",
    "less_than_equal": "at most {le:,}",
    "greater_than": "above {gt:g}",
    "less_than": "below {lt:g}",
    "finite_number": "a finite number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a whole number of sensible size",
    "float_parsing": "a number",
}


def _rule_text(fault: Any) -> str:
    rule = _RULES.get(fault["type"])
    if rule:
        return "it must be " + rule.format(**fault.get("ctx", {}))
    message = fault["msg"].removeprefix("Value error, ")
    return message[0].lower() + message[1:]
