"""Reading config.json: spellings, refusals, nested models, malformed files."""

import copy
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.configs import CONFIGS, DEEPSEEK_V2_LITE

from moeplan.errors import ModelConfigError
from moeplan.models.config import architecture_from_config, load_config
from moeplan.models.counting import active_params


def read(config):
    return architecture_from_config(config, "model")


@pytest.mark.parametrize("value", [-3, 0, 10**12, math.nan, math.inf, "36", True, 36.0, [36]])
def test_a_wrong_number_is_refused_with_field_and_value(value):
    config = {**CONFIGS["gpt-oss-120b"], "num_hidden_layers": value}
    with pytest.raises(ModelConfigError, match="num_hidden_layers = "):
        architecture_from_config(config, "gpt-oss")


def test_nulls_count_as_missing():
    config = {**CONFIGS["llama-3.1-8b"], "vocab_size": None}
    with pytest.raises(ModelConfigError, match="vocab_size is null"):
        architecture_from_config(config, "llama")


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]},
        {"architectures": ["SomethingNewForCausalLM"]},
        {},
        {"model_type": 7},
        {"model_type": "llama", "text_config": "x"},
    ],
)
def test_an_unknown_architecture_is_refused(config):
    with pytest.raises(ModelConfigError):
        architecture_from_config(config, "model")


def test_the_refusal_of_an_architecture_names_it_and_the_known_ones():
    with pytest.raises(ModelConfigError, match=r"GPT2LMHeadModel.*known model types: llama"):
        architecture_from_config({"architectures": ["GPT2LMHeadModel"]}, "model")


def test_architectures_stand_in_for_a_missing_model_type():
    config = dict(CONFIGS["mixtral-8x7b"])
    del config["model_type"]
    assert architecture_from_config(config, "m").model_type == "mixtral"


def test_nested_and_flat_language_models_read_alike():
    nested = CONFIGS["qwen3.5-35b-a3b"]
    flat = {**nested["text_config"], "tie_word_embeddings": False}
    assert read(nested).layers == read(flat).layers
    assert read(nested).components == read(flat).components


def test_kimi_k25_nests_a_kimi_k2():
    config = {"model_type": "kimi_k25", "text_config": CONFIGS["kimi-k2"]}
    assert read(config) == read(CONFIGS["kimi-k2"])


def test_transformers_words_for_nemotron_blocks_read_like_letters():
    config = dict(CONFIGS["nemotron-3-nano-30b-a3b"])
    words = {"M": "mamba", "E": "moe", "*": "attention"}
    config["layers_block_type"] = [words[x] for x in config.pop("hybrid_override_pattern")]
    assert read(config) == read(CONFIGS["nemotron-3-nano-30b-a3b"])


def test_llama_4_spellings_of_the_same_layers_agree():
    config = copy.deepcopy(CONFIGS["llama-4-maverick"])
    text = config["text_config"]
    before = read(config)
    text["no_rope_layers"] = []
    assert read(config) == before
    text["no_rope_layers"] = [1, 1, 1, 0] * 12
    text["moe_layers"] = list(range(1, 48, 2))
    assert read(config) == before
    text["attention_chunk_size"] = None
    kinds = {la.mixer.kind for la in architecture_from_config(config, "m").layers}
    assert kinds == {"full"}


def test_a_stated_window_makes_mistral_slide():
    config = {**CONFIGS["mistral-large-2411"], "sliding_window": 4096}
    mixer = architecture_from_config(config, "m").layers[0].mixer
    assert (mixer.kind, mixer.window) == ("sliding", 4096)


def test_deepseek_v2_lite_meets_its_published_total():
    """15.7 B, 2.4 B active (DeepSeek-V2 paper, appendix B); 15,706,484,224 on Hugging Face."""
    arch = architecture_from_config(DEEPSEEK_V2_LITE, "v2-lite")
    assert arch.total_params == 15_706_484_224


def test_shared_indexers_are_refused_but_whole_ones_read():
    config = {**CONFIGS["glm-5"], "indexer_types": ["full"] * 78}
    assert read(config) == read(CONFIGS["glm-5"])
    with pytest.raises(ModelConfigError, match="index_topk_freq"):
        architecture_from_config({**CONFIGS["glm-5"], "index_topk_freq": 4}, "glm")
    shared = ["full", "shared"] * 39
    with pytest.raises(ModelConfigError, match="indexer_types"):
        architecture_from_config({**CONFIGS["glm-5"], "indexer_types": shared}, "glm")


def test_an_unknown_vision_tower_asks_for_its_weights():
    config = {**CONFIGS["kimi-k2"], "vision_config": {"model_type": "moonvit"}}
    with pytest.raises(ModelConfigError, match="vision_params"):
        architecture_from_config(config, "kimi")
    config["vision_params"] = 400_000_000
    assert architecture_from_config(config, "kimi").vision_params == 400_000_000


small = st.integers(1, 64)


@given(h=small, layers=small, kv=small, group=small, d=small, experts=small, k=small, width=small)
def test_qwen3_moe_counts_follow_the_closed_form(h, layers, kv, group, d, experts, k, width):
    heads, k = kv * group, min(k, experts)
    sizes = {
        "hidden_size": h,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "head_dim": d,
        "num_experts": experts,
        "num_experts_per_tok": k,
        "moe_intermediate_size": width,
        "vocab_size": 100,
    }
    arch = architecture_from_config({**CONFIGS["qwen3-30b-a3b"], **sizes}, "model")
    attention = 2 * h * d * (heads + kv) + 2 * d
    layer = attention + experts * 3 * h * width + experts * h + 2 * h
    assert arch.total_params == layers * layer + h + 2 * 100 * h
    idle = layers * (experts - k) * 3 * h * width
    assert active_params(arch)["with_embed"] == arch.total_params - idle


# ---------------------------------------------------------------- files


def test_infinity_and_nan_inside_a_file_are_no_obstacle(tmp_path):
    text = json.dumps(CONFIGS["mixtral-8x7b"])[:-1] + ', "time_step_limit": [0.0, Infinity, NaN]}'
    (tmp_path / "config.json").write_text("\ufeff" + text, encoding="utf-8")
    for place in (tmp_path, tmp_path / "config.json"):
        assert read(load_config(place)) == read(CONFIGS["mixtral-8x7b"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1,\n "b": }', "line 2, column 7"),
        (b"", "line 1, column 1"),
        (b"[1, 2]", "JSON object"),
        (b"\xff\xfe{", "not a readable JSON text"),
        (b"[" * 100_000, "not a readable JSON text"),
        (b'{"a": ' + b"1" * 5000 + b"}", "not a readable JSON text"),
    ],
)
def test_a_malformed_file_is_named_with_the_place(tmp_path, content, message):
    file = tmp_path / "config.json"
    file.write_bytes(content)
    with pytest.raises(ModelConfigError, match=message) as caught:
        load_config(file)
    assert str(file) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelConfigError, match="No such file"):
        load_config(tmp_path / "nothing.json")
