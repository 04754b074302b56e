"""Families with multi-head latent attention: DeepSeek-V2 to V3.2, Kimi-K2, GLM-4.7-Flash, GLM-5,
Mistral Small 4. Structure after the modelling files of transformers 5.24 (DeepSeek-V2, section 2.1;
DeepSeek-V3.2 for the indexer).
"""

from __future__ import annotations

from moeplan.models.architecture import LatentAttention, Layer, MoEFFN, SparseIndexer
from moeplan.models.family_parts import dense_first, draft, routed, shared_width
from moeplan.models.fields import Fields
from moeplan.models.structure import Structure


def _attention(f: Fields, indexer: SparseIndexer | None = None) -> LatentAttention:
    """MLA; a null `q_lora_rank` (DeepSeek-V2-Lite) means one full query projection: rank 0."""
    f.only("attention_bias", False)
    return LatentAttention(
        num_heads=f.integer("num_attention_heads"),
        q_lora_rank=f.nullable_integer("q_lora_rank") or 0,
        kv_lora_rank=f.integer("kv_lora_rank"),
        qk_nope_head_dim=f.integer("qk_nope_head_dim"),
        qk_rope_head_dim=f.integer("qk_rope_head_dim"),
        v_head_dim=f.integer("v_head_dim"),
        indexer=indexer,
    )


def _moe(f: Fields) -> MoEFFN:
    return routed(f, "n_routed_experts", shared_intermediate_size=shared_width(f))


def _structure(f: Fields, attention: LatentAttention, *, copies: bool) -> Structure:
    moe = _moe(f)
    mtp = draft(f, "num_nextn_predict_layers", [Layer(attention, moe)], copies=copies)
    return Structure(dense_first(f, attention, moe), mtp=mtp)


def deepseek(f: Fields) -> Structure:
    """DeepSeek-V2, V3, R1, Kimi-K2 and GLM-4.7-Flash."""
    return _structure(f, _attention(f), copies=True)


def _indexer(f: Fields) -> SparseIndexer:
    """The lightning indexer of every layer; layers that share their neighbour's are refused."""
    depth = f.integer("num_hidden_layers")
    if f.has("index_topk_freq"):
        f.only("index_topk_freq", 1)
    if f.has("index_topk_pattern"):
        f.words("index_topk_pattern", {"F": "full"}, depth)
    if f.has("indexer_types"):
        f.words("indexer_types", {"full": "full"}, depth)
    return SparseIndexer(
        num_heads=f.integer("index_n_heads"),
        head_dim=f.integer("index_head_dim"),
        topk=f.integer("index_topk"),
    )


def deepseek_v32(f: Fields) -> Structure:
    """DeepSeek-V3.2: V3 with a sparse indexer."""
    return _structure(f, _attention(f, _indexer(f)), copies=True)


def glm_moe_dsa(f: Fields) -> Structure:
    """GLM-5: as V3.2; its MTP module shares embedding and head with the main model."""
    return _structure(f, _attention(f, _indexer(f)), copies=False)


def mistral4(f: Fields) -> Structure:
    """Mistral Small 4: MLA with a 256-wide latent, no MTP."""
    return Structure(dense_first(f, _attention(f), _moe(f)))
