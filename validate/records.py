"""Measured runs as run records, with what the engine said of itself."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from moeplan.models import load_model
from moeplan.records.record import (
    ENGINE_OPTIONS,
    ClientProtocol,
    EngineFacts,
    RoutingCheck,
    RunRecord,
)
from moeplan.records.served import SERVED_BY
from moeplan.scenario import Scenario
from moeplan.validate.archive import unpack
from moeplan.validate.engine_log import LogFacts
from moeplan.validate.measured import MeasuredRun, Spread, read_store
from moeplan.validate.predict import resolved_scenario
from moeplan.validate.routing import counted_sigma
from moeplan.validate.workloads import ClosedLoop, LoadPoint, Poisson


def to_record(run: MeasuredRun, plan_folder: Path) -> RunRecord:
    """One stored run; figures are means over its clean repeats. Models are looked up as planned.

    Raises `UnknownNameError` where the plan names a model that is neither catalogued nor a folder.
    """
    scenario, facts = resolved_scenario(run.plan.scenario, plan_folder), run.facts
    measured = {name: spread.mean for name, spread in run.metrics.items()}
    if facts.kv_cache_tokens:
        measured["kv_cache_tokens"] = float(facts.kv_cache_tokens)
    if facts.weights_gib:
        measured["weights_gib"] = facts.weights_gib
    entry = load_model(scenario.model)
    stored = entry.checkpoint(scenario.checkpoint) if scenario.checkpoint else None
    return RunRecord.model_validate(
        {
            "id": f"moeplan-validate-{run.folder.key}",
            "source": {"title": SERVED_BY, "date": run.engine["started"][:10]},
            "engine": {
                "name": "vllm",
                "version": facts.version or scenario.engine_version,
                "flags": run.engine["options"],
            },
            "settings": _settings(run, scenario),
            "tool": "vllm bench serve",
            "model": run.plan.scenario.model,
            "architecture": entry.slug,
            "weight_format": (stored or entry.default_checkpoint).name,
            "kv_cache_format": None if scenario.kv == "auto" else scenario.kv,
            "hardware": scenario.device,
            "gpus": (scenario.tp or 1) * scenario.pp,
            "nodes": scenario.nodes or 1,
            "parallelism": {"tp": scenario.tp or 1, "pp": scenario.pp},
            "workload": client_protocol(run.run.load, measured),
            "measured": measured,
            "engine_facts": record_facts(facts, run.engine["cache_config"], _routing(run)),
            "notes": _notes(run),
        }
    )


def _settings(run: MeasuredRun, scenario: Scenario) -> dict[str, Any]:
    """Engine options that the plan sets, as the engine holds them."""
    held = scenario.settings()
    return {name: getattr(held, name) for name in ENGINE_OPTIONS if name in run.plan.deployment}


def archived_records(archive: Path, place: str) -> tuple[list[RunRecord], list[str]]:
    """Records of the usable runs of an archive, fit to be shared, and what was not used.

    `place` says where a reader finds the archive. Figures keep six digits; what only the host tells
    (paths, ports) is left out. Plans must name catalogued models.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "runs"
        unpack(archive, store)
        evidence = read_store(store)
        records = [_shared(to_record(run, store.parent), run, place) for run in evidence.runs]
    return records, [problem.replace(f"{store}/", "") for problem in evidence.problems]


def _shared(record: RunRecord, run: MeasuredRun, place: str) -> RunRecord:
    source = record.source.model_copy(update={"repo_or_site": "moeplan", "path": place})
    facts = record.engine_facts and record.engine_facts.model_copy(update={"other": {}})
    return record.model_copy(
        update={
            "id": run.folder.key,
            "source": source,
            "measured": {name: _short(v) for name, v in record.measured.items()},
            "engine_facts": facts,
        }
    )


def _short(value: float) -> float:
    """Six digits; counts stay whole."""
    return value if value.is_integer() else float(f"{value:.6g}")


def client_protocol(load: LoadPoint, measured: dict[str, float]) -> ClientProtocol:
    """What the benchmark sent; lengths of a trace are its means."""
    if isinstance(load, ClosedLoop):
        pace: dict[str, Any] = {"mode": "closed_loop", "concurrency": load.concurrency}
    elif isinstance(load, Poisson):
        pace = {"mode": "open_loop", "request_rate": load.rate, "burstiness": load.burstiness}
    else:
        return ClientProtocol(
            mode="open_loop",
            num_prompts=load.num_prompts,
            concurrency=load.max_concurrency,
            length_distribution="timed trace",
            **_mean_lengths(load.num_prompts, measured),
        )
    lengths = {"input_tokens": float(load.input_tokens), "output_tokens": float(load.output_tokens)}
    return ClientProtocol(num_prompts=load.num_prompts, routing="random", **lengths, **pace)


def _mean_lengths(requests: int, measured: dict[str, float]) -> dict[str, float]:
    """Mean lengths from the totals that throughput and duration imply."""
    duration = measured["duration_s"]
    outputs = measured["output_tok_s"] * duration
    inputs = measured["total_tok_s"] * duration - outputs
    return {"input_tokens": inputs / requests, "output_tokens": outputs / requests}


def _routing(run: MeasuredRun) -> RoutingCheck | None:
    """The check at the largest batch."""
    if not run.routing:
        return None
    largest = run.routing[-1]
    sigma = counted_sigma(run.routing, run.engine["routing"])
    return RoutingCheck(
        method=f"routers drawn with lognormal popularity, sigma {run.engine['routing']['sigma']:g}",
        batch_tokens=largest.batch_tokens,
        distinct_experts_mean=largest.distinct,
        expected_distinct_experts=largest.expected,
        sigma=None if sigma is None else round(sigma, 4),
    )


def record_facts(
    facts: LogFacts, cache: dict[str, str], routing: RoutingCheck | None = None
) -> EngineFacts:
    """The engine's own facts in the record's terms; what has no field of its own is in `other`."""
    named = {
        "version": facts.version,
        "weights_gib": facts.weights_gib,
        "kv_cache_gib": facts.kv_cache_gib,
        "kv_cache_tokens": facts.kv_cache_tokens,
        "num_gpu_blocks": int(cache["num_gpu_blocks"]) if cache.get("num_gpu_blocks") else None,
        "cuda_graph_gib": facts.cuda_graph_gib,
        "cuda_graph_sizes": list(facts.cuda_graph_sizes),
        "attention_backend": facts.attention_backend,
        "moe_backend": facts.moe_backend,
        "linear_backend": facts.linear_backend,
        "all_reduce_backend": ",".join(facts.all_reduce_backends) or None,
        "async_scheduling": facts.async_scheduling,
        "load_s": facts.load_seconds,
        "compile_s": facts.compile_seconds,
        "capture_s": facts.cuda_graph_seconds,
        "routing": routing,
    }
    rest = {
        key: value
        for key, value in facts.as_dict().items()
        if key not in EngineFacts.model_fields and value not in (None, (), [])
    }
    return EngineFacts.model_validate({**named, "other": rest})


def _notes(run: MeasuredRun) -> str:
    routing = "counted" if run.routing else "not counted"
    weights = "real weights" if run.plan.launch.model else f"dummy weights, routing {routing}"
    return f"{_repeats(run.metrics['output_tok_s'])}; {weights}; role in the plan: {run.run.role}"


def _repeats(throughput: Spread) -> str:
    """How often a run was repeated, and how far the repeats are apart where there are several."""
    if throughput.repeats == 1:
        return "1 repeat"
    return f"{throughput.repeats} repeats, throughput ±{throughput.half_range:.1%}"
