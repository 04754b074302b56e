"""Models without weights: the folder describes the architecture and checkpoint asked for."""

import json

import pytest

from moeplan.errors import InputError, UnknownNameError
from moeplan.models import load_model
from moeplan.validate.dummy_model import cut, write_model, write_named, write_tiny_model
from moeplan.validate.tiny_models import TINY_FAMILIES, TinySizes
from moeplan.validate.tokenizer import vocabulary

FORMS = [
    ("gpt-oss-20b", "mxfp4"),
    ("qwen3-30b-a3b", "bf16"),
    ("qwen3-30b-a3b", "fp8"),
    ("qwen3-next-80b-a3b", "fp8"),
    ("deepseek-v3", "fp8"),
    ("llama-3.1-8b", "nvfp4"),
    ("glm-4.7-flash", "bf16"),
]


@pytest.mark.parametrize(("slug", "form"), FORMS)
def test_the_folder_reads_back_as_the_catalogued_checkpoint(tmp_path, slug, form):
    entry = load_model(slug)
    wanted = entry.checkpoint(form)
    found = load_model(write_model(slug, tmp_path / slug, checkpoint=form))
    assert found.architecture.layers == entry.architecture.layers
    for component in entry.architecture.components:
        if component not in ("norms", "embed", "router", "expert_bias"):
            ours = found.checkpoints[0].bytes_per_weight(component)
            assert ours == pytest.approx(wanted.bytes_per_weight(component), rel=0.01), component


def test_a_cut_model_keeps_the_first_layers(tmp_path):
    entry = load_model("gpt-oss-20b")
    found = load_model(write_model("gpt-oss-20b", tmp_path / "cut", layers=6))
    assert found.architecture.layers == entry.architecture.layers[:6]


@pytest.mark.parametrize("layers", [0, 25])
def test_layers_that_the_model_lacks_are_refused(layers):
    with pytest.raises(InputError, match="use 1 to 24"):
        cut({"num_hidden_layers": 24}, layers, "m")


def test_periods_stay_whole():
    with pytest.raises(InputError, match="multiple"):
        cut({"num_hidden_layers": 48, "full_attention_interval": 4}, 6, "m")


def test_a_model_inside_a_multi_modal_one_is_refused(tmp_path):
    with pytest.raises(InputError, match="multi-modal"):
        write_model("llama-4-scout", tmp_path)


def test_an_unknown_tiny_model_names_the_nearest(tmp_path):
    with pytest.raises(UnknownNameError, match="tiny-qwen3_moe"):
        write_named("tiny-qwen3-moe", tmp_path)


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_tiny_models_are_architectures_that_moeplan_knows(tmp_path, family):
    sizes = TinySizes(layers=4)
    found = load_model(write_tiny_model(family, tmp_path / family, sizes))
    assert len(found.architecture.layers) == 4
    assert found.architecture.is_moe == (family != "qwen3")


@pytest.mark.parametrize("size", [10_240, 201_088, 262_144])
def test_every_id_has_a_character_of_its_own(size):
    tokens = vocabulary(size)
    characters = [token for token, index in tokens.items() if index > 3]
    assert sorted(tokens.values()) == list(range(size))
    assert all(len(token) == 1 for token in characters)
    assert "".join(characters).encode().decode() == "".join(characters)


def test_a_vocabulary_beyond_the_characters_is_refused():
    with pytest.raises(InputError, match="covers at most"):
        vocabulary(400_000)


def test_the_tokenizer_file_is_what_the_tokenizers_library_reads(tmp_path):
    write_tiny_model("qwen3_moe", tmp_path)
    body = json.loads((tmp_path / "tokenizer.json").read_text())
    assert body["model"]["merges"] == []
    assert len(body["model"]["vocab"]) == 10_240
