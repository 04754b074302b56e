"""The catalogue of models, and `load_model` for catalogued and own ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from moeplan.errors import ModelConfigError, UnknownNameError
from moeplan.models.architecture import Architecture
from moeplan.models.checkpoint import Checkpoint
from moeplan.models.config import CONFIG_NAME, architecture_from_config, load_config, read_json
from moeplan.models.quantization import checkpoint_from_config
from moeplan.models.storage import UNIFORM_FORMATS, uniform_checkpoint

FOLDER = Path(__file__).parent / "catalogue"
MODELOPT_NAME = "hf_quant_config.json"


@dataclass(frozen=True, slots=True)
class PublishedCount:
    """A parameter count as its publisher states it."""

    what: str
    """"total" or "active"."""
    billions: float
    counts: str
    """What it covers: "main", "main+mtp", "main+vision", "main+mtp+vision" for totals; a key of
    `counting.active_params` for active counts."""
    source: str


@dataclass(frozen=True, slots=True)
class ModelProvenance:
    """Where the structure of a model was read."""

    grade: str
    """"verified": every field from the published config.json; "derived": put together from several
    sources; "own file": the user's."""
    config: str
    structure: str = ""
    check: str = ""


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model with its checkpoints.

    `default_repo` is the repository that was asked for, where a checkpoint was named.
    """

    architecture: Architecture
    hf_id: str | None
    aliases: tuple[str, ...]
    checkpoints: tuple[Checkpoint, ...]
    published: tuple[PublishedCount, ...]
    provenance: ModelProvenance
    default_repo: str | None = None

    @property
    def slug(self) -> str:
        """Short name of the architecture."""
        return self.architecture.slug

    @property
    def default_checkpoint(self) -> Checkpoint:
        """The checkpoint that was asked for by repository, else the model's own first one."""
        named = (c for c in self.checkpoints if c.repo == self.default_repo)
        return next(named, self.checkpoints[0])

    def checkpoint(
        self, name: str, repo: str | None = None, hypothetical: bool = False
    ) -> Checkpoint:
        """A checkpoint by short name ("bf16", "fp8", "nvfp4", "mxfp4", "int4") or repository.

        Of several with one name the first counts, unless `repo` picks another. With `hypothetical`
        a format that nobody published gives the uniform re-quantisation.

        Raises:
            UnknownNameError: not published (lists those that are).
        """
        wanted = {x.casefold() for x in (name, repo) if x is not None}
        for ckpt in self.checkpoints:
            if wanted <= {ckpt.name.casefold(), (ckpt.repo or "").casefold()}:
                return ckpt
        if hypothetical and repo is None and name.casefold() in UNIFORM_FORMATS:
            return self.hypothetical(name)
        asked = name if repo is None else f"{name} in {repo}"
        published = ", ".join(f"{c.name} ({c.repo})" for c in self.checkpoints)
        remedy = f"published: {published}; any other format only as a hypothetical one"
        names = {c.name for c in self.checkpoints} | {c.repo for c in self.checkpoints if c.repo}
        raise UnknownNameError(f"checkpoint of {self.slug}", asked, sorted(names), remedy=remedy)

    def hypothetical(self, name: str) -> Checkpoint:
        """The uniform re-quantisation of this model to a format; `repo` is None.

        Raises:
            UnknownNameError: no such format.
        """
        return uniform_checkpoint(name.casefold())


def list_models() -> tuple[str, ...]:
    """Slugs of the catalogued models, MoE families first."""
    return tuple(_documents())


def load_model(name_or_path: str | Path) -> ModelEntry:
    """A model by slug, Hugging Face id (also of a sibling or a checkpoint), file or folder.

    Names are matched without case; the catalogue comes before files.

    Raises:
        UnknownNameError: neither a catalogued name nor a file; carries the nearest names.
        ModelConfigError: the file is no config.json that moeplan can read.
    """
    name = str(name_or_path)
    place = _index().get(name.casefold())
    if place is not None:
        return _catalogued(*place)
    path = Path(name_or_path).expanduser()
    if path.exists() or path.suffix == ".json" or name.startswith((".", "/", "~")):
        return _own(path)
    raise UnknownNameError("model", name, _known_names(), "`moeplan models`")


# -------------------------------------------------------------- catalogued


