"""Steps and memory of an evidence folder beside what moeplan predicts for the same engines.

python -m moeplan.validate.gpu.compare_steps EVIDENCE_DIR

Engine settings, captured graph sizes, the routing that was checked and the host's time for a launch
are inputs; every other constant is that of the shipped hardware data. Times are of one engine step,
in seconds.
"""

from __future__ import annotations

import argparse
import ast
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from moeplan.cost.batch import StepBatch
from moeplan.cost.predictor import Prepared, prepare
from moeplan.cost.routing import distinct_experts
from moeplan.deployment import Cluster, Deployment, EngineSettings, Node, Placement
from moeplan.hardware_specs import Hardware, load_hardware
from moeplan.models import load_model
from moeplan.models.architecture import MoEFFN
from moeplan.validate.gpu.tables import Record, load, table

GIB = 2**30
MAX_MODEL_LEN = 40960
SETTINGS = EngineSettings(
    version="0.24.0",
    max_num_seqs=256,
    max_num_batched_tokens=8192,
    max_model_len=MAX_MODEL_LEN,
    gpu_memory_utilization=0.92,
    enable_prefix_caching=False,
)
"""What the measurement gave every engine (docs/gpu-evidence.md)."""
HOST = {"engines/vllm-0.14/host/launch_us": 12.4}
"""One plain launch on a host of this kind: a Triton kernel or a product of 16 rows called in a loop
with PyTorch 2.11 takes 12.4 us, an element-wise operator 8 us (measured apart from any engine)."""
LAUNCH_BOUND_TOKENS = 4096
"""Below it a step with prefill took the host longer to launch than the GPU to compute."""
COMPILATION_S = 0.5
"""A longer step of a prompt in chunks compiled a kernel: its neighbours take 0.4 s."""
_SIGMAS = np.arange(0.0, 2.0, 0.01)


@dataclass(frozen=True, slots=True)
class StepComparison:
    """One batch composition, measured and predicted."""

    engine: str
    """Model and storage."""
    routing: str
    kind: str
    decodes: int
    context: int
    """Mean cached tokens of the decodes."""
    prefill_tokens: int
    measured_s: float
    predicted_s: float
    compiled: bool
    """Whether a kernel was compiled meanwhile."""

    @property
    def ratio(self) -> float:
        """Predicted / measured."""
        return self.predicted_s / self.measured_s

    @property
    def launch_bound(self) -> bool:
        """Whether the step holds so short a prefill that launching its kernels took longest."""
        return 0 < self.prefill_tokens < LAUNCH_BOUND_TOKENS


@dataclass(frozen=True, slots=True)
class MemoryComparison:
    """One engine start: what vLLM's log said and what the memory map says."""

    engine: str
    weights_gib: tuple[float, float]
    """Measured, predicted."""
    kv_gib: tuple[float, float]
    kv_tokens: tuple[float, float]


def compare_steps(evidence: Path, hardware: Hardware) -> list[StepComparison]:
    """Every recorded batch composition of models with all their layers, in the order recorded."""
    engines = {(e["model"], e["format"]): e for e in load(evidence / "engines.jsonl")}
    checks = load(evidence / "routing.jsonl")
    hardware = hardware.with_overrides(HOST)
    tables: dict[tuple[str, str, str], Prepared] = {}
    found = []
    for row in load(evidence / "steps.jsonl"):
        key = (row["model"], row["format"], row["routing"])
        if key not in tables:
            sigma = checked_sigma(checks, *key)
            tables[key] = prepare_engine(engines[key[:2]], hardware, sigma)
        found.append(_compared(row, tables[key]))
    return found


def compare_memory(evidence: Path, hardware: Hardware) -> list[MemoryComparison]:
    """Every engine start, one a model and storage."""
    engines = {(e["model"], e["format"]): e for e in load(evidence / "engines.jsonl")}
    return [_memory(engine, prepare_engine(engine, hardware, 0.0)) for engine in engines.values()]


