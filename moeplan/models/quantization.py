"""From `quantization_config` (or ModelOpt's hf_quant_config.json) to a `Checkpoint`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from moeplan.errors import ModelConfigError
from moeplan.models.architecture import Architecture
from moeplan.models.checkpoint import Checkpoint
from moeplan.models.quantized_modules import (
    FormatOf,
    ModulePatterns,
    component_formats,
    draft_format,
)

SHORT_NAMES = {"fp8_block": "fp8", "int4_g32": "int4", "int4_g128": "int4"}
DTYPES = {"bfloat16": "bf16", "float16": "bf16", "float32": "fp32"}
"""16-bit types take the same bytes and go by one name."""
MODELOPT_FORMATS = {
    "FP8": "fp8",
    "FP8_PER_CHANNEL_PER_TOKEN": "fp8",
    "FP8_PB_WO": "fp8_block",
    "NVFP4": "nvfp4",
    "NVFP4_AWQ": "nvfp4",
    "W4A16_NVFP4": "nvfp4_a16",
    "W4A16_AWQ": "int4_g128",
    "W4A8_AWQ": "int4_g128",
}
INT4_GROUPS = {32: "int4_g32", 128: "int4_g128"}


def checkpoint_from_config(
    arch: Architecture, config: Mapping[str, Any], repo: str, where: str
) -> Checkpoint:
    """Checkpoint that a config.json describes: its quantisation, or else its dtype.

    `repo` names it (a repository or a folder), `where` is named in errors.

    Raises:
        ModelConfigError: no dtype, or a quantisation that is not modelled.
    """
    text = config.get("text_config")
    nested = text if isinstance(text, Mapping) else {}
    plain = _dtype(config, nested, where)
    quantization = config.get("quantization_config")
    if quantization is None:
        return Checkpoint(plain, repo, plain, layout_source=f"dtype of {where}")
    if not isinstance(quantization, Mapping):
        _refuse(where, "quantization_config", quantization, "must be an object")
    scheme = _Scheme(quantization, plain, where)
    layout = dict(component_formats(arch, scheme.format_of))
    draft = draft_format(arch, scheme.format_of)
    if draft == plain:
        layout["mtp"] = {plain: 1.0}
    main = _prevailing(arch, layout, plain)
    return Checkpoint(
        name=SHORT_NAMES.get(main, main),
        repo=repo,
        default_format=plain,
        layout={name: _simplified(shares) for name, shares in layout.items()},
        kv_format=_kv_format(quantization, where),
        layout_source=f"quantization_config of {where}",
    )


def _prevailing(arch: Architecture, layout: Mapping[str, Mapping[str, float]], plain: str) -> str:
    """The quantised format that holds most weights; it names the checkpoint."""
    weights: dict[str, float] = {}
    for component, shares in layout.items():
        for fmt, share in shares.items():
            if fmt != plain:
                count = arch.components.get(component, 0)
                weights[fmt] = weights.get(fmt, 0.0) + share * count
    return max(weights, key=weights.__getitem__, default=plain)


def _simplified(shares: dict[str, float]) -> str | dict[str, float]:
    return next(iter(shares)) if len(shares) == 1 else shares


def _dtype(config: Mapping[str, Any], nested: Mapping[str, Any], where: str) -> str:
    for values in (config, nested):
        for name in ("dtype", "torch_dtype"):
            stated = values.get(name)
            if stated is not None:
                if not isinstance(stated, str) or stated not in DTYPES:
                    _refuse(where, name, stated, f"must be one of {', '.join(DTYPES)}")
                return DTYPES[stated]
    if "quantization_config" in config:  # gpt-oss, MiniMax-M2: the rest is 16-bit
        return "bf16"
    remedy = 'weights cannot be sized without it; add "dtype": "bfloat16" (or what it is)'
    raise ModelConfigError(f"{where}: dtype is missing: {remedy}")


def _kv_format(q: Mapping[str, Any], where: str) -> Literal["bf16", "fp8"]:
    """KV scheme that the checkpoint asks for; silence means the model's 16-bit type."""
    algo, scheme = q.get("kv_cache_quant_algo"), q.get("kv_cache_scheme")
    if algo is None and scheme is None:
        return "bf16"
    if algo == "FP8":
        return "fp8"
    if isinstance(scheme, Mapping) and (scheme.get("type"), scheme.get("num_bits")) == ("float", 8):
        return "fp8"
    return _refuse(where, "KV cache scheme", algo or scheme, "only FP8 is modelled")


