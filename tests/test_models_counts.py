"""Counts of the catalogued models against an independent count and published figures.

data/model_counts.json was computed by another program from the same published configs; most of its
totals equal the model that transformers builds without weights. It had taken Qwen3-Next's recurrent
state for FP32; the table says 16 bits, as vLLM's log does (block of 544 tokens on one GPU).
"""

import json
from collections import Counter
from pathlib import Path

import pytest

from moeplan.models import list_models, load_model
from moeplan.models.checkpoint import BYTES_PER_WEIGHT
from moeplan.models.counting import (
    active_params,
    attention_flops_per_context_token,
    kv_elements_by_kind,
    layer_components,
    main_components,
    recurrent_flops_per_token,
    state_bytes,
)
from moeplan.models.storage import checkpoint_bytes, component_bytes

EXPECTED = json.loads((Path(__file__).parent / "data" / "model_counts.json").read_text())
SLUGS = sorted(EXPECTED)
MODELS = [load_model(slug) for slug in SLUGS]


def close(value, tolerance=1e-3):
    return pytest.approx(value, rel=tolerance)


def test_the_table_covers_the_catalogue():
    assert sorted(list_models()) == SLUGS
    assert len(SLUGS) == 32


@pytest.mark.parametrize("model", MODELS, ids=SLUGS)
def test_weights_agree_with_the_independent_count(model):
    arch, expected = model.architecture, EXPECTED[model.slug]
    assert arch.total_params == close(expected["total"])
    assert sum(arch.mtp_components.values()) == close(expected["mtp"])
    assert arch.vision_params == close(expected["vision"])
    assert active_params(arch) == {k: close(v) for k, v in expected["active"].items()}


@pytest.mark.parametrize("model", MODELS, ids=SLUGS)
def test_caches_state_and_flops_agree_with_the_independent_count(model):
    layers, expected = model.architecture.layers, EXPECTED[model.slug]
    kv = {kind: 2 * n for kind, n in kv_elements_by_kind(model.architecture).items()}
    assert kv == expected["kv_bf16_bytes_per_token"]
    states = [state_bytes(layer) for layer in layers]
    assert [sum(s.ssm for s in states), sum(s.conv for s in states)] == expected["state_bytes"]
    flops = sum(sum(attention_flops_per_context_token(la).values()) for la in layers)
    assert flops == expected["attention_flops_per_context_token"]
    recurrent = sum(map(recurrent_flops_per_token, layers))
    assert recurrent == expected["recurrent_flops_per_token"]
    windows = {la.mixer.kind: la.mixer.window for la in layers if getattr(la.mixer, "window", None)}
    assert windows == expected["windows"]


@pytest.mark.parametrize("model", MODELS, ids=SLUGS)
def test_counts_meet_what_publishers_state(model):
    """Names and cards round: 3 % for totals, 10 % for actives ("A3B" is 3.25 B)."""
    arch = model.architecture
    mtp = sum(arch.mtp_components.values())
    parts = {"main": arch.total_params, "mtp": mtp, "vision": arch.vision_params}
    active = active_params(arch)
    for count in model.published:
        if count.what == "active":
            assert active[count.counts] / 1e9 == close(count.billions, 0.1)
        else:
            total = sum(parts[part] for part in count.counts.split("+"))
            assert total / 1e9 == close(count.billions, 0.03)


SIZED = [(m, c) for m in MODELS for c in m.checkpoints if c.published_gb]


@pytest.mark.parametrize(("model", "ckpt"), SIZED, ids=lambda x: getattr(x, "repo", ""))
def test_checkpoint_sizes_meet_the_published_files(model, ckpt):
    tolerance = 0.01 if ckpt.published_grade == "exact" else 0.04
    size = checkpoint_bytes(model.architecture, ckpt) / 1e9
    assert size == close(ckpt.published_gb, tolerance)
    assert ckpt.source


def test_enough_sizes_are_exact():
    assert sum(c.published_grade == "exact" for _, c in SIZED) >= 20


def test_online_fp8_of_gemma_4_weighs_what_vllm_reported():
    """vLLM logged 25.67 GiB for --quantization fp8 of the BF16 files."""
    model = load_model("gemma-4-26b-a4b")
    size = checkpoint_bytes(model.architecture, model.hypothetical("fp8"))
    assert size / 2**30 == close(25.67, 0.04)


@pytest.mark.parametrize("model", MODELS, ids=SLUGS)
def test_components_are_conserved(model):
    """Layers and tables sum to the model; bytes of components sum to the checkpoint."""
    arch = model.architecture
    total = Counter()
    for layer in arch.layers:
        total += layer_components(arch, layer)
    outside = main_components(arch) - total
    assert set(outside) <= {"embed", "lm_head", "norms"}
    assert outside["norms"] == arch.hidden_size
    assert ("lm_head" in outside) != arch.tie_word_embeddings
    ckpt = model.default_checkpoint
    sizes = component_bytes(arch, ckpt)
    assert sum(sizes.values()) == close(checkpoint_bytes(arch, ckpt), 1e-12)
    drafts = sum(v for k, v in sizes.items() if k.startswith("mtp."))
    bare = checkpoint_bytes(arch, ckpt, include_mtp=False, include_vision=False)
    assert bare == close(sum(sizes.values()) - drafts - sizes.get("vision", 0.0), 1e-12)


@pytest.mark.parametrize("model", MODELS, ids=SLUGS)
def test_layouts_name_real_components_and_formats(model):
    """A misspelt component in a layout would silently fall back to the default format."""
    arch = model.architecture
    known = set(arch.components) | {f"mtp.{name}" for name in arch.mtp_components} | {"mtp"}
    for ckpt in model.checkpoints:
        if not arch.mtp:
            known |= {name for name in ckpt.layout if name.startswith("mtp.")}
        assert set(ckpt.layout) <= known
        for component in component_bytes(arch, ckpt):
            shares = ckpt.formats(component)
            assert set(shares) <= set(BYTES_PER_WEIGHT)
            assert sum(shares.values()) == close(1.0, 1e-6)


def test_mla_decodes_over_the_latent_and_prefills_over_heads():
    layer = load_model("deepseek-v3").architecture.layers[10]
    assert attention_flops_per_context_token(layer) == {"mla": 2 * 128 * (512 + 64 + 512)}
    assert attention_flops_per_context_token(layer, prefill=True) == {"mla": 2 * 128 * 320}
