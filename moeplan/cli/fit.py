"""`moeplan fit`: what lies in a GPU's memory, and how many sequences fit beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moeplan.cli import render
from moeplan.cli.describe import assumptions, show_assumptions, show_settings
from moeplan.cli.options import CalibrationFile, JsonFlag, with_options
from moeplan.cli.session import prepare_scenario, read_hardware
from moeplan.estimate import Basis, Estimate
from moeplan.scenario import Scenario, build_deployment

if TYPE_CHECKING:
    from moeplan.cost.memory import MemoryMap
    from moeplan.cost.predictor import Prepared
    from moeplan.hardware_specs.schema import Hardware

SHORTEST = 1024
BASIS: Basis = "first principles"
"""Memory is counted from the architecture; what vLLM's buffers take is estimated."""
PARTS = {
    "weights": "weights",
    "activations": "activations",
    "workspaces": "workspaces",
    "cuda_graphs": "CUDA graphs",
    "kv_pool": "KV pool, recurrent state included",
    "remainder": "requested, left over",
    "context": "CUDA context and communicators",
    "outside": "free",
}
"""Parts of a GPU's memory, in the order of printing."""


@with_options
def fit(scenario: Scenario, calibration: CalibrationFile = None, as_json: JsonFlag = False) -> None:
    """Show the memory map and what fits.

    Without --max-model-len sequences may be as long as the model allows, as in vLLM.
    """
    render.emit(fit_answer(scenario, read_hardware(calibration)), as_json, _show)


def fit_answer(scenario: Scenario, hardware: Hardware) -> dict[str, Any]:
    """The memory map for sequences as long as asked for, or as the model allows."""
    limit = build_deployment(scenario, hardware).architecture.max_position_embeddings
    return fit_data(prepare_scenario(scenario, hardware, scenario.max_model_len or limit))


def fit_data(prepared: Prepared) -> dict[str, Any]:
    """Memory map in GiB a GPU, and sequences by length, of one replica."""
    memory = prepared.memory
    replicas = prepared.deployment.placement.replicas
    return {
        "deployment": assumptions(prepared),
        "memory": {name: _figure(name, value) for name, value in memory.to_dict().items()},
        "in_request": sorted({*memory.inside, "kv_pool", "remainder"}),
        "sequences": [
            {
                "tokens": length,
                "sequences": memory.sequences(length),
                "sequences_all_replicas": memory.sequences(length) * replicas,
                "runnable": min(memory.sequences(length), prepared.engine.max_num_seqs),
            }
            for length in _lengths(memory)
        ],
    }


def _lengths(memory: MemoryMap) -> list[int]:
    """Powers of two from `SHORTEST` up to the longest sequence, and that one."""
    lengths, length = [], SHORTEST
    while length < memory.max_model_len:
        lengths.append(length)
        length *= 2
    return [*lengths, memory.max_model_len]


def _figure(name: str, value: Any) -> Any:
    """Predicted sizes are estimates; what the user set stays a number."""
    if isinstance(value, dict):
        return {part: _figure(name, size) for part, size in value.items()}
    return Estimate(float(value), BASIS) if "gib" in name else value


def _show(data: dict[str, Any]) -> None:
    memory, inside = data["memory"], data["in_request"]
    show_assumptions(data["deployment"])
    text, num = render.text, render.num
    rows = [
        [label, render.estimate(memory[f"{name}_gib"], form=_gib), "yes" if name in inside else ""]
        for name, label in PARTS.items()
    ]
    rows.append(["what the engine takes", _gib(memory["requested_gib"].value), ""])
    rows.append(["what the engine sees", _gib(memory["total_gib"].value), ""])
    render.print_table([text("on one GPU"), num("GiB"), text("in the request")], rows, _title(data))
    render.print_table(
        [text("weights"), num("GiB")],
        [
            [name, render.estimate(figure, form=_gib)]
            for name, figure in sorted(memory["weights_by_component_gib"].items(), key=_descending)
        ],
    )
    _show_capacity(data)
    show_settings(data["deployment"])
    render.print_trust([memory["kv_pool_gib"]])


def _gib(value: float) -> str:
    return f"{value:,.2f}"


def _descending(item: tuple[str, Estimate]) -> float:
    return -item[1].value


def _title(data: dict[str, Any]) -> str:
    stages = data["deployment"]["placement"]["pp"]
    return f"Memory of a GPU of stage {data['memory']['stage']}" if stages > 1 else "Memory"


def _show_capacity(data: dict[str, Any]) -> None:
    memory = data["memory"]
    render.print_line(
        f"KV pool of one replica: {memory['kv_tokens']:,} tokens in {memory['kv_blocks']:,} blocks "
        f"of {memory['kv_block_tokens']:,}; {memory['max_concurrency']:.2f} sequences of "
        f"{memory['max_model_len']:,} tokens"
    )
    state = memory["state_gib_per_sequence"]
    if state.value:
        render.print_line(f"recurrent state: {render.estimate(state, 1024)} MiB a sequence")
    text, num = render.text, render.num
    replicas = data["deployment"]["placement"]["replicas"]
    several = [num("in all replicas")] if replicas > 1 else []
    render.print_table(
        [text("tokens a sequence"), num("fit at once"), num("and may run"), *several],
        [
            [f"{row['tokens']:,}", f"{row['sequences']:,}", f"{row['runnable']:,}",
             *([f"{row['sequences_all_replicas']:,}"] if several else [])]
            for row in data["sequences"]
        ],
    )  # fmt: skip
