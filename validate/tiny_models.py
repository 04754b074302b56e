"""Tiny random models of real architectures: what an engine on a CPU serves in milliseconds a step.

Every field is one that the published config.json of the family carries; sizes are the smallest that
vLLM's CPU kernels take (attention heads of 64, block sizes that are multiples of 32).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from moeplan.errors import UnknownNameError
from moeplan.validate.tokenizer import BOS_ID, EOS_ID, PAD_ID

Config = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TinySizes:
    """Sizes of a tiny model, in elements; `vllm bench latency` draws ids below 10,000."""

    layers: int = 2
    hidden: int = 128
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    experts: int = 8
    experts_per_token: int = 2
    moe_width: int = 128
    vocab_size: int = 10240
    max_len: int = 4096
    window: int = 128

    @property
    def dense_width(self) -> int:
        """Intermediate size of a dense layer with as much work as the routed experts."""
        return self.moe_width * self.experts_per_token


def tiny_config(family: str, sizes: TinySizes | None = None) -> Config:
    """The config.json of a tiny model; `family` is one of `TINY_FAMILIES` (a model_type)."""
    if family not in TINY_FAMILIES:
        raise UnknownNameError("tiny model", family, TINY_FAMILIES)
    sizes = sizes or TinySizes()
    return _common(sizes) | {"model_type": family} | TINY_FAMILIES[family](sizes)


def _common(sizes: TinySizes) -> Config:
    return {
        "attention_bias": False,
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
        "head_dim": sizes.head_dim,
        "hidden_act": "silu",
        "hidden_size": sizes.hidden,
        "initializer_range": 0.02,
        "intermediate_size": sizes.dense_width,
        "max_position_embeddings": sizes.max_len,
        "num_attention_heads": sizes.heads,
        "num_hidden_layers": sizes.layers,
        "num_key_value_heads": sizes.kv_heads,
        "pad_token_id": PAD_ID,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vocab_size": sizes.vocab_size,
    }


_NO_WINDOW = {"use_sliding_window": False, "sliding_window": None}


def _qwen3(_sizes: TinySizes) -> Config:
    return {"architectures": ["Qwen3ForCausalLM"], **_NO_WINDOW}


def _routed(sizes: TinySizes) -> Config:
    """Routing fields of the Qwen families."""
    return {
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "moe_intermediate_size": sizes.moe_width,
        "norm_topk_prob": True,
        "num_experts": sizes.experts,
        "num_experts_per_tok": sizes.experts_per_token,
    }


def _qwen3_moe(sizes: TinySizes) -> Config:
    return {"architectures": ["Qwen3MoeForCausalLM"], **_NO_WINDOW} | _routed(sizes)


def _mixtral(sizes: TinySizes) -> Config:
    return {
        "architectures": ["MixtralForCausalLM"],
        "intermediate_size": sizes.moe_width,
        "num_local_experts": sizes.experts,
        "num_experts_per_tok": sizes.experts_per_token,
        "sliding_window": None,
    }


def _gpt_oss(sizes: TinySizes) -> Config:
    kinds = ("sliding_attention", "full_attention")
    yarn = {
        "rope_type": "yarn",
        "rope_theta": 150000.0,
        "factor": 2.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": False,
        "original_max_position_embeddings": sizes.max_len // 2,
    }
    return {
        "architectures": ["GptOssForCausalLM"],
        "attention_bias": True,
        "experts_per_token": sizes.experts_per_token,
        "initial_context_length": sizes.max_len // 2,
        "intermediate_size": sizes.moe_width,
        "layer_types": [kinds[index % 2] for index in range(sizes.layers)],
        "num_experts_per_tok": sizes.experts_per_token,
        "num_local_experts": sizes.experts,
        "rope_parameters": yarn,
        "rope_theta": 150000.0,
        "sliding_window": sizes.window,
        "swiglu_limit": 7.0,
    }


def _qwen3_next(sizes: TinySizes) -> Config:
    own = {
        "architectures": ["Qwen3NextForCausalLM"],
        "full_attention_interval": 4,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": sizes.head_dim,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_value_head_dim": sizes.head_dim,
        "num_hidden_layers": -(-sizes.layers // 4) * 4,
        "partial_rotary_factor": 0.25,
        "shared_expert_intermediate_size": sizes.moe_width,
    }
    return own | _routed(sizes)


def _deepseek_v2(sizes: TinySizes) -> Config:
    return {
        "architectures": ["DeepseekV2ForCausalLM"],
        "aux_loss_alpha": 0.001,
        "first_k_dense_replace": 1,
        "kv_lora_rank": 512,
        "moe_intermediate_size": sizes.moe_width,
        "moe_layer_freq": 1,
        "n_group": 1,
        "n_routed_experts": sizes.experts,
        "n_shared_experts": 1,
        "norm_topk_prob": False,
        "num_experts_per_tok": sizes.experts_per_token,
        "num_key_value_heads": sizes.heads,
        "q_lora_rank": None,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "routed_scaling_factor": 1.0,
        "scoring_func": "softmax",
        "topk_group": 1,
        "topk_method": "greedy",
        "v_head_dim": 128,
    }


TINY_FAMILIES: dict[str, Callable[[TinySizes], Config]] = {
    "qwen3": _qwen3,
    "qwen3_moe": _qwen3_moe,
    "mixtral": _mixtral,
    "gpt_oss": _gpt_oss,
    "qwen3_next": _qwen3_next,
    "deepseek_v2": _deepseek_v2,
}
"""Families by model_type: dense, MoE, sliding + full, recurrent hybrid and latent attention."""