def engine_deployment(engine: Record, hardware: Hardware) -> Deployment:
    """The deployment of one engine start, with the graph sizes that its log names."""
    entry = load_model(engine["model"])
    stored = {"fp8_block": "fp8"}.get(engine["format"], engine["format"])
    device = hardware.devices[engine["device"]]
    sizes = tuple(ast.literal_eval(engine["facts"]["capture_sizes"]))
    return Deployment(
        entry.architecture,
        entry.checkpoint(stored),
        Cluster((Node(device.id, 1),), device.intra_node_fabric, device.inter_node_fabric),
        Placement(),
        engine=replace(SETTINGS, cudagraph_capture_sizes=sizes),
    )


def prepare_engine(engine: Record, hardware: Hardware, sigma: float) -> Prepared:
    """The deployment of one engine start, prepared for its longest sequences."""
    return prepare(engine_deployment(engine, hardware), hardware, MAX_MODEL_LEN, sigma)


def checked_sigma(checks: Iterable[Record], model: str, fmt: str, routing: str) -> float:
    """Spread of expert popularity that best gives the distinct experts that were counted.

    0 for uniform routing (checked to 2 %) and for dense models.
    """
    if routing != "skewed":
        return 0.0
    key = (model, fmt, routing)
    counted = tuple(
        (check["tokens"], check["distinct_mean"])
        for check in checks
        if (check["model"], check["format"], check["routing"]) == key
    )
    return _best_sigma(model, counted)


@lru_cache
def _best_sigma(model: str, counted: tuple[tuple[int, float], ...]) -> float:
    layers = load_model(model).architecture.layers
    ffn = next(layer.ffn for layer in layers if isinstance(layer.ffn, MoEFFN))
    tokens, distinct = (np.array(column, dtype=float) for column in zip(*counted, strict=True))

    def miss(sigma: float) -> float:
        expected = distinct_experts(ffn.num_experts, ffn.num_experts_per_tok, sigma, tokens)
        return float(np.square(np.log(expected / distinct)).sum())

    return float(min(_SIGMAS, key=miss))


def _compared(row: Record, prepared: Prepared) -> StepComparison:
    contexts = [round(row["mean_context"])] * row["decodes"]
    chunks = [tuple(chunk) for chunk in row["chunks"]]
    steps = [[chunk] for chunk in chunks] if row["kind"] == "prompt_in_chunks" else [chunks]
    timer = prepared.timer
    batches = [StepBatch(contexts, step, len(contexts) + len(step)) for step in steps]
    return StepComparison(
        engine=f"{row['model']} {row['format']}",
        routing=row["routing"],
        kind=row["kind"],
        decodes=row["decodes"],
        context=round(row["mean_context"]),
        prefill_tokens=sum(new for new, _ in chunks),
        measured_s=row["seconds"],
        predicted_s=sum(timer.step_seconds(batch) for batch in batches),
        compiled=row.get("longest_step", 0.0) > COMPILATION_S,
    )


def _memory(engine: Record, prepared: Prepared) -> MemoryComparison:
    facts, memory = engine["facts"], prepared.memory
    return MemoryComparison(
        f"{engine['model']} {engine['format']}",
        (float(facts["weights_gib"]), memory.usage.parts["weights"] / GIB),
        (float(facts["kv_gib"]), memory.kv_pool / GIB),
        (float(facts["kv_tokens"].replace(",", "")), float(memory.capacity.tokens)),
    )


# ------------------------------------------------------------------ tables


def summary_table(steps: Sequence[StepComparison]) -> str:
    """Errors by kind of step, long prefills apart from those that the host bounds."""
    groups: dict[str, list[StepComparison]] = {}
    for step in steps:
        groups.setdefault(_group(step), []).append(step)
    rows = [[name, *_errors(members)] for name, members in groups.items()]
    return table(["steps", "n", "median error", "p90 error", "bias"], rows)