class _Scheme:
    """What one quantisation method does to a module, given every spelling of its name."""

    def __init__(self, q: Mapping[str, Any], plain: str, where: str):
        self._q, self._plain, self._where = q, plain, where
        method = q.get("quant_method")
        readers: dict[object, Callable[[], FormatOf]] = {
            "fp8": self._fp8,
            "fbgemm_fp8": lambda: self._everything("fp8"),
            "mxfp4": lambda: self._everything("mxfp4"),
            "gptq": self._int4,
            "awq": self._int4,
            "auto-round": self._int4,
            "modelopt": self._modelopt,
            "compressed-tensors": self._compressed_tensors,
        }
        if not isinstance(method, str) or method not in readers:
            known = ", ".join(str(name) for name in readers)
            _refuse(where, "quant_method", method, f"not modelled; known: {known}")
        self.format_of: FormatOf = readers[method]()

    def _everything(self, fmt: str, extra: Iterable[str] = ()) -> FormatOf:
        """Every module in one format but those that the exclusion lists name."""
        excluded = ModulePatterns([*self._excluded(), *extra], self._where)
        return lambda names: self._plain if excluded.match(names) else fmt

    def _excluded(self) -> list[str]:
        found: list[str] = []
        for name in ("modules_to_not_convert", "ignored_layers", "ignore", "exclude_modules"):
            listed = self._q.get(name) or []
            if not isinstance(listed, list):
                _refuse(self._where, name, listed, "must be a list of module names")
            found += listed
        return found

    def _objects(self, name: str, required: bool = False) -> Mapping[str, Mapping[str, Any]]:
        """An object of objects; empty where it is optional and left out."""
        found = self._q.get(name) or ({} if not required else None)
        whole = isinstance(found, Mapping) and all(isinstance(e, Mapping) for e in found.values())
        if not whole:
            _refuse(self._where, name, found, "must be an object with one object an entry")
        return found

    def _fp8(self) -> FormatOf:
        block = self._q.get("weight_block_size")
        if block not in (None, [128, 128]):
            _refuse(self._where, "weight_block_size", block, "only [128, 128] is modelled")
        return self._everything("fp8_block" if block else "fp8")

    def _int4(self) -> FormatOf:
        """GPTQ, AWQ and AutoRound; the first and the last list exceptions in their own ways."""
        bits = self._q.get("bits", self._q.get("w_bit"))
        if bits != 4:
            _refuse(self._where, "bits", bits, "only 4-bit weights are modelled")
        fmt = self._int4_format(self._q.get("group_size", self._q.get("q_group_size")))
        return self._everything(fmt, self._exceptions())

    def _exceptions(self) -> list[str]:
        dynamic, special = self._objects("dynamic"), self._objects("extra_config")
        left_out = ["re:" + name.removeprefix("-:") for name in dynamic if name.startswith("-:")]
        return left_out + [name for name, entry in special.items() if entry.get("bits") != 4]

    def _int4_format(self, group: object) -> str:
        if not isinstance(group, int) or group not in INT4_GROUPS:
            _refuse(self._where, "group_size", group, "only groups of 32 and 128 are modelled")
        return INT4_GROUPS[group]

    def _modelopt(self) -> FormatOf:
        algo = self._q.get("quant_algo")
        if algo == "MIXED_PRECISION":
            return self._by_layer()
        return self._everything(self._modelopt_format(algo))

    def _modelopt_format(self, algo: object) -> str:
        if not isinstance(algo, str) or algo not in MODELOPT_FORMATS:
            known = ", ".join(MODELOPT_FORMATS)
            _refuse(self._where, "quant_algo", algo, f"not modelled; known: {known}")
        return MODELOPT_FORMATS[algo]

    def _by_layer(self) -> FormatOf:
        """ModelOpt's mixed precision: only the modules of `quantized_layers` are quantised."""
        layers = self._objects("quantized_layers", required=True)
        groups: dict[str, list[str]] = {}
        for name, entry in layers.items():
            fmt = self._modelopt_format(entry.get("quant_algo"))
            groups.setdefault(fmt, []).append(name)
        return self._grouped(list(groups.items()))

    def _compressed_tensors(self) -> FormatOf:
        groups = self._objects("config_groups", required=True).values()
        return self._grouped([(self._weight_format(g.get("weights")), _targets(g)) for g in groups])

    def _grouped(self, groups: Sequence[tuple[str, list[str]]]) -> FormatOf:
        """The first group whose targets name the module ("Linear" names all)."""
        excluded = ModulePatterns(self._excluded(), self._where)
        targets = [
            (fmt, "Linear" in names, ModulePatterns(names, self._where)) for fmt, names in groups
        ]

        def format_of(names: Sequence[str]) -> str:
            if excluded.match(names):
                return self._plain
            hits = (fmt for fmt, every, named in targets if every or named.match(names))
            return next(hits, self._plain)

        return format_of

    def _weight_format(self, weights: object) -> str:
        if not isinstance(weights, Mapping):
            _refuse(self._where, "config_groups.weights", weights, "must be an object")
        kind, bits = weights.get("type"), weights.get("num_bits")
        group, block = weights.get("group_size"), weights.get("block_structure")
        if (kind, bits) == ("float", 8):
            return "fp8_block" if block == [128, 128] else "fp8"
        if (kind, bits, group) == ("float", 4, 16):
            return "nvfp4"
        if (kind, bits, group) == ("float", 4, 32):
            return "mxfp4"
        if (kind, bits) == ("int", 4):
            return self._int4_format(group)
        return _refuse(self._where, "config_groups.weights", dict(weights), "not modelled")


def _targets(group: Mapping[str, Any]) -> list[str]:
    """Targets of a group of compressed-tensors; none means every linear layer."""
    named = group.get("targets")
    return named if isinstance(named, list) else ["Linear"]


def _refuse(where: str, name: str, value: object, remedy: str) -> Any:
    raise ModelConfigError(f"{where}: {name} = {value!r}: {remedy}")
