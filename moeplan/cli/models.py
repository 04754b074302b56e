"""`moeplan models`: the catalogue, and one model with every count and checkpoint."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moeplan.cli import render
from moeplan.cli.options import JsonFlag

if TYPE_CHECKING:
    from moeplan.models import Architecture, Checkpoint, ModelEntry
    from moeplan.models.architecture import Layer

ModelName = Annotated[
    str | None,
    typer.Argument(help="Slug, Hugging Face id, or path of a config.json or model folder."),
]
BILLION = 1e9


def models(model: ModelName = None, as_json: JsonFlag = False) -> None:
    """List known models, or show one in full."""
    from moeplan.models import list_models, load_model

    if model is None:
        data = [overview_row(load_model(slug)) for slug in list_models()]
        render.emit(data, as_json, _show_overview)
    else:
        render.emit(detail_data(load_model(model)), as_json, _show_detail)


def overview_row(entry: ModelEntry) -> dict[str, Any]:
    """One line about a model."""
    from moeplan.models.counting import active_params

    architecture = entry.architecture
    return {
        "model": entry.slug,
        "hf_id": entry.hf_id,
        "total_params": architecture.total_params,
        "active_params": active_params(architecture)["without_embed"],
        "layers": len(architecture.layers),
        "mixers": dict(Counter(_mixer(layer) for layer in architecture.layers)),
        "max_position_embeddings": architecture.max_position_embeddings,
        "checkpoints": [checkpoint.name for checkpoint in entry.checkpoints],
    }


def _mixer(layer: Layer) -> str:
    return layer.mixer.kind if layer.mixer is not None else "none"


def _show_overview(rows: list[dict[str, Any]]) -> None:
    text, num = render.text, render.num
    render.print_table(
        [text("model", keep=True), num("total B"), num("active B"), num("layers"), text("mixers"),
         num("context"), text("checkpoints")],
        [
            [row["model"], render.number(row["total_params"] / BILLION, 4),
             render.number(row["active_params"] / BILLION), str(row["layers"]),
             " ".join(kind for kind in row["mixers"] if kind != "none"),
             f"{row['max_position_embeddings']:,}", " ".join(dict.fromkeys(row["checkpoints"]))]
            for row in rows
        ],
        f"{len(rows)} models (active: weights that a token multiplies, embedding left out)",
    )  # fmt: skip


def detail_data(entry: ModelEntry) -> dict[str, Any]:
    """Structure, counts by component, checkpoints and sources of one model."""
    from moeplan.models.counting import active_params

    architecture = entry.architecture
    return overview_row(entry) | {
        "aliases": list(entry.aliases),
        "model_type": architecture.model_type,
        "hidden_size": architecture.hidden_size,
        "vocab_size": architecture.vocab_size,
        "tie_word_embeddings": architecture.tie_word_embeddings,
        "layer_kinds": [
            {"layers": count, "mixer": layer.mixer, "ffn": layer.ffn}
            for layer, count in Counter(architecture.layers).items()
        ],
        "components": dict(architecture.components.most_common()),
        "mtp_components": dict(architecture.mtp_components.most_common()),
        "vision_params": architecture.vision_params,
        "active": active_params(architecture),
        "published": list(entry.published),
        "checkpoints": [_checkpoint_data(architecture, c) for c in entry.checkpoints],
        "provenance": entry.provenance,
    }


def _checkpoint_data(architecture: Architecture, checkpoint: Checkpoint) -> dict[str, Any]:
    from moeplan.models.storage import checkpoint_bytes

    return {
        "name": checkpoint.name,
        "repo": checkpoint.repo,
        "gb": checkpoint_bytes(architecture, checkpoint) / render.GB,
        "published_gb": checkpoint.published_gb,
        "published_grade": checkpoint.published_grade,
        "kv_format": checkpoint.kv_format,
        "formats": {c: checkpoint.formats(c) for c in architecture.components},
        "source": checkpoint.source,
        "layout_source": checkpoint.layout_source,
    }


def _show_detail(data: dict[str, Any]) -> None:
    render.print_line(f"{data['model']} ({data['hf_id'] or 'own file'})", bold=True)
    mtp = sum(data["mtp_components"].values())
    render.print_facts(
        {
            "total": _with_parts(data["total_params"], MTP=mtp, vision=data["vision_params"]),
            "active": f"{render.params(data['active_params'])} a token, embedding left out",
            "width": f"{data['hidden_size']:,}; vocabulary {data['vocab_size']:,}",
            "context": f"{data['max_position_embeddings']:,} tokens",
            "structure from": f"{data['provenance'].config} ({data['provenance'].grade})",
        }
    )
    _show_layers(data)
    _show_components(data)
    _show_checkpoints(data["checkpoints"])
    _show_published(data["published"])


def _with_parts(total: int, **parts: int) -> str:
    extra = [f"{render.params(count)} {name}" for name, count in parts.items() if count]
    return render.params(total) + (f" and {', '.join(extra)}" if extra else "")


def _show_layers(data: dict[str, Any]) -> None:
    render.print_table(
        [render.num("layers"), render.text("mixer"), render.text("feed-forward part")],
        [
            [str(row["layers"]), _part_text(row["mixer"]), _part_text(row["ffn"])]
            for row in data["layer_kinds"]
        ],
    )


def _part_text(part: Any) -> str:
    """A mixer or feed-forward part as its fields; those that are unset or off left out."""
    if part is None:
        return render.NOTHING
    fields = {name: value for name, value in render.plain(part).items() if name != "kind"}
    shown = [f"{name} {value}" for name, value in fields.items() if value not in (None, False, 0)]
    return f"{part.kind}: {', '.join(shown)}"


def _show_components(data: dict[str, Any]) -> None:
    render.print_table(
        [render.text("component", keep=True), render.num("weights"), render.num("share")],
        [
            [name, render.params(count), f"{count / data['total_params']:.1%}"]
            for name, count in data["components"].items()
        ],
    )


def _show_checkpoints(checkpoints: list[dict[str, Any]]) -> None:
    text, num = render.text, render.num
    sources = render.Footnotes()
    render.print_table(
        [text("checkpoint", keep=True), text("repository"), num("GB"), num("published GB"),
         text("grade", keep=True), text("KV", keep=True), num("source")],
        [
            [row["name"], row["repo"] or "hypothetical", render.number(row["gb"], 4),
             render.number(row["published_gb"], 4), row["published_grade"] or "",
             row["kv_format"],
             sources.mark(row["source"] or row["layout_source"] or "own config.json")]
            for row in checkpoints
        ],
    )  # fmt: skip
    sources.print("Sources")


def _show_published(published: list[Any]) -> None:
    for count in published:
        render.print_line(
            f"published {count.what}: {count.billions:g} B ({count.counts}; {count.source})"
        )
