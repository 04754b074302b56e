"""Which reader understands which model type, and what published files may leave out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from moeplan.models import family_gqa, family_hybrid, family_latent, family_windowed
from moeplan.models.fields import Fields
from moeplan.models.structure import Structure


@dataclass(frozen=True, slots=True)
class Family:
    """Reader of one model type.

    `defaults` are values of the configuration class in transformers 5.24 for fields that published
    config.json files of this type really leave out.
    """

    read: Callable[[Fields], Structure]
    architectures: tuple[str, ...]
    defaults: dict[str, Any] = field(default_factory=dict)


# Llama 2 files leave both biases out (LlamaConfig).
LLAMA_DEFAULTS = {"attention_bias": False, "mlp_bias": False}
# Gemma3TextConfig; gemma-3-27b-it leaves out the first five, gemma-3-4b-it the rest too.
GEMMA3_DEFAULTS = {
    "tie_word_embeddings": True,
    "vocab_size": 262_208,
    "max_position_embeddings": 131_072,
    "sliding_window_pattern": 6,
    "attention_bias": False,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
}
# Llama4TextConfig; both instruct models leave these out.
LLAMA4_DEFAULTS = {
    "tie_word_embeddings": False,
    "no_rope_layer_interval": 4,
    "attention_bias": False,
}
# MiniMaxM2Attention and MiniMaxM2SparseMoeBlock know no other form.
MINIMAX_DEFAULTS = {
    "shared_intermediate_size": 0,
    "qk_norm_type": "per_layer",
    "use_qk_norm": True,
}
# Qwen3NextAttention always gates. Its config names no dtype of the recurrent state: vLLM then keeps
# it in the model's own (`mamba_utils.py` `gated_delta_net_state_dtype`; block of 544 tokens in the
# log of vLLM 0.24 on H200, 2026-11-27).
QWEN3_NEXT_DEFAULTS = {
    "attention_bias": False,
    "attn_output_gate": True,
    "mtp_use_dedicated_embeddings": False,
    "mamba_ssm_dtype": "bfloat16",
}
# Qwen3_5MoeTextConfig.
QWEN3_5_DEFAULTS = {
    "attention_bias": False,
    "attn_output_gate": True,
    "mtp_use_dedicated_embeddings": False,
    "mlp_only_layers": [],
}
# Mistral4Config, Glm4MoeLiteConfig.
LATENT_DEFAULTS = {"attention_bias": False}
# NemotronHConfig.
NEMOTRON_DEFAULTS = {"use_bias": False, "mlp_bias": False, "mamba_proj_bias": False}
# Gemma4TextConfig.
GEMMA4_DEFAULTS = {
    "tie_word_embeddings": True,
    "num_kv_shared_layers": 0,
    "attention_bias": False,
    "enable_moe_block": False,
}

_QWEN35 = ("Qwen3_5ForConditionalGeneration", "Qwen3_5ForCausalLM")
_QWEN35_MOE = ("Qwen3_5MoeForConditionalGeneration", "Qwen3_5MoeForCausalLM")
_LLAMA4 = ("Llama4ForConditionalGeneration", "Llama4ForCausalLM")
_GEMMA3 = ("Gemma3ForConditionalGeneration", "Gemma3ForCausalLM")
_GEMMA4 = ("Gemma4ForConditionalGeneration", "Gemma4ForCausalLM")

FAMILIES: dict[str, Family] = {
    "llama": Family(family_gqa.llama, ("LlamaForCausalLM",), LLAMA_DEFAULTS),
    "mistral": Family(family_gqa.mistral, ("MistralForCausalLM",)),
    "mixtral": Family(family_gqa.mixtral, ("MixtralForCausalLM",)),
    "qwen3": Family(family_gqa.qwen3, ("Qwen3ForCausalLM",)),
    "qwen3_moe": Family(family_gqa.qwen3_moe, ("Qwen3MoeForCausalLM",)),
    "glm4_moe": Family(family_gqa.glm4_moe, ("Glm4MoeForCausalLM",)),
    "minimax_m2": Family(family_gqa.minimax_m2, ("MiniMaxM2ForCausalLM",), MINIMAX_DEFAULTS),
    "gpt_oss": Family(family_gqa.gpt_oss, ("GptOssForCausalLM",)),
    "deepseek_v2": Family(family_latent.deepseek, ("DeepseekV2ForCausalLM",)),
    "deepseek_v3": Family(family_latent.deepseek, ("DeepseekV3ForCausalLM",)),
    "kimi_k2": Family(family_latent.deepseek, ("KimiK2ForCausalLM",)),
    "glm4_moe_lite": Family(family_latent.deepseek, ("Glm4MoeLiteForCausalLM",), LATENT_DEFAULTS),
    "deepseek_v32": Family(family_latent.deepseek_v32, ("DeepseekV32ForCausalLM",)),
    "glm_moe_dsa": Family(family_latent.glm_moe_dsa, ("GlmMoeDsaForCausalLM",)),
    "mistral4": Family(family_latent.mistral4, ("Mistral4ForCausalLM",), LATENT_DEFAULTS),
    "nemotron_h": Family(family_hybrid.nemotron_h, ("NemotronHForCausalLM",), NEMOTRON_DEFAULTS),
    "qwen3_next": Family(family_hybrid.qwen3_next, ("Qwen3NextForCausalLM",), QWEN3_NEXT_DEFAULTS),
    "qwen3_5": Family(family_hybrid.qwen3_5, _QWEN35, QWEN3_5_DEFAULTS),
    "qwen3_5_moe": Family(family_hybrid.qwen3_5_moe, _QWEN35_MOE, QWEN3_5_DEFAULTS),
    "gemma3": Family(family_windowed.gemma3, _GEMMA3, GEMMA3_DEFAULTS),
    "gemma4": Family(family_windowed.gemma4, _GEMMA4, GEMMA4_DEFAULTS),
    "llama4": Family(family_windowed.llama4, _LLAMA4, LLAMA4_DEFAULTS),
}
"""Readers by model type; nested text models carry the same name with `_text` at the end."""


def family_of(model_type: str) -> Family | None:
    """Reader of a `model_type`, None for an unknown one."""
    return FAMILIES.get(model_type.removesuffix("_text"))


def model_type_of(architecture: str) -> str | None:
    """Model type of an entry of `architectures`, for files without `model_type`."""
    by_class = {name: kind for kind, fam in FAMILIES.items() for name in fam.architectures}
    return by_class.get(architecture)
