"""Groups of inputs that several pages share."""

from __future__ import annotations

from contextlib import suppress

import streamlit as st

from moeplan.cli.recommend import PlanOptions
from moeplan.cli.traffic import TrafficOptions
from moeplan.errors import MoeplanError
from moeplan.hardware_specs import Hardware
from moeplan.models.storage import UNIFORM_FORMATS
from moeplan.scenario import EngineOptions, MachineOptions, PlacementOptions
from moeplan.ui.presets import PRESETS, matching
from moeplan.ui.resources import hardware, model, model_names
from moeplan.ui.state import Inputs
from moeplan.ui.uploads import MOST_CONFIG_BYTES, kept, upload
from moeplan.ui.widgets import UNSET, choice, ladder, option, text

ANY = "all published"
CONCURRENCY = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
USUAL_FABRIC = "the machine's usual"
_ENGINE = {
    "kv": "KV cache format",
    "max_num_batched_tokens": "Token budget of a step",
    "max_num_seqs": "Sequences at once",
    "max_model_len": "Longest sequence",
    "gpu_memory_utilization": "Share of GPU memory",
    "enable_prefix_caching": "Prefix caching",
    "mixed_prefill": "Prefill and decode share steps",
    "enforce_eager": "No CUDA graphs",
    "speculative_method": "Speculative decoding",
    "num_speculative_tokens": "Draft tokens a step",
    "acceptance": "Acceptance of drafts",
    "engine": "Engine",
    "engine_version": "Engine version",
    "kernel": "Kernel family",
}


def model_inputs(inputs: Inputs, *, any_checkpoint: bool = False) -> None:
    """Model from the catalogue or an uploaded config.json, and the form of its weights."""
    names = model_names()
    own = inputs.get("model")
    if kept(own):
        st.text_input("Model", kept(own).name, disabled=True)
    else:
        choice(inputs, "model", "Model", names, help="Type to search the catalogue.")
    with st.popover("Own config.json", icon=":material/upload_file:"):
        upload(inputs, "model", "config.json of a model", "config.json", MOST_CONFIG_BYTES)
    _checkpoint(inputs, any_checkpoint)


def _checkpoint(inputs: Inputs, any_checkpoint: bool) -> None:
    published: list[str] = []
    with suppress(MoeplanError):  # the answer of the page says what is wrong with the model
        forms = model(inputs.get("model")).checkpoints
        published = list(dict.fromkeys(form.name for form in forms))
    others = [name for name in sorted(UNIFORM_FORMATS) if name not in published]
    first = ANY if any_checkpoint else UNSET
    given = inputs.get("checkpoint")
    extra = [given] if "/" in given else []  # a repository, from a link or a recommendation
    choice(
        inputs,
        "checkpoint",
        "Weights",
        [first, *extra, *published, *others],
        shown=lambda w: f"{w} (hypothetical)" if w in others else _weights_name(w),
        unset=first,
        help=MachineOptions.model_fields["checkpoint"].description,
    )


def _weights_name(word: str) -> str:
    return "the model's own" if word == UNSET else word


def machine_inputs(inputs: Inputs, gpus_label: str = "GPUs in all") -> None:
    """Device, count and fabric."""
    known = hardware()
    choice(
        inputs,
        "device",
        "GPU",
        list(known.devices),
        shown=lambda device: device_name(known, device),
        help="Type to search.",
    )
    option(inputs, MachineOptions, "gpus", gpus_label)
    fabric_input(inputs, known)


def fabric_input(inputs: Inputs, known: Hardware) -> None:
    """Link between or inside the nodes."""
    choice(
        inputs,
        "fabric",
        "Fabric",
        [USUAL_FABRIC, *known.fabrics],
        shown=lambda f: known.fabrics[f].name if f in known.fabrics else f,
        unset=USUAL_FABRIC,
        help=MachineOptions.model_fields["fabric"].description,
    )


def device_name(known: Hardware, device: str) -> str:
    """Id and memory of a device."""
    memory = known.devices[device].memory
    return f"{device} · {memory.visible_gib.value:.0f} GiB" if device in known.devices else device


def placement_inputs(inputs: Inputs) -> None:
    """How a model is spread over the GPUs."""
    left, right = st.columns(2)
    with left:
        option(inputs, PlacementOptions, "tp", "TP")
        option(inputs, PlacementOptions, "replicas", "Replicas")
    with right:
        option(inputs, PlacementOptions, "pp", "PP")
        option(inputs, PlacementOptions, "ep", "EP")