@cache
def _documents() -> dict[str, dict[str, Any]]:
    files = [read_json(file) for file in FOLDER.glob("*.json")]
    return {doc["slug"]: doc for doc in sorted(files, key=lambda doc: doc["order"])}


@cache
def _index() -> dict[str, tuple[str, str, str | None]]:
    """From a case-folded name to (slug, Hugging Face id, repository of the named checkpoint)."""
    index: dict[str, tuple[str, str, str | None]] = {}
    for slug, doc in _documents().items():
        index.setdefault(slug.casefold(), (slug, doc["hf_id"], None))
        for name, place in _places(slug, doc):
            index.setdefault(name.casefold(), place)
    return index


def _places(slug: str, doc: dict[str, Any]) -> Iterator[tuple[str, tuple[str, str, str | None]]]:
    """Repositories of a model; siblings before the model's own list, which may borrow theirs."""
    models = [*doc["variants"], doc]
    for model in models:
        yield model["hf_id"], (slug, model["hf_id"], None)
    for model in models:
        for stored in model["checkpoints"]:
            yield stored["repo"], (slug, model["hf_id"], stored["repo"])


def _known_names() -> list[str]:
    names = list(_documents())
    for slug, doc in _documents().items():
        names += [name for name, _ in _places(slug, doc)]
    return list(dict.fromkeys(names))


@cache
def _catalogued(slug: str, hf_id: str, repo: str | None) -> ModelEntry:
    doc = _documents()[slug]
    model = next(m for m in (doc, *doc["variants"]) if m["hf_id"] == hf_id)
    config = doc["config"] if model is doc else doc["config"] | model.get("config", {})
    repos = {stored["repo"] for m in (doc, *doc["variants"]) for stored in m["checkpoints"]}
    aliases = {m["hf_id"] for m in doc["variants"]} | repos
    return ModelEntry(
        architecture=architecture_from_config(config, slug),
        hf_id=hf_id,
        aliases=tuple(sorted(aliases - {hf_id})),
        checkpoints=tuple(_checkpoint(stored, doc) for stored in model["checkpoints"]),
        published=tuple(PublishedCount(**count) for count in doc["published"]),
        provenance=_provenance(doc, model),
        default_repo=repo,
    )


def _provenance(doc: dict[str, Any], model: dict[str, Any]) -> ModelProvenance:
    found = ModelProvenance(**doc["provenance"])
    if model is doc:
        return found
    return replace(found, check=f"sibling of {doc['hf_id']}: {model['source']}")


def _checkpoint(stored: dict[str, Any], doc: dict[str, Any]) -> Checkpoint:
    """A stored checkpoint; `like` takes name and layout from one of the model's own list."""
    if "like" not in stored:
        return Checkpoint(**stored)
    base = next(c for c in doc["checkpoints"] if c["repo"] == stored["like"])
    own = {key: value for key, value in stored.items() if key != "like"}
    if "like" in base:
        return replace(_checkpoint(base, doc), **own)
    sizes = {"published_gb": None, "published_grade": None, "source": None}
    same = stored["repo"] == stored["like"]
    inherited = {} if same else sizes | {"layout_source": f"as {base['repo']}"}
    return Checkpoint(**(base | inherited | own))


# ---------------------------------------------------------- the user's own


def _own(path: Path) -> ModelEntry:
    config = load_config(path)
    folder = path if path.is_dir() else path.parent
    resolved = folder.resolve()
    slug = path.stem if path.is_file() and path.name != CONFIG_NAME else resolved.name
    architecture = architecture_from_config(config, slug)
    stored = checkpoint_from_config(
        architecture, _with_modelopt(config, folder), str(path), str(path)
    )
    return ModelEntry(
        architecture=architecture,
        hf_id=None,
        aliases=(),
        checkpoints=(stored,),
        published=(),
        provenance=ModelProvenance("own file", str(path)),
    )


def _with_modelopt(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The config, completed by the quantisation file that older ModelOpt exports put beside it."""
    file = folder / MODELOPT_NAME
    if "quantization_config" in config or not file.is_file():
        return config
    document = read_json(file)
    if not isinstance(document, dict) or not isinstance(document.get("quantization"), dict):
        raise ModelConfigError(f"{file}: quantization is missing: must be an object")
    return config | {
        "quantization_config": {"quant_method": "modelopt", **document["quantization"]}
    }
