"""Every structural field of every family moves a figure, and junk in it is refused by name."""

import copy
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.configs import CONFIGS, DEEPSEEK_V2_LITE

from moeplan.errors import ModelConfigError
from moeplan.models.config import architecture_from_config, structural_fields
from moeplan.models.counting import (
    active_params,
    attention_flops_per_context_token,
    kv_elements_per_token,
    recurrent_flops_per_token,
    state_bytes,
)
from moeplan.models.families import FAMILIES

QWEN35_DENSE = {
    "model_type": "qwen3_5_text",
    "full_attention_interval": 4,
    "head_dim": 256,
    "hidden_size": 5120,
    "intermediate_size": 17408,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 48,
    "linear_value_head_dim": 128,
    "mamba_ssm_dtype": "float32",
    "max_position_embeddings": 262144,
    "mtp_num_hidden_layers": 1,
    "num_attention_heads": 24,
    "num_hidden_layers": 64,
    "num_key_value_heads": 4,
    "tie_word_embeddings": False,
    "vocab_size": 248320,
}
CONFIGS |= {"deepseek-v2-lite": DEEPSEEK_V2_LITE, "qwen3.5-dense": QWEN35_DENSE}

CONTEXT = 30_000
PER_LAYER = ("layer_types", "hybrid_override_pattern", "mlp_layer_types")


def inner(config):
    """The part of a config that holds the language model."""
    return config.get("text_config", config)


def cached(layer):
    """Elements that a sequence of CONTEXT tokens keeps in one layer."""
    window = getattr(layer.mixer, "window", None) or CONTEXT
    return {k: n * min(window, CONTEXT) for k, n in kv_elements_per_token(layer).items()}


def attended(layer):
    """FLOPs of one query over CONTEXT tokens in one layer."""
    indexer = getattr(layer.mixer, "indexer", None)
    flops = attention_flops_per_context_token(layer)
    return {k: n * (indexer.topk if indexer and k == "mla" else CONTEXT) for k, n in flops.items()}


def figures(config):
    """Everything that a simulation takes from an architecture."""
    arch = architecture_from_config(config, "model")
    per_layer = [
        (cached(la), attended(la), state_bytes(la), recurrent_flops_per_token(la))
        for la in arch.layers
    ]
    weights = (arch.components, arch.mtp_components, active_params(arch))
    return weights, per_layer, arch.max_position_embeddings


def changes(name, value):
    """Other legal values of a field, the first that a config accepts counts."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value * 2, value // 2] if value else [1]
    if name in ("mamba_ssm_dtype", "mamba_ssm_cache_dtype"):
        return ["bfloat16"]
    if name == "hybrid_override_pattern":
        return [value.replace("M", "E", 1)]
    if name == "mtp_hybrid_override_pattern":
        return [value + "*"]
    if name == "layer_types":
        other = {"full_attention": value[0], value[0]: "full_attention"}
        return [[other[value[0]], *value[1:]]]
    if name == "mlp_only_layers":
        return [[0]]
    return ["something else"]


def changed(config, name, value):
    new = copy.deepcopy(config)
    place = new if name == "tie_word_embeddings" and name in new else inner(new)
    place[name] = value
    if name == "hidden_size" and "out_hidden_size" in new.get("vision_config", {}):
        new["vision_config"]["out_hidden_size"] = value
    if name == "num_hidden_layers" and isinstance(value, int):
        for listed in PER_LAYER:
            if listed in place:
                entries = place[listed] * 2
                place[listed] = entries[:value]
    return new


def cases():
    for slug, config in CONFIGS.items():
        for name in sorted(structural_fields(config, slug)):
            yield pytest.param(config, name, id=f"{slug}-{name}")


@pytest.mark.parametrize(("config", "name"), list(cases()))
def test_every_structural_field_moves_a_figure_or_is_refused_as_unmodelled(config, name):
    before = figures(config)
    stated = inner(config).get(name, config.get(name))
    refusals = []
    for value in changes(name, stated):
        try:
            after = figures(changed(config, name, value))
        except ModelConfigError as error:
            refusals.append(str(error))
            continue
        assert after != before
        return
    assert all(name in text and "modelled" in text for text in refusals)


def test_the_cases_cover_every_family():
    seen = {architecture_from_config(c, s).model_type for s, c in CONFIGS.items()}
    assert seen == set(FAMILIES)


@pytest.mark.parametrize("slug", sorted(CONFIGS))
def test_no_structural_field_is_filled_in_silently(slug):
    """Without a field the config is refused by its name, unless transformers documents a default
    that gives a published model its published shape."""
    config = CONFIGS[slug]
    for name in structural_fields(config, slug):
        bare = copy.deepcopy(config)
        inner(bare).pop(name, None)
        bare.pop(name, None)
        family = FAMILIES[architecture_from_config(config, slug).model_type]
        optional = {"head_dim", "moe_layer_freq", "moe_latent_size", "num_global_key_value_heads"}
        optional |= {"num_nextn_predict_layers", "mtp_num_hidden_layers", "layer_types"}
        if name == "num_experts_per_tok" and "experts_per_token" in config:
            optional.add(name)
        if name in optional | set(family.defaults):
            continue
        with pytest.raises(ModelConfigError, match=name.replace("hybrid_override", ".*")):
            architecture_from_config(bare, slug)


JUNK = st.sampled_from(
    [None, -1, 0, 1.5, math.inf, math.nan, True, "x", "4096", [], {}, [1], 10**12, {"a": 1}]
)


@given(data=st.data())
def test_junk_in_any_field_is_refused_or_read_but_never_a_crash(data):
    slug = data.draw(st.sampled_from(sorted(CONFIGS)))
    name = data.draw(st.sampled_from(sorted(structural_fields(CONFIGS[slug], slug))))
    refusal = refusal_of(changed(CONFIGS[slug], name, data.draw(JUNK)))
    assert refusal is None or (refusal.startswith("model") and "\n" not in refusal)


def refusal_of(config):
    """Text of the refusal of a config, None where it is read."""
    try:
        figures(config)
    except ModelConfigError as error:
        return str(error)
    return None
