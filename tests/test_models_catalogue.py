"""Finding models and checkpoints by name, and hypothetical re-quantisations."""

import pytest

from moeplan.errors import InputError, ModelConfigError, UnknownNameError
from moeplan.models import Checkpoint, ModelEntry, list_models, load_model
from moeplan.models.catalogue import _documents, _places
from moeplan.models.storage import checkpoint_bytes, component_bytes


def every_name():
    for slug, doc in _documents().items():
        for name, _ in _places(slug, doc):
            yield slug, name


@pytest.mark.parametrize("slug", list_models())
def test_every_repository_of_a_model_finds_it_and_its_checkpoint(slug):
    for name in [slug, *(name for s, name in every_name() if s == slug)]:
        model = load_model(name)
        assert model.slug == slug
        stored = [c for c in model.checkpoints if c.repo == name]
        if stored:
            assert model.default_checkpoint == stored[0]
        assert not model.default_checkpoint.hypothetical


@pytest.mark.parametrize("slug", list_models())
def test_names_ignore_case(slug):
    assert load_model(slug.upper()) is load_model(slug)
    assert load_model(load_model(slug).hf_id.lower()) is load_model(slug)


@pytest.mark.parametrize("slug", list_models())
def test_entries_say_where_they_come_from(slug):
    model = load_model(slug)
    assert model.provenance.grade in ("verified", "derived")
    assert model.provenance.config
    assert all(count.source for count in model.published)
    for ckpt in model.checkpoints:
        assert ckpt.repo
        assert ckpt.layout_source or ckpt.name == "bf16" or ckpt.source


def test_siblings_keep_what_their_own_config_says():
    glm = load_model("zai-org/GLM-4.5")
    assert (glm.slug, glm.architecture.max_position_embeddings) == ("glm-4.6", 131_072)
    assert load_model("glm-4.6").architecture.max_position_embeddings == 202_752
    assert load_model("Qwen/Qwen3-Coder-Next").architecture.mtp is None
    assert load_model("qwen3-next-80b-a3b").architecture.mtp is not None
    assert {c.repo for c in glm.checkpoints} == {"zai-org/GLM-4.5", "zai-org/GLM-4.5-FP8"}


def test_a_sibling_inherits_the_layout_but_not_the_published_size():
    base = load_model("deepseek-r1").checkpoint("fp8")
    sibling = load_model("deepseek-ai/DeepSeek-R1-0528").checkpoint("fp8")
    assert sibling.layout == base.layout
    assert base.published_gb
    assert sibling.published_gb is None


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("gpt-oss-12b", "gpt-oss-120b"),
        ("Qwen/Qwen3.5-122B", "Qwen/Qwen3.5-122B-A10B"),
        ("mixtral", "mixtral-8x7b"),
    ],
)
def test_an_unknown_model_names_the_nearest(name, nearest):
    with pytest.raises(UnknownNameError) as caught:
        load_model(name)
    assert nearest in caught.value.nearest
    assert caught.value.exit_code == 2


def test_a_path_that_does_not_exist_is_no_model_name(tmp_path):
    with pytest.raises(ModelConfigError, match="No such file"):
        load_model(tmp_path / "config.json")
    with pytest.raises(ModelConfigError):
        load_model(tmp_path)


# ------------------------------------------------------------ checkpoints


def test_checkpoints_by_short_name_and_by_repository():
    model = load_model("qwen3.5-122b-a10b")
    first = model.checkpoint("nvfp4")
    assert first.repo == "nvidia/Qwen3.5-122B-A10B-NVFP4"
    other = model.checkpoint("NVFP4", repo="sehyo/Qwen3.5-122B-A10B-NVFP4")
    assert other.repo == "Sehyo/Qwen3.5-122B-A10B-NVFP4"
    assert model.checkpoint(other.repo) is other
    with pytest.raises(UnknownNameError):
        model.checkpoint("fp8", repo=other.repo)


def test_nvidias_quantised_checkpoints_ask_for_an_fp8_cache():
    for slug in list_models():
        for ckpt in load_model(slug).checkpoints:
            if ckpt.repo.startswith("nvidia/") and ckpt.name in ("fp8", "nvfp4"):
                # Run logs of the first DeepSeek-R1-FP4 show a 16-bit cache.
                assert (ckpt.kv_format == "fp8") == (ckpt.repo != "nvidia/DeepSeek-R1-FP4")
            else:
                assert ckpt.kv_format == "bf16"


def test_an_unpublished_format_is_refused_with_those_that_are():
    model = load_model("mixtral-8x7b")
    with pytest.raises(UnknownNameError, match="mistralai/Mixtral-8x7B-Instruct"):
        model.checkpoint("fp8")
    with pytest.raises(UnknownNameError):
        model.checkpoint("int3", hypothetical=True)
    with pytest.raises(InputError):
        model.hypothetical("int3")


def test_hypothetical_checkpoints_are_marked_and_never_hide_published_ones():
    model = load_model("gpt-oss-20b")
    made = model.checkpoint("fp8", hypothetical=True)
    assert made.hypothetical
    assert made.repo is None
    assert "hypothetical" in made.layout_source
    assert not model.checkpoint("mxfp4", hypothetical=True).hypothetical


@pytest.mark.parametrize("slug", list_models())
def test_hypothetical_formats_order_as_their_bits(slug):
    model = load_model(slug)
    arch = model.architecture
    sizes = [
        checkpoint_bytes(arch, model.hypothetical(name))
        for name in ("mxfp4", "nvfp4", "fp8", "bf16")
    ]
    assert sizes == sorted(sizes)
    weights = arch.total_params + sum(arch.mtp_components.values()) + arch.vision_params
    assert sizes[-1] == 2 * weights
    small = component_bytes(arch, model.hypothetical("nvfp4"))
    assert all(
        small[name] == 2 * arch.components[name]
        for name in ("router", "norms", "embed", "lm_head")
        if name in arch.components
    )


def test_hypothetical_fp8_of_a_plain_model_equals_the_published_one():
    model = load_model("llama-3.3-70b")
    made, real = model.hypothetical("fp8"), model.checkpoint("fp8")
    assert checkpoint_bytes(model.architecture, made) == checkpoint_bytes(model.architecture, real)


def test_entries_are_frozen():
    model = load_model("gpt-oss-20b")
    assert isinstance(model, ModelEntry)
    assert isinstance(model.default_checkpoint, Checkpoint)
    with pytest.raises(AttributeError):
        model.hf_id = "other"
