"""What a prediction assumed: model, checkpoint, machine, placement, engine settings, kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moeplan.cli import render

if TYPE_CHECKING:
    from moeplan.cost.predictor import Prepared
    from moeplan.deployment import Deployment

SETTINGS = (
    "max_num_batched_tokens",
    "max_num_seqs",
    "max_model_len",
    "gpu_memory_utilization",
    "block_size",
    "prefix_caching",
    "async_scheduling",
    "mixed_prefill",
    "enforce_eager",
)


def assumptions(prepared: Prepared) -> dict[str, Any]:
    """Everything that a prediction of this deployment rests on."""
    return deployment_data(prepared.deployment) | {
        "engine": _engine(prepared),
        "kernels": [
            {
                "operator": pick.operator,
                "format": pick.format,
                "engine_picks": pick.wanted,
                "family": pick.table.family,
                "exact": pick.exact,
                "reason": pick.reason,
                "grade": pick.table.grade,
                "samples": pick.table.samples,
                "source": pick.table.source,
            }
            for pick in prepared.kernels.picks
        ],
    }


def deployment_data(deployment: Deployment) -> dict[str, Any]:
    """Model, checkpoint, machine and placement."""
    cluster, placement, checkpoint = (
        deployment.cluster,
        deployment.placement,
        deployment.checkpoint,
    )
    return {
        "model": deployment.architecture.slug,
        "checkpoint": {
            "name": checkpoint.name,
            "repo": checkpoint.repo,
            "published": not checkpoint.hypothetical,
        },
        "device": deployment.device,
        "gpus": cluster.devices,
        "gpus_unused": cluster.devices - placement.gpus,
        "gpus_by_node": [node.devices for node in cluster.nodes],
        "intra_fabric": cluster.intra_fabric,
        "inter_fabric": cluster.inter_fabric,
        "placement": {
            "tp": placement.tp,
            "pp": placement.pp,
            "ep": placement.ep,
            "dp": placement.dp,
            "replicas": placement.replicas,
            "router": deployment.router,
            "text": str(placement),
        },
    }


def _engine(prepared: Prepared) -> dict[str, Any]:
    engine = prepared.engine
    data: dict[str, Any] = {"name": engine.engine, "version": engine.version}
    settings = {name: getattr(engine, name) for name in SETTINGS}
    settings["kv_cache_dtype"] = engine.kv_format
    settings["attention"] = engine.attention.name
    settings["speculation"] = str(engine.speculation) if engine.speculation else None
    data["settings"] = settings
    data["reasons"] = dict(engine.reasons)
    return data


def show_assumptions(data: dict[str, Any]) -> None:
    """The head of a report: four lines that name the deployment."""
    checkpoint, placement = data["checkpoint"], data["placement"]
    form = checkpoint["repo"] or "hypothetical re-quantisation, nobody has published it"
    render.print_line(f"{data['model']} {checkpoint['name']} ({form})", bold=True)
    render.print_line(f"on {_machine(data)}, {placement['text']}{_replicas(placement)}")
    if data["gpus_unused"]:
        render.print_line(f"{data['gpus_unused']} of {data['gpus']} GPUs stay unused")
    engine = data["engine"]
    settings = engine["settings"]
    render.print_line(
        f"{engine['name']} {engine['version']}: "
        f"max_num_batched_tokens {settings['max_num_batched_tokens']}, "
        f"max_num_seqs {settings['max_num_seqs']}, max_model_len {settings['max_model_len']}, "
        f"gpu_memory_utilization {settings['gpu_memory_utilization']:g}, "
        f"KV {settings['kv_cache_dtype']}, "
        f"prefix caching {'on' if settings['prefix_caching'] else 'off'}"
    )
    if settings["speculation"]:
        render.print_line(f"drafts: {settings['speculation']}")


def _machine(data: dict[str, Any]) -> str:
    by_node = data["gpus_by_node"]
    text = f"{data['gpus']}× {data['device']}"
    if len(by_node) > 1:
        text += f" in {len(by_node)} nodes, {data['inter_fabric']} between"
    if max(by_node) > 1:
        text += f", {data['intra_fabric']} inside"
    return text


def _replicas(placement: dict[str, Any]) -> str:
    return f" behind {placement['router']}" if placement["replicas"] > 1 else ""


def show_settings(data: dict[str, Any]) -> None:
    """Every engine setting and why it has its value; every kernel and why it was picked."""
    reasons = data["engine"]["reasons"]
    text, num = render.text, render.num
    render.print_table(
        [text("setting", keep=True), num("value"), text("why")],
        [
            [name, _value(value), reasons.get(name, "")]
            for name, value in data["engine"]["settings"].items()
        ],
        "Engine settings",
    )
    render.print_table(
        [text("operator"), text("format"), text("family"), text("why"), text("grade"),
         num("samples")],
        [
            [row["operator"], row["format"], row["family"], row["reason"], row["grade"],
             render.count(row["samples"])]
            for row in data["kernels"]
        ],
        "Kernels",
    )  # fmt: skip


def _value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:,}" if isinstance(value, int) else f"{value}"