def pin_inputs(inputs: Inputs) -> None:
    """Placements that the search may not vary."""
    columns = st.columns(3)
    labels = {"tp": "TP", "pp": "PP", "replicas": "Replicas"}
    for column, (name, label) in zip(columns, labels.items(), strict=True):
        with column:
            option(inputs, PlanOptions, name, label)


def traffic_inputs(inputs: Inputs, *, sweep: bool = False, output: bool = True) -> None:
    """Lengths and arrivals; `sweep` takes several loads.

    Without `output` each model has answers of its own length, and there is no trace.
    """
    if output:
        preset_input(inputs)
    left, right = st.columns(2)
    with left:
        option(inputs, TrafficOptions, "input", "Prompt tokens")
    if output:
        with right:
            option(inputs, TrafficOptions, "output", "Output tokens")
    arrivals = choice(
        inputs,
        "arrivals",
        "Arrivals",
        [word for word in ARRIVALS if output or word != "trace"],
        shown=lambda word: ARRIVALS[word],
        unset="closed",
        help=TrafficOptions.model_fields["arrivals"].description,
    )
    _load(inputs, arrivals, sweep)
    with st.expander("More about the traffic"):
        for name, label in _MORE_TRAFFIC.items():
            option(inputs, TrafficOptions, name, label)
        if output:
            upload(inputs, "trace", "Recorded requests (JSON lines)", "trace.jsonl")


ARRIVALS = {
    "closed": "always N in flight",
    "poisson": "Poisson, at a rate",
    "gamma": "gamma gaps, at a rate",
    "rounds": "N at once, wait, repeat",
    "offline": "all at once",
    "trace": "times of a trace",
}
_MORE_TRAFFIC = {
    "shared_prefix": "Shared leading tokens",
    "range_ratio": "Spread of lengths",
    "burstiness": "Burstiness of gamma gaps",
    "num_prompts": "Requests in all",
    "routing": "Kind of text",
    "seed": "Seed",
}


def _load(inputs: Inputs, arrivals: str, sweep: bool) -> None:
    """Concurrency or rate, whichever these arrivals take; the other is dropped."""
    at_a_rate, closed = arrivals in ("poisson", "gamma"), arrivals in ("closed", "rounds")
    if not at_a_rate:
        inputs.change({"rate": None})
    if not closed:
        inputs.change({"concurrency": None})
    if at_a_rate:
        inputs.put("rate", inputs.get("rate", "1"))
        text(inputs, "rate", "Requests a second" + (", with commas" if sweep else ""))
    elif closed and sweep:
        text(inputs, "concurrency", "Concurrencies, with commas")
    elif closed:
        ladder(inputs, "concurrency", "Concurrency", CONCURRENCY)


def preset_input(inputs: Inputs) -> None:
    """Typical workloads at a click."""
    key = inputs.key("preset")
    st.session_state[key] = matching(inputs.words)

    def choose() -> None:
        name = st.session_state[key]
        if name:
            inputs.change(PRESETS[name])

    st.pills("Workload", list(PRESETS), key=key, on_change=choose)


def limit_inputs(inputs: Inputs) -> None:
    """Service-level objectives; empty ones set no limit."""
    labels = {"ttft": "TTFT", "itl": "ITL", "tpot": "TPOT", "e2e": "End to end"}
    columns = st.columns(2)
    for index, (name, label) in enumerate(labels.items()):
        with columns[index % 2]:
            text(inputs, name, label, placeholder="none", help=_LIMIT_HELP)


_LIMIT_HELP = "Such as 2s, 300ms or p99:4s; the mean unless said."


def price_inputs(inputs: Inputs) -> None:
    """What a GPU costs."""
    labels = {
        "usd_per_gpu_hour": "Rent, $ per GPU-hour",
        "purchase_usd": "Or purchase, $ per GPU",
        "years": "Written off over years",
        "usd_per_kwh": "$ per kWh, for owned GPUs",
    }
    for name, label in labels.items():
        option(inputs, PlanOptions, name, label)


def engine_inputs(inputs: Inputs) -> None:
    """Engine settings under vLLM's names."""
    for name, label in _ENGINE.items():
        option(inputs, EngineOptions, name, label)


def deployment_inputs(inputs: Inputs) -> None:
    """One deployment in full."""
    model_inputs(inputs)
    machine_inputs(inputs)
    placement_inputs(inputs)
    with st.expander("Engine settings"):
        engine_inputs(inputs)
