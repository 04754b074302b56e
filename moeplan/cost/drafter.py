"""The drafter of speculative decoding as a small model of its own.

MTP modules fuse the last hidden state with the next token's embedding (2h → h) and run one layer;
an EAGLE-3 head (SafeAILab/EAGLE) does the same with hidden states of three layers and a dense
layer, and brings a smaller vocabulary. Both share embedding and, with MTP, head with the model.
"""

from __future__ import annotations

from dataclasses import replace

from moeplan.cost.formats import component_bytes_per_weight
from moeplan.cost.layers import Cut
from moeplan.cost.operators import LinearOperator
from moeplan.cost.weights import stage_weight_bytes
from moeplan.deployment import Deployment
from moeplan.errors import DeploymentError
from moeplan.hardware_specs.schema import Hardware
from moeplan.models.architecture import Architecture, DenseFFN, GroupedQueryAttention, Layer
from moeplan.models.checkpoint import Checkpoint

EAGLE_VOCABULARY = 32_000
"""Tokens that published EAGLE-3 heads draft from (general knowledge)."""
EAGLE_FFN_FACTOR = 4
"""Width of their dense layer over the hidden size: 3.5 to 6 (estimate)."""
EAGLE_HEAD_DIM = 128
_EAGLE_STATES = 3


def drafter_of(deployment: Deployment) -> Deployment | None:
    """The drafter as a deployment on the same GPUs; None without one (n-grams cost no pass).

    Raises `DeploymentError` where the model, or the form of its weights, has no MTP layers.
    """
    drafts = deployment.engine.speculation
    if drafts is None or drafts.method == "ngram":
        return None
    if drafts.method == "mtp":
        architecture, checkpoint = _mtp(deployment)
    else:
        architecture, checkpoint = _eagle(deployment.architecture)
    same = checkpoint.formats("routed_experts") == deployment.checkpoint.formats("routed_experts")
    settings = replace(
        deployment.engine,
        speculation=None,
        online_quantization={},
        kernel=deployment.engine.kernel if same and drafts.method == "mtp" else None,
    )
    return replace(deployment, architecture=architecture, checkpoint=checkpoint, engine=settings)


def _mtp(deployment: Deployment) -> tuple[Architecture, Checkpoint]:
    model, checkpoint = deployment.architecture, deployment.checkpoint
    if model.mtp is None:
        raise DeploymentError(
            f"{model.slug} has no MTP layers; use --speculative-method eagle3 or ngram"
        )
    drafter = replace(model, layers=model.mtp.layers, mtp=None, vision_params=0)
    own = {name: checkpoint.formats(f"mtp.{name}") for name in model.mtp_components}
    if any("absent" in formats for formats in own.values()):
        raise DeploymentError(
            f"the {checkpoint.name} checkpoint of {model.slug} ({checkpoint.repo}) has no MTP "
            "layers; use another --checkpoint or --speculative-method"
        )
    shared = {name: checkpoint.formats(name) for name in ("embed", "lm_head")}
    return drafter, replace(checkpoint, layout={**own, **shared})


def _eagle(model: Architecture) -> tuple[Architecture, Checkpoint]:
    hidden = model.hidden_size
    heads = max(hidden // EAGLE_HEAD_DIM, 1)
    usual = GroupedQueryAttention("full", heads, max(heads // 4, 1), EAGLE_HEAD_DIM)
    own = [x.mixer for x in model.layers if isinstance(x.mixer, GroupedQueryAttention)]
    like = next((mixer for mixer in own if mixer.kind == "full"), usual)
    attention = replace(usual, num_heads=like.num_heads, num_kv_heads=like.num_kv_heads,
                        head_dim=like.head_dim)  # fmt: skip
    layer = Layer(attention, DenseFFN(EAGLE_FFN_FACTOR * hidden))
    drafter = replace(
        model,
        layers=(layer,),
        mtp=None,
        vision_params=0,
        vocab_size=min(EAGLE_VOCABULARY, model.vocab_size),
        tie_word_embeddings=False,
    )
    return drafter, Checkpoint("bf16", None, "bf16")


def fuse_operators(deployment: Deployment, cut: Cut) -> tuple[LinearOperator, ...]:
    """The GEMM that joins hidden states and embedding, replicated on all ranks."""
    hidden, wide = cut.architecture.hidden_size, _fused(deployment)
    component = _fuse_component(deployment)
    return tuple(cut.linear("draft fusion", component, hidden, wide * hidden))


def drafter_weight_bytes(deployment: Deployment, hardware: Hardware) -> float:
    """Bytes of the drafter on one GPU, embedding and shared head left out."""
    drafter = drafter_of(deployment)
    if drafter is None:
        return 0.0
    model = drafter.architecture
    layers = stage_weight_bytes(drafter, hardware, model.layers, first=False, last=False)
    fuse = component_bytes_per_weight(drafter.checkpoint, _fuse_component(deployment), {})
    total = sum(layers.values()) + fuse * _fused(deployment) * model.hidden_size**2
    if _method(deployment) == "eagle3":
        head = component_bytes_per_weight(drafter.checkpoint, "lm_head", {})
        total += head * model.vocab_size * model.hidden_size / deployment.placement.tp
    return total


def _method(deployment: Deployment) -> str | None:
    drafts = deployment.engine.speculation
    return drafts.method if drafts else None


def _fused(deployment: Deployment) -> int:
    """Vectors of the hidden size that are joined."""
    return 2 if _method(deployment) == "mtp" else _EAGLE_STATES


def _fuse_component(deployment: Deployment) -> str:
    return "mtp_fuse" if _method(deployment) == "mtp" else "dense_mlp"
