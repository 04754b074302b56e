"""Checkpoints of a user's own model folder, from the quantisation that its files state."""

import json

import pytest

from moeplan.errors import ModelConfigError
from moeplan.models import load_model
from moeplan.models.catalogue import _documents
from moeplan.models.storage import checkpoint_bytes

BLOCK = {"quant_method": "fp8", "weight_block_size": [128, 128]}


def nvfp4(ignore, **more):
    return {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ignore, **more}


def folder(tmp_path, slug, quantization=None, **more):
    config = _documents()[slug]["config"] | more
    if quantization is not None:
        config |= {"quantization_config": quantization}
    place = tmp_path / slug
    place.mkdir()
    (place / "config.json").write_text(json.dumps(config))
    return place


def per_layer(count, pattern):
    return [pattern.format(i) for i in range(count)]


FP8_KV = {"num_bits": 8, "type": "float", "dynamic": False}
INT4_G32 = {"weights": {"num_bits": 4, "type": "int", "group_size": 32}, "targets": ["Linear"]}
FP8_CHANNEL = {"weights": {"num_bits": 8, "type": "float"}, "targets": ["Linear"]}
NANO_BF16_MAMBA = [4, 11, 18, 25, 32, 41]
# Shapes of the exclusion lists as the publishers write them, and what the catalogue says.
PUBLISHED = {
    "deepseek-ai/DeepSeek-V3": BLOCK,
    "MiniMaxAI/MiniMax-M2.5": {
        **BLOCK,
        "modules_to_not_convert": ["gate", "e_score_correction_bias", "lm_head"],
    },
    "openai/gpt-oss-120b": {
        "quant_method": "mxfp4",
        "modules_to_not_convert": [
            "model.layers.*.self_attn",
            "model.layers.*.mlp.router",
            "model.embed_tokens",
            "lm_head",
        ],
    },
    "nvidia/Llama-3.3-70B-Instruct-NVFP4": nvfp4(["lm_head"], kv_cache_scheme=FP8_KV),
    "nvidia/Qwen3.5-122B-A10B-NVFP4": nvfp4(
        [
            "lm_head",
            *per_layer(48, "model.language_model.layers.{}.linear_attn*"),
            *per_layer(48, "model.language_model.layers.{}.self_attn*"),
            *per_layer(48, "model.language_model.layers.{}.mlp.shared_expert*"),
            "mtp*",
        ],
        kv_cache_quant_algo="FP8",
    ),
    "nvidia/Gemma-4-26B-A4B-NVFP4": nvfp4(
        [
            "lm_head",
            *per_layer(30, "model.language_model.layers.{}.self_attn*"),
            *per_layer(30, "model.language_model.layers.{}.mlp*"),
            *per_layer(30, "model.language_model.layers.{}.router*"),
        ],
        kv_cache_quant_algo="FP8",
    ),
    "nvidia/DeepSeek-V3.2-NVFP4": nvfp4(
        [
            "lm_head",
            *per_layer(62, "model.layers.{}.self_attn.q_a_proj"),
            *per_layer(62, "model.layers.{}.self_attn.q_b_proj"),
            *per_layer(62, "model.layers.{}.self_attn.kv_a_proj_with_mqa"),
            *per_layer(62, "model.layers.{}.self_attn.kv_b_proj"),
            *per_layer(62, "model.layers.{}.self_attn.indexer*"),
            "model.layers.61*",
        ],
        kv_cache_scheme=FP8_KV,
    ),
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-NVFP4": nvfp4(
        [
            "lm_head",
            "re:.*mixer\\.(q|k|v|o)_proj",
            *(f"backbone.layers.{i}.mixer.in_proj" for i in NANO_BF16_MAMBA),
            *(f"backbone.layers.{i}.mixer.out_proj" for i in NANO_BF16_MAMBA),
        ],
        kv_cache_quant_algo="FP8",
    ),
    "moonshotai/Kimi-K2.6": {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": INT4_G32},
        "ignore": [
            "lm_head",
            "re:.*self_attn.*",
            "re:.*shared_experts.*",
            "re:.*mlp\\.(gate|up|gate_up|down)_proj.*",
        ],
    },
    "zai-org/GLM-4.5-Air-FP8": {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": FP8_CHANNEL},
        "ignore": ["lm_head", *per_layer(46, "model.layers.{}.mlp.gate")],
    },
    "Qwen/Qwen3-32B-AWQ": {"quant_method": "awq", "bits": 4, "group_size": 128},
    "Qwen/Qwen3.5-122B-A10B-GPTQ-Int4": {
        "quant_method": "gptq",
        "bits": 4,
        "group_size": 128,
        "dynamic": {
            "-:.*attn.*": {},
            "-:.*shared_expert.*": {},
            "-:.*mtp.*": {},
        },
    },
}


@pytest.mark.parametrize("repo", PUBLISHED)
def test_a_published_quantisation_gives_the_catalogued_layout(tmp_path, repo):
    known = load_model(repo)
    own = load_model(folder(tmp_path, known.slug, PUBLISHED[repo]))
    expected, found = known.default_checkpoint, own.default_checkpoint
    arch = own.architecture
    assert arch.components == known.architecture.components
    for component in [*arch.components, *(f"mtp.{n}" for n in arch.mtp_components), "vision"]:
        assert found.formats(component) == pytest.approx(expected.formats(component), abs=1e-4), (
            component
        )
    assert (found.name, found.kv_format) == (expected.name, expected.kv_format)
    assert found.layout_source.startswith("quantization_config")


