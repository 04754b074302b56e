"""The commands that start a deployment as the prediction assumed it."""

from __future__ import annotations

import shlex

from moeplan.cost.predictor import Prepared

FIRST_PORT = 8000
_PLACEHOLDER_MODEL = "PATH_TO_YOUR_CHECKPOINT"


def launch_commands(prepared: Prepared) -> list[str]:
    """Shell lines, one a process to start; comments say what goes where.

    A replica that spans nodes needs one process a node (vLLM's multi-node multiprocessing
    executor: `--nnodes`, `--node-rank`, `--master-addr`).
    """
    placement, cluster = prepared.deployment.placement, prepared.deployment.cluster
    per_node = cluster.nodes[0].devices
    nodes = -(-placement.tp * placement.pp // per_node)
    lines = []
    for replica in range(placement.replicas):
        if nodes > 1:
            lines += _multi_node(prepared, replica, nodes)
        else:
            lines.append(_single_node(prepared, replica, per_node))
    if placement.replicas > 1:
        lines.append(_router_comment(prepared))
    return lines


def serve_arguments(prepared: Prepared) -> list[str]:
    """Arguments after `vllm serve` that the prediction assumed, ports and nodes aside."""
    deployment, engine = prepared.deployment, prepared.engine
    placement = deployment.placement
    arguments = [deployment.checkpoint.repo or _PLACEHOLDER_MODEL]
    if placement.tp > 1:
        arguments += ["--tensor-parallel-size", str(placement.tp)]
    if placement.pp > 1:
        arguments += ["--pipeline-parallel-size", str(placement.pp)]
    if placement.ep:
        arguments += ["--enable-expert-parallel"]
    arguments += [
        "--max-model-len",
        str(engine.max_model_len),
        "--max-num-batched-tokens",
        str(engine.max_num_batched_tokens),
        "--max-num-seqs",
        str(engine.max_num_seqs),
        "--gpu-memory-utilization",
        f"{engine.gpu_memory_utilization:g}",
        "--kv-cache-dtype",
        _kv_flag(prepared),
    ]
    arguments += [f"--{'' if engine.prefix_caching else 'no-'}enable-prefix-caching"]
    if deployment.engine.enforce_eager:
        arguments += ["--enforce-eager"]
    return arguments


def _kv_flag(prepared: Prepared) -> str:
    checkpoint_scheme = prepared.deployment.checkpoint.kv_format
    if prepared.engine.kv_format == checkpoint_scheme:
        return "auto"
    return {"bf16": "bfloat16", "fp8": "fp8"}[prepared.engine.kv_format]


def _single_node(prepared: Prepared, replica: int, gpus_per_node: int) -> str:
    placement = prepared.deployment.placement
    gpus = placement.tp * placement.pp
    first = replica * gpus % gpus_per_node
    command = ["vllm", "serve", *serve_arguments(prepared)]
    if placement.replicas > 1:
        command += ["--port", str(FIRST_PORT + replica)]
    visible = ",".join(str(first + i) for i in range(gpus))
    prefix = f"CUDA_VISIBLE_DEVICES={visible} " if gpus < gpus_per_node else ""
    node = replica * gpus // gpus_per_node
    suffix = f"   # node {node}" if len(prepared.deployment.cluster.nodes) > 1 else ""
    return prefix + shlex.join(command) + suffix


def _multi_node(prepared: Prepared, replica: int, nodes: int) -> list[str]:
    lines = []
    for rank in range(nodes):
        command = ["vllm", "serve", *serve_arguments(prepared)]
        command += ["--nnodes", str(nodes), "--node-rank", str(rank)]
        text = shlex.join(command) + " --master-addr $HEAD_NODE_ADDRESS"
        if rank:
            text += " --headless"
        lines.append(f"{text}   # node {replica * nodes + rank}")
    return lines


def _router_comment(prepared: Prepared) -> str:
    replicas = prepared.deployment.placement.replicas
    ports = f"{FIRST_PORT}-{FIRST_PORT + replicas - 1}"
    return f"# a router in front, {prepared.deployment.router}, over the {replicas} ports {ports}"
