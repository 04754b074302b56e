"""Write model folders that vLLM serves with `--load-format dummy`: no weights, no network.

A folder holds config.json (with the checkpoint's `quantization_config`) and a tokenizer whose every
id decodes to a word of its own, so that random prompts keep their length through decode and encode.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ARCHITECTURE_OF_TYPE = {"glm4_moe_lite": "Glm4MoeLiteForCausalLM"}
"""vLLM class of configs whose source did not name it."""


def quantization_config(storage: str, num_layers: int) -> dict[str, Any] | None:
    """The `quantization_config` of a published checkpoint.

    Args:
        storage: `bf16`, `mxfp4` (openai/gpt-oss-*) or `fp8_block` (Qwen/Qwen3-30B-A3B-FP8).
        num_layers: decoder layers; the FP8 checkpoint lists each router by name.

    Raises:
        ValueError: unknown storage.
    """
    if storage == "bf16":
        return None
    if storage == "mxfp4":
        kept = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens"]
        return {"quant_method": "mxfp4", "modules_to_not_convert": [*kept, "lm_head"]}
    if storage == "fp8_block":
        gates = [f"model.layers.{i}.mlp.gate" for i in range(num_layers)]
        return {
            "quant_method": "fp8",
            "fmt": "e4m3",
            "activation_scheme": "dynamic",
            "weight_block_size": [128, 128],
            "modules_to_not_convert": ["lm_head", *gates],
        }
    raise ValueError(f"storage={storage!r} is unknown: use bf16, mxfp4 or fp8_block")


def write_tokenizer(folder: Path, vocab_size: int) -> None:
    """One word a token, split at spaces: ids → text → ids is exact for every id.

    No special token may begin a word: special tokens are cut out of the text first.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers

    special = ("<pad>", "<s>", "</s>", "<unk>")
    vocab = {token: i for i, token in enumerate(special)}
    vocab |= {f"w{i}": i for i in range(len(special), vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(vocab=vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    roles = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), special, strict=True))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 1 << 20, **roles}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def cut_layers(config: dict[str, Any], num_layers: int) -> dict[str, Any]:
    """The same model with its first `num_layers` layers, at full width."""
    cut = config | {"num_hidden_layers": num_layers}
    if "layer_types" in cut:
        cut["layer_types"] = cut["layer_types"][:num_layers]
    if "hybrid_override_pattern" in cut:
        cut["hybrid_override_pattern"] = cut["hybrid_override_pattern"][:num_layers]
    return cut


def write_model(
    folder: Path, config: dict[str, Any], storage: str, num_layers: int | None = None
) -> Path:
    """Write config.json, generation_config.json and the tokenizer; returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    if num_layers is not None:
        config = cut_layers(config, num_layers)
    config = {k: v for k, v in config.items() if v is not None}
    config |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16"}
    config.setdefault("architectures", [ARCHITECTURE_OF_TYPE.get(config["model_type"], "")])
    quantization = quantization_config(storage, config["num_hidden_layers"])
    if quantization:
        config["quantization_config"] = quantization
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    (folder / "generation_config.json").write_text('{"bos_token_id": 1, "eos_token_id": 2}')
    write_tokenizer(folder, config["vocab_size"])
    return folder