def test_the_users_folder_names_model_and_checkpoint(tmp_path):
    place = folder(tmp_path, "llama-3.1-8b")
    for given in (place, place / "config.json", str(place)):
        model = load_model(given)
        assert model.slug == "llama-3.1-8b"
        assert model.hf_id is None
        assert model.provenance.grade == "own file"
        assert model.default_checkpoint.name == "bf16"
        assert not model.default_checkpoint.hypothetical
    size = checkpoint_bytes(model.architecture, model.default_checkpoint)
    assert size == 2 * 8_030_261_248


def test_a_file_of_another_name_names_the_model(tmp_path):
    file = tmp_path / "my-llama.json"
    file.write_text(json.dumps(_documents()["llama-3.1-8b"]["config"]))
    assert load_model(file).slug == "my-llama"


def test_float32_weights_take_four_bytes(tmp_path):
    model = load_model(folder(tmp_path, "llama-3.1-8b", torch_dtype="float32"))
    assert model.default_checkpoint.name == "fp32"
    assert checkpoint_bytes(model.architecture, model.default_checkpoint) == 4 * 8_030_261_248


def test_an_older_modelopt_export_keeps_its_scheme_in_a_second_file(tmp_path):
    place = folder(tmp_path, "llama-3.1-8b")
    scheme = {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}
    (place / "hf_quant_config.json").write_text(json.dumps({"quantization": scheme}))
    found = load_model(place).default_checkpoint
    assert (found.name, found.kv_format) == ("fp8", "fp8")
    assert found.formats("attn_proj") == {"fp8": 1.0}
    assert found.formats("lm_head") == {"bf16": 1.0}


def test_mixed_precision_quantises_only_the_listed_modules(tmp_path):
    layers = {
        f"model.layers.{i}.mlp.{name}": {"quant_algo": "NVFP4" if i < 8 else "FP8"}
        for i in range(32)
        for name in ("gate_proj", "up_proj", "down_proj")
    }
    scheme = {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}
    place = folder(tmp_path, "llama-3.1-8b", {**scheme, "quantized_layers": layers})
    found = load_model(place).default_checkpoint
    assert found.formats("dense_mlp") == {"nvfp4": 0.25, "fp8": 0.75}
    assert found.formats("attn_proj") == {"bf16": 1.0}
    assert found.name == "fp8"


def test_shares_weigh_matrices_by_their_size(tmp_path):
    """Llama-3.1-8B: q and o are 4 of 10 parts of attention each, k and v one each."""
    excluded = ["q_proj"]
    found = load_model(folder(tmp_path, "llama-3.1-8b", nvfp4(excluded))).default_checkpoint
    assert found.formats("attn_proj") == pytest.approx({"bf16": 0.4, "nvfp4": 0.6})


@pytest.mark.parametrize(
    ("quantization", "named"),
    [
        ({"quant_method": "bitsandbytes"}, "quant_method = 'bitsandbytes'"),
        ({}, "quant_method = None"),
        ("fp8", "quantization_config = 'fp8'"),
        ({"quant_method": "fp8", "weight_block_size": [64, 64]}, "weight_block_size"),
        ({"quant_method": "gptq", "bits": 3, "group_size": 128}, "bits = 3"),
        ({"quant_method": "awq", "bits": 4, "group_size": 64}, "group_size = 64"),
        ({"quant_method": "modelopt", "quant_algo": "INT3"}, "quant_algo = 'INT3'"),
        ({"quant_method": "compressed-tensors"}, "config_groups"),
        (nvfp4("lm_head"), "ignore = 'lm_head'"),
        (nvfp4([3]), "3: must be a module name"),
        (nvfp4(["re:("]), "not a regular expression"),
        (nvfp4([], kv_cache_quant_algo="NVFP4"), "KV cache scheme"),
        ({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}, "quantized_layers"),
        (
            {
                "quant_method": "modelopt",
                "quant_algo": "MIXED_PRECISION",
                "quantized_layers": {"a": 1},
            },
            "quantized_layers",
        ),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": 1}}, "config_groups"),
        ({"quant_method": "gptq", "bits": 4, "group_size": [128]}, "group_size"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "dynamic": 3}, "dynamic"),
    ],
)
def test_a_quantisation_that_is_not_modelled_is_named(tmp_path, quantization, named):
    with pytest.raises(ModelConfigError) as caught:
        load_model(folder(tmp_path, "llama-3.1-8b", quantization))
    assert named in str(caught.value)


def test_a_file_without_dtype_asks_for_it(tmp_path):
    with pytest.raises(ModelConfigError, match="dtype is missing"):
        load_model(folder(tmp_path, "llama-3.1-8b", torch_dtype=None))
    with pytest.raises(ModelConfigError, match="torch_dtype = 'int8'"):
        load_model(folder(tmp_path, "llama-3.3-70b", torch_dtype="int8"))
