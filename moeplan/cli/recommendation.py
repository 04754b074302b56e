"""A recommendation as data and as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moeplan.cli import render
from moeplan.cli.describe import assumptions, show_assumptions
from moeplan.cli.near import show_near
from moeplan.cli.simulate import INTERVAL, STATISTICS, latency_cells, latency_estimates
from moeplan.estimate import Estimate

if TYPE_CHECKING:
    from moeplan.calibration.trust import Trust
    from moeplan.hardware_specs import Hardware
    from moeplan.planner.recommendation import Candidate, Recommendation
    from moeplan.planner.search import Request
    from moeplan.speculation import Speculation

_GOALS = {
    "throughput": "highest throughput",
    "latency": "lowest mean end-to-end time",
    "cost": "lowest cost per output token",
}
MOST_RULES = 6
"""Rules of refusal that are printed."""
_MEMORY = {
    "weights": "weights",
    "activations": "activations",
    "cuda_graphs": "CUDA graphs",
    "kv_pool": "KV pool",
}


def recommendation_data(
    found: Recommendation, request: Request, hardware: Hardware, top: int
) -> dict[str, Any]:
    """Counts, winner, runners-up with what they lose by, and the Pareto front."""
    from moeplan.planner.money import hourly_cost
    from moeplan.planner.reasons import why_it_loses

    winner = found.winner
    cost = hourly_cost(hardware, winner.prepared.deployment.device, request.pricing)
    missing = sorted((c for c in found.simulated if c.missed), key=lambda c: -c.merit)
    others = _best_of_each((*found.ranked, *missing))[1 : top + 1]
    return {
        "objective": found.objective,
        "limits": [str(limit) for limit in found.limits],
        "workload": request.workload.model_dump(exclude={"trace"}, exclude_none=True),
        "counts": found.counts,
        "winner": _winner_data(winner) | {"price_basis": cost.basis if cost else None},
        "runners_up": [
            _row(c, c.trust) | {"why_not": why_it_loses(winner, c, found.objective)} for c in others
        ],
        "front": [_row(candidate, candidate.trust) for candidate in found.front],
        "simulated": [_row(candidate) for candidate in found.simulated],
    }


def _best_of_each(ranked: tuple[Candidate, ...]) -> list[Candidate]:
    """The first of each checkpoint and placement: its other settings are variants of it."""
    best: dict[tuple[str, str], Candidate] = {}
    for candidate in ranked:
        best.setdefault(candidate.family, candidate)
    return list(best.values())


def _row(candidate: Candidate, trust: Trust | None = None) -> dict[str, Any]:
    """One candidate in one line of figures, with intervals where `trust` gives them."""
    prepared, score = candidate.prepared, candidate.score
    if trust is None:
        from moeplan.calibration.trust import Trust

        trust = Trust(prepared.basis)
    deployment, engine = prepared.deployment, prepared.engine
    return {
        "checkpoint": deployment.checkpoint.name,
        "placement": str(deployment.placement),
        "gpus": deployment.placement.gpus,
        "options": _options(candidate),
        "kv_cache_dtype": engine.kv_format,
        "max_num_batched_tokens": engine.max_num_batched_tokens,
        "max_num_seqs": engine.max_num_seqs,
        "output_tok_s": trust.estimate(score.output_tok_s, "throughput"),
        "output_tok_s_per_gpu": trust.estimate(score.output_tok_s_per_gpu, "throughput"),
        "tok_s_per_user": trust.estimate(score.tok_s_per_user, "tpot", inverse=True),
        "latencies_s": {
            metric: latency_estimates(trust, metric, values)
            for metric, values in score.latencies.items()
        },
        "steady_ttft_s": _optional(score.steady_ttft_s, trust, "ttft"),
        "usd_per_million_output_tokens": _optional(
            score.usd_per_million_output_tokens, trust, "throughput", inverse=True
        ),
        "watts": trust.estimate(score.watts),
        "preemptions": score.preemptions,
    }


def _options(candidate: Candidate) -> dict[str, Any]:
    """What the other commands take to name this deployment, by long option."""
    prepared = candidate.prepared
    deployment, engine = prepared.deployment, prepared.engine
    placement = deployment.placement
    return {
        "checkpoint": deployment.checkpoint.repo or deployment.checkpoint.name,
        "gpus": placement.gpus,
        "tp": placement.tp,
        "pp": placement.pp,
        "ep": placement.ep,
        "replicas": placement.replicas,
        "router": deployment.router,
        "kv": engine.kv_format,
        "max_num_batched_tokens": engine.max_num_batched_tokens,
        "max_num_seqs": engine.max_num_seqs,
        **_drafting(engine.speculation),
    }


def _drafting(drafts: Speculation | None) -> dict[str, Any]:
    if drafts is None:
        return {}
    return {
        "speculative_method": drafts.method,
        "num_speculative_tokens": drafts.draft_tokens,
        "acceptance": f"{drafts.mean_tokens:g}"
        if drafts.draft_tokens == 1
        else ",".join(f"{rate:g}" for rate in drafts.acceptance),
    }


def _optional(
    value: float | None, trust: Trust, family: str, *, inverse: bool = False
) -> Estimate | None:
    return None if value is None else trust.estimate(value, family, inverse=inverse)


def _winner_data(winner: Candidate) -> dict[str, Any]:
    from moeplan.planner.launch import launch_commands
    from moeplan.planner.reasons import bottleneck, typical_shares

    return _row(winner, winner.trust) | {
        "deployment": assumptions(winner.prepared),
        "memory": winner.prepared.memory.to_dict(),
        "bottleneck": bottleneck(winner),
        "operators": typical_shares(winner),
        "commands": launch_commands(winner.prepared),
    }


def show_recommendation(data: dict[str, Any]) -> None:
    """Print everything, the winner first."""
    winner = data["winner"]
    show_assumptions(winner["deployment"])
    limits = f" among those that keep {' and '.join(data['limits'])}" if data["limits"] else ""
    render.print_line(f"Wins by the {_GOALS[data['objective']]}{limits}.")
    render.print_line(f"Bottleneck: {winner['bottleneck']}.")
    _show_figures(winner)
    _show_memory(winner["memory"])
    _show_rows("Runners-up", data["runners_up"], why=True)
    if not data["limits"]:
        _show_rows("Pareto front: tok/s a GPU against tok/s a user", data["front"], why=False)
    _show_counts(data["counts"])
    show_near(data["measured_runs"])
    render.print_line("Start it with", bold=True)
    for command in winner["commands"]:
        print(command)
    render.print_trust([winner["output_tok_s"]])


def _show_figures(winner: dict[str, Any]) -> None:
    price, basis = winner["usd_per_million_output_tokens"], winner["price_basis"]
    dollars = (
        f"{render.estimate(price)} ({basis})" if price else "no price known; --usd-per-gpu-hour"
    )
    render.print_facts(
        {
            "output tok/s": _with_interval(winner["output_tok_s"]),
            "a GPU": _with_interval(winner["output_tok_s_per_gpu"]),
            "a user": _with_interval(winner["tok_s_per_user"]),
            "$ a million output tokens": dollars,
            "GPU watts": render.estimate(winner["watts"]),
        }
    )
    text, num = render.text, render.num
    rows = [
        [metric.upper(), *latency_cells(values)] for metric, values in winner["latencies_s"].items()
    ]
    steady = render.estimate(winner["steady_ttft_s"], form=render.seconds)
    rows.insert(1, ["TTFT after the first wave", steady, "", "", "", ""])
    titles = [*(num(name) for name in STATISTICS), num(f"{INTERVAL} of the mean")]
    render.print_table([text("latency"), *titles], rows)


def _with_interval(figure: Estimate) -> str:
    shown = render.interval(figure)
    return render.estimate(figure) + (f"  ({INTERVAL} {shown})" if shown else "")


def _show_memory(memory: dict[str, Any]) -> None:
    parts = ", ".join(f"{label} {memory[f'{name}_gib']:.1f}" for name, label in _MEMORY.items())
    render.print_line(
        f"Memory of a GPU in GiB: {parts} of {memory['total_gib']:.1f}; the pool holds "
        f"{memory['kv_tokens']:,} tokens"
    )


def _show_rows(title: str, rows: list[dict[str, Any]], *, why: bool) -> None:
    text, num = render.text, render.num
    render.print_table(
        [text("form", keep=True), text("placement", keep=True), text("KV", keep=True),
         num("budget"), num("tok/s"), num("a GPU"), num("a user"), num("TTFT ms"), num("ITL ms"),
         *([text("loses by")] if why else [])],
        [_cells(row) + ([row["why_not"]] if why else []) for row in rows],
        title,
    )  # fmt: skip


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["checkpoint"],
        " ".join([row["placement"], *_drafter_name(row["options"])]),
        row["kv_cache_dtype"],
        f"{row['max_num_batched_tokens']:,}",
        render.estimate(row["output_tok_s"]),
        render.estimate(row["output_tok_s_per_gpu"]),
        render.estimate(row["tok_s_per_user"]),
        render.estimate(row["latencies_s"]["ttft"]["mean"], 1e3),
        render.estimate(row["latencies_s"]["itl"]["mean"], 1e3),
    ]


def _drafter_name(options: dict[str, Any]) -> list[str]:
    method = options.get("speculative_method")
    return [f"{method} {options['num_speculative_tokens']}"] if method else []


def _show_counts(counts: Any) -> None:
    refused = sum(counts.refused.values())
    render.print_line(
        f"{counts.built:,} deployments built: {refused:,} refused, {counts.duplicates:,} like "
        f"another, {counts.screened:,} screened out by a bound, {counts.simulated:,} simulated"
    )
    rules = sorted(counts.refused.items(), key=lambda rule: -rule[1])
    for rule, number in rules[:MOST_RULES]:
        render.print_line(f"  refused {number:,}: {rule}; such as {counts.refusal_examples[rule]}")
    if len(rules) > MOST_RULES:
        rest = sum(number for _, number in rules[MOST_RULES:])
        render.print_line(f"  refused {rest:,}: by {len(rules) - MOST_RULES} other rules")
