"""Model folders without weights, for `--load-format dummy`: config.json and a tokenizer.

The config is the catalogue's (fields of the published config.json), completed by what vLLM's model
classes insist on, with the `quantization_config` of the checkpoint. Timing needs no weights;
routing does: a router without trained weights collapses onto few experts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moeplan.errors import InputError, UnknownNameError
from moeplan.models.catalogue import FOLDER, load_model
from moeplan.validate.quantization import quantization_config
from moeplan.validate.tiny_models import TINY_FAMILIES, TinySizes, tiny_config
from moeplan.validate.tokenizer import BOS_ID, EOS_ID, PAD_ID, write_tokenizer

_ARCHITECTURES = {"kimi_k2": "DeepseekV3ForCausalLM", "glm4_moe_lite": "Glm4MoeLiteForCausalLM"}
"""vLLM's class where the catalogued config does not name it."""
_PER_LAYER = ("layer_types", "hybrid_override_pattern", "layers_block_type", "mlp_layer_types")
"""Fields with one entry a layer."""
_PERIODS = ("full_attention_interval", "interleave_moe_layer_step", "moe_layer_freq")
_ROPE_DEFAULTS = {"rope_type": "yarn", "beta_fast": 32.0, "beta_slow": 1.0}


def write_model(
    name: str, folder: Path, *, checkpoint: str | None = None, layers: int | None = None
) -> Path:
    """Write a catalogued model's folder; `layers` cuts it to its first layers.

    Raises `UnknownNameError` for a model or checkpoint that the catalogue lacks, `InputError` where
    the model cannot be cut so, or its config is nested in a multi-modal one.
    """
    entry = load_model(name)
    config = catalogued_config(entry.slug)
    if "text_config" in config:
        raise InputError(
            f"{entry.slug}: its config nests a text model in a multi-modal one, whose vision part "
            "the catalogue does not hold; take the published config.json, or another model"
        )
    stored = entry.checkpoint(checkpoint) if checkpoint else entry.default_checkpoint
    full = len(entry.architecture.layers)
    config = complete(config if layers is None else cut(config, layers, entry.slug))
    quantized = quantization_config(entry.architecture, stored, layers or full)
    if quantized:
        config["quantization_config"] = quantized
    return _write(folder, config)


def write_tiny_model(family: str, folder: Path, sizes: TinySizes | None = None) -> Path:
    """Write a tiny random model's folder; `family` is one of `TINY_FAMILIES`."""
    return _write(folder, tiny_config(family, sizes))


def catalogued_config(slug: str) -> dict[str, Any]:
    """The config fields that the catalogue holds."""
    return json.loads((FOLDER / f"{slug}.json").read_text(encoding="utf-8"))["config"]


def is_tiny(name: str) -> bool:
    """Whether a name asks for a tiny random model ("tiny-qwen3_moe")."""
    return name.startswith("tiny-")


def write_named(
    name: str, folder: Path, checkpoint: str | None = None, layers: int | None = None
) -> Path:
    """Write the folder of a catalogued model, or of "tiny-FAMILY"."""
    if not is_tiny(name):
        return write_model(name, folder, checkpoint=checkpoint, layers=layers)
    family = name.removeprefix("tiny-")
    if family not in TINY_FAMILIES:
        raise UnknownNameError("tiny model", name, [f"tiny-{f}" for f in TINY_FAMILIES])
    return write_tiny_model(family, folder, TinySizes(layers=layers) if layers else None)


def cut(config: Mapping[str, Any], layers: int, slug: str) -> dict[str, Any]:
    """The same model with its first `layers` layers: whole periods where layer kinds alternate."""
    full = config["num_hidden_layers"]
    if not 1 <= layers <= full:
        raise InputError(f"layers {layers}: {slug} has {full}; use 1 to {full}")
    for name in _PERIODS:
        period = config.get(name)
        if isinstance(period, int) and period > 1 and layers % period:
            raise InputError(f"layers {layers}: {name} is {period}; use a multiple of it")
    dense = config.get("first_k_dense_replace", 0)
    if layers <= dense:
        raise InputError(f"layers {layers}: the first {dense} of {slug} are dense; use more")
    shorter = {**config, "num_hidden_layers": layers}
    for name in _PER_LAYER:
        if name in shorter and len(shorter[name]) == full:
            shorter[name] = shorter[name][:layers]
    if "num_nextn_predict_layers" in shorter:
        shorter["num_nextn_predict_layers"] = 0
    return shorter


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with what vLLM's loaders insist on and a catalogue entry may lack."""
    full = {key: value for key, value in config.items() if value is not None}
    full.setdefault("torch_dtype", "bfloat16")
    if "architectures" not in full:
        family = full["model_type"]
        if family not in _ARCHITECTURES:
            raise InputError(f"{family}: no vLLM class is known for it; add `architectures`")
        full["architectures"] = [_ARCHITECTURES[family]]
    full |= {"bos_token_id": BOS_ID, "eos_token_id": EOS_ID, "pad_token_id": PAD_ID}
    rope = full.get("rope_scaling")
    if full["model_type"] == "gpt_oss" and rope:  # read as rope_parameters from transformers 5 on
        full["rope_parameters"] = {**_ROPE_DEFAULTS, "rope_theta": full["rope_theta"], **rope}
    return full


def _write(folder: Path, config: Mapping[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    tokens = {"bos_token_id": BOS_ID, "eos_token_id": EOS_ID, "pad_token_id": PAD_ID}
    (folder / "generation_config.json").write_text(json.dumps(tokens) + "\n")
    write_tokenizer(folder, config["vocab_size"], config["max_position_embeddings"])
    return folder
