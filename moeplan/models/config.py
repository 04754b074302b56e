"""From a Hugging Face config.json to an `Architecture`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moeplan.errors import ModelConfigError
from moeplan.models.architecture import Architecture
from moeplan.models.families import FAMILIES, Family, family_of, model_type_of
from moeplan.models.fields import Fields
from moeplan.models.vision import vision_params

CONFIG_NAME = "config.json"
LARGEST_FILE_BYTES = 10 * 1024**2
"""A published config.json has a few kilobytes; the exclusion lists of some reach hundreds."""


def architecture_from_config(config: Mapping[str, Any], slug: str) -> Architecture:
    """Architecture that a config.json describes; `slug` names it in errors and reports.

    Raises:
        ModelConfigError: unknown model type; a structural field that is missing, of the wrong type
            or out of range; or a variant whose weights are not modelled.
    """
    return _read(config, slug)[0]


def structural_fields(config: Mapping[str, Any], slug: str) -> frozenset[str]:
    """Names of the fields of a config.json that its architecture was built from."""
    return _read(config, slug)[1]


def load_config(path: str | Path) -> dict[str, Any]:
    """Entries of a config.json, given the file or the model folder that holds it.

    Raises:
        ModelConfigError: no such file, no JSON (with line and column), or no JSON object.
    """
    file = Path(path)
    if file.is_dir():
        file = file / CONFIG_NAME
    config = read_json(file)
    if not isinstance(config, dict):
        kind = type(config).__name__
        raise ModelConfigError(f"{file}: holds a {kind}, but a config.json is a JSON object")
    return config


def read_json(file: Path) -> Any:
    """Contents of a JSON file; NaN and Infinity, which some published files hold, are read.

    Raises:
        ModelConfigError: the file cannot be read or is no JSON.
    """
    try:
        if file.stat().st_size > LARGEST_FILE_BYTES:
            raise ModelConfigError(f"{file}: larger than any config.json; name the right file")
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ModelConfigError(f"{file}: not valid JSON at {where}: {error.msg}") from error
    except OSError as error:
        reason = error.strerror or str(error)
        remedy = "name a config.json or a model folder"
        raise ModelConfigError(f"{file}: {reason}; {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise ModelConfigError(f"{file}: not a readable JSON text: {error}") from error


def _read(config: Mapping[str, Any], slug: str) -> tuple[Architecture, frozenset[str]]:
    model_type, family, values = _text_model(config, slug)
    f = Fields(values, slug, family.defaults)
    hidden = f.integer("hidden_size")
    structure = family.read(f)
    architecture = Architecture(
        slug=slug,
        model_type=model_type,
        hidden_size=hidden,
        vocab_size=f.integer("vocab_size"),
        tie_word_embeddings=f.flag("tie_word_embeddings"),
        max_position_embeddings=f.integer("max_position_embeddings"),
        layers=structure.layers,
        norms_per_layer=structure.norms_per_layer,
        mtp=structure.mtp,
        vision_params=vision_params(config, hidden, slug),
    )
    return architecture, frozenset(f.read)


def _text_model(config: Mapping[str, Any], slug: str) -> tuple[str, Family, dict[str, Any]]:
    """Model type, reader and fields of the language model, which multimodal files nest."""
    values = config.get("text_config")
    values = config if values is None else values
    if not isinstance(values, Mapping):
        raise ModelConfigError(f"{slug}: text_config = {values!r}: must be an object")
    model_type = _model_type(values, slug) or _model_type(config, slug)
    family = family_of(model_type) if model_type else None
    if family is None:
        raise ModelConfigError(
            f"{slug}: {_named(config)}: an architecture that moeplan does not model; "
            f"known model types: {', '.join(FAMILIES)}"
        )
    merged = dict(values)
    if "tie_word_embeddings" in config:  # the outer file decides where both state it
        merged["tie_word_embeddings"] = config["tie_word_embeddings"]
    return model_type.removesuffix("_text"), family, merged


def _model_type(values: Mapping[str, Any], slug: str) -> str | None:
    stated = values.get("model_type")
    if stated is not None:
        if not isinstance(stated, str):
            raise ModelConfigError(f"{slug}: model_type = {stated!r}: must be a string")
        return stated
    names = values.get("architectures")
    if isinstance(names, list) and names and isinstance(names[0], str):
        return model_type_of(names[0])
    return None


def _named(config: Mapping[str, Any]) -> str:
    stated = {name: config.get(name) for name in ("model_type", "architectures")}
    return ", ".join(f"{name} = {value!r}" for name, value in stated.items())
