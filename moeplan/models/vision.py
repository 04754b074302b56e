"""Weights of the vision tower and projector that a multimodal checkpoint carries.

Text-only serving does not run them, but engines load them unless told not to. One function a tower,
after the modelling files of transformers 5.24; each meets a published total to the last weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from moeplan.models.fields import Fields

CHANNELS = 3
"""Colours of a pixel (RGB) in every published tower."""

REMEDY = 'not modelled; add "vision_params": N (weights of tower and projector) to config.json'


def vision_params(config: Mapping[str, Any], hidden_size: int, model: str) -> int:
    """Weights of the vision part of a config.json, 0 where it has none.

    `hidden_size` is the width of the language model that the projector leads to. A number under
    `vision_params` in the config takes precedence.

    Raises:
        ModelConfigError: the tower is of no known type, or lacks a size.
    """
    top = Fields(config, model, {})
    if top.has("vision_params"):
        return top.integer("vision_params", minimum=0)
    vision = config.get("vision_config")
    if vision is None:
        return 0
    if not isinstance(vision, Mapping):
        top.refuse("vision_config", vision, "must be an object")
    family = _family(config, vision)
    if family not in TOWERS:
        top.refuse("vision_config.model_type", family, REMEDY)
    fields = Fields(vision, f"{model}, vision_config", DEFAULTS.get(family, {}))
    return TOWERS[family](fields, hidden_size)


def _family(config: Mapping[str, Any], vision: Mapping[str, Any]) -> object:
    """The tower's type; older files leave it to the model's own type."""
    by_model = {
        "gemma3": "siglip_vision_model",
        "gemma4": "gemma4_vision",
        "qwen3_5": "qwen3_5",
        "qwen3_5_moe": "qwen3_5_moe",
        "llama4": "llama4_vision_model",
    }
    return vision.get("model_type") or by_model.get(str(config.get("model_type")))


def _transformer(d: int, inner: int, depth: int) -> int:
    """Blocks of a plain vision transformer: biased q, k, v, o and MLP, two LayerNorms."""
    attention = 4 * d * d + 4 * d
    mlp = 2 * d * inner + inner + d
    return depth * (attention + mlp + 4 * d)


def _qwen(f: Fields, hidden: int) -> int:
    d, merged = f.integer("hidden_size"), f.integer("spatial_merge_size") ** 2
    patch = CHANNELS * f.integer("temporal_patch_size") * f.integer("patch_size") ** 2
    blocks = _transformer(d, f.integer("intermediate_size"), f.integer("depth"))
    positions = f.integer("num_position_embeddings") * d
    out = f.integer("out_hidden_size")
    if out != hidden:
        f.refuse("out_hidden_size", out, f"must equal the language model's width {hidden}")
    wide = d * merged
    merger = 2 * d + wide * wide + wide + wide * out + out
    return patch * d + d + positions + blocks + merger


def _siglip(f: Fields, hidden: int) -> int:
    d, patch = f.integer("hidden_size"), f.integer("patch_size")
    positions = (f.integer("image_size") // patch) ** 2 * d
    blocks = _transformer(d, f.integer("intermediate_size"), f.integer("num_hidden_layers"))
    projector = d * hidden + d
    return CHANNELS * patch**2 * d + d + positions + blocks + 2 * d + projector


def _gemma4(f: Fields, hidden: int) -> int:
    d, head = f.integer("hidden_size"), f.integer("head_dim")
    attention = 4 * d * f.integer("num_attention_heads") * head + 2 * head
    block = attention + 3 * d * f.integer("intermediate_size") + 4 * d
    tables = CHANNELS * f.integer("patch_size") ** 2 * d
    tables += 2 * f.integer("position_embedding_size") * d
    return tables + f.integer("num_hidden_layers") * block + d * hidden


def _pixtral(f: Fields, hidden: int) -> int:
    d, merged = f.integer("hidden_size"), f.integer("spatial_merge_size") ** 2
    block = 4 * d * d + 3 * d * f.integer("intermediate_size") + 2 * d
    patch = CHANNELS * f.integer("patch_size") ** 2 * d
    projector = d + merged * d * d + d * hidden + hidden * hidden
    return patch + d + f.integer("num_hidden_layers") * block + projector


def _llama4(f: Fields, hidden: int) -> int:
    d, patch = f.integer("hidden_size"), f.integer("patch_size")
    inner = f.integer("intermediate_size")
    positions = ((f.integer("image_size") // patch) ** 2 + 1) * d + d  # and the class embedding
    blocks = _transformer(d, inner, f.integer("num_hidden_layers"))
    out = f.integer("projector_output_dim")
    adapter = inner * f.integer("projector_input_dim") + out * out
    projector = f.integer("vision_output_dim") * hidden
    return CHANNELS * patch**2 * d + positions + 4 * d + blocks + adapter + projector


TOWERS: dict[object, Callable[[Fields, int], int]] = {
    "qwen3_5": _qwen,
    "qwen3_5_moe": _qwen,
    "qwen3_5_vision": _qwen,
    "qwen3_5_moe_vision": _qwen,
    "siglip_vision_model": _siglip,
    "gemma4_vision": _gemma4,
    "pixtral": _pixtral,
    "llama4_vision_model": _llama4,
}

# Documented defaults of the config classes that published files leave out.
QWEN_DEFAULTS = {"num_position_embeddings": 2304}
DEFAULTS: dict[object, dict[str, int]] = {
    "qwen3_5": QWEN_DEFAULTS,
    "qwen3_5_moe": QWEN_DEFAULTS,
    "qwen3_5_vision": QWEN_DEFAULTS,
    "qwen3_5_moe_vision": QWEN_DEFAULTS,
    "pixtral": {"spatial_merge_size": 2},  # Mistral3Config
}