def _group(step: StepComparison) -> str:
    if step.kind == "decode":
        return f"decode, {step.routing} routing"
    name = {"prefill": "a lone prompt", "mixed": "a chunk beside 32 decodes"}.get(step.kind)
    if name is None:
        compiled = ", a kernel compiled meanwhile" if step.compiled else ""
        return f"a prompt of 32,000 tokens in chunks{compiled}"
    bound = "below" if step.launch_bound else "from"
    return f"{name}, {bound} {LAUNCH_BOUND_TOKENS:,} tokens"


def engine_table(steps: Sequence[StepComparison]) -> str:
    """Errors of decode steps by engine and routing."""
    groups: dict[tuple[str, str], list[StepComparison]] = {}
    for step in steps:
        if step.kind == "decode":
            groups.setdefault((step.engine, step.routing), []).append(step)
    rows = [[*key, *_errors(members)] for key, members in groups.items()]
    return table(["engine", "routing", "n", "median error", "p90 error", "bias"], rows)


def _errors(steps: Sequence[StepComparison]) -> list[str]:
    errors = [abs(step.ratio - 1) for step in steps]
    bias = statistics.median(np.log([step.ratio for step in steps]))
    return [
        str(len(steps)),
        f"{statistics.median(errors):.1%}",
        f"{np.percentile(errors, 90):.1%}",
        f"{bias:+.3f}",
    ]


def prompt_table(steps: Sequence[StepComparison]) -> str:
    """Lone prompts: engines down, tokens across, milliseconds measured and the error."""
    alone = [step for step in steps if step.kind == "prefill"]
    sizes = sorted({step.prefill_tokens for step in alone})
    cells = {
        (s.engine, s.prefill_tokens): f"{s.measured_s * 1e3:.1f}, {s.ratio - 1:+.0%}" for s in alone
    }
    engines = dict.fromkeys(step.engine for step in alone)
    rows = [[engine, *(cells.get((engine, size), "") for size in sizes)] for engine in engines]
    return table(["engine", *(f"{size:,}" for size in sizes)], rows)


def step_table(steps: Sequence[StepComparison]) -> str:
    """Every step: composition, milliseconds measured and predicted, error."""
    rows = [
        [s.engine, s.routing, s.kind, s.decodes, f"{s.context:,}", f"{s.prefill_tokens:,}",
         f"{s.measured_s * 1e3:.2f}", f"{s.predicted_s * 1e3:.2f}", f"{s.ratio - 1:+.1%}"]
        for s in steps
    ]  # fmt: skip
    head = ["engine", "routing", "kind", "decodes", "context", "prefill tokens", "measured ms"]
    return table([*head, "predicted ms", "error"], rows)


def memory_table(engines: Sequence[MemoryComparison]) -> str:
    """Weights, KV pool and KV tokens of each engine, measured → predicted."""
    rows = [
        [
            e.engine,
            "{:.2f} → {:.2f}".format(*e.weights_gib),
            "{:.2f} → {:.2f}".format(*e.kv_gib),
            "{:,.0f} → {:,.0f}".format(*e.kv_tokens),
            f"{e.kv_tokens[1] / e.kv_tokens[0] - 1:+.1%}",
        ]
        for e in engines
    ]
    return table(["engine", "weights GiB", "KV pool GiB", "KV tokens", "error of KV tokens"], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print all tables of one evidence folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("evidence", type=Path, help="for example validate/evidence/2026-11-27-h100")
    evidence, hardware = parser.parse_args(arguments).evidence, load_hardware()
    if not (evidence / "steps.jsonl").is_file():
        parser.error(f"{evidence} holds no steps.jsonl; name an evidence folder of the source tree")
    steps = compare_steps(evidence, hardware)
    for title, text in (
        ("Steps", step_table(steps)),
        ("Errors by kind of step", summary_table(steps)),
        ("Decode steps by engine", engine_table(steps)),
        ("Lone prompts by tokens (ms measured, error)", prompt_table(steps)),
        ("Memory", memory_table(compare_memory(evidence, hardware))),
    ):
        print(f"### {title}\n\n{text}\n")


if __name__ == "__main__":
    main()
