"""The commands that start a deployment as the prediction assumed it."""

from __future__ import annotations

import json
import shlex

from moeplan.cost.predictor import Prepared
from moeplan.deployment import EngineSettings
from moeplan.speculation import Speculation

FIRST_PORT = 8000
_PLACEHOLDER_MODEL = "PATH_TO_YOUR_CHECKPOINT"
_PLACEHOLDER_HEAD = "PATH_TO_YOUR_EAGLE3_HEAD"


def launch_commands(prepared: Prepared) -> list[str]:
    """Shell lines, one a process to start; comments say what goes where.

    A replica that spans nodes needs one process a node (vLLM's multi-node multiprocessing
    executor: `--nnodes`, `--node-rank`, `--master-addr`). Other engines than vLLM have options of
    their own, which a comment names.
    """
    deployment = prepared.deployment
    placement, per_node = deployment.placement, deployment.cluster.nodes[0].devices
    if deployment.engine.engine != "vllm":
        return [f"# {deployment.engine.engine}: {placement}, by that engine's own options"]
    nodes = -(-placement.gpus_per_replica // per_node)
    lines = []
    for replica in range(placement.replicas):
        if nodes > 1:
            lines += _multi_node(prepared, replica, nodes)
        else:
            lines.append(_single_node(prepared, replica, per_node))
    return [*lines, *_comments(prepared)]


def serve_arguments(prepared: Prepared) -> list[str]:
    """Arguments after `vllm serve` that the prediction assumed, ports and nodes aside."""
    deployment, engine = prepared.deployment, prepared.engine
    placement = deployment.placement
    options: dict[str, object] = {
        "--tensor-parallel-size": placement.tp if placement.tp > 1 else None,
        "--pipeline-parallel-size": placement.pp if placement.pp > 1 else None,
        "--enable-expert-parallel": placement.ep,
        "--max-model-len": engine.max_model_len,
        "--max-num-batched-tokens": engine.max_num_batched_tokens,
        "--max-num-seqs": engine.max_num_seqs,
        "--gpu-memory-utilization": f"{engine.gpu_memory_utilization:g}",
        "--kv-cache-dtype": _kv_flag(prepared),
        _switch("enable-prefix-caching", engine.prefix_caching): True,
        **_as_given(deployment.engine),
    }
    words = [deployment.checkpoint.repo or _PLACEHOLDER_MODEL]
    for name, value in options.items():
        if value is True:
            words.append(name)
        elif isinstance(value, tuple):
            words += [name, *map(str, value)]
        elif value not in (None, False):
            words += [name, str(value)]
    return words


def _as_given(settings: EngineSettings) -> dict[str, object]:
    """Options that only stand in the command where the user set them."""
    given: dict[str, object] = {
        "--kv-cache-memory-bytes": settings.kv_cache_memory_bytes,
        "--num-gpu-blocks-override": settings.num_gpu_blocks_override,
        "--block-size": settings.block_size,
        "--long-prefill-token-threshold": settings.long_prefill_token_threshold or None,
        "--watermark": settings.watermark or None,
        "--enforce-eager": settings.enforce_eager,
        "--cudagraph-capture-sizes": settings.cudagraph_capture_sizes or None,
        "--disable-hybrid-kv-cache-manager": settings.disable_hybrid_kv_cache_manager,
        "--speculative-config": _speculative_config(settings.speculation),
    }
    if settings.async_scheduling is not None:
        given[_switch("async-scheduling", settings.async_scheduling)] = True
    return given


def _speculative_config(drafts: Speculation | None) -> str | None:
    if drafts is None:
        return None
    config: dict[str, object] = {"method": drafts.method}
    if drafts.method == "eagle3":
        config["model"] = _PLACEHOLDER_HEAD
    return json.dumps(config | {"num_speculative_tokens": drafts.draft_tokens})


def _switch(name: str, on: bool) -> str:
    return f"--{name}" if on else f"--no-{name}"


def _kv_flag(prepared: Prepared) -> str:
    checkpoint_scheme = prepared.deployment.checkpoint.kv_format
    if prepared.engine.kv_format == checkpoint_scheme:
        return "auto"
    return {"bf16": "bfloat16", "fp8": "fp8"}[prepared.engine.kv_format]


def _single_node(prepared: Prepared, replica: int, gpus_per_node: int) -> str:
    placement = prepared.deployment.placement
    gpus = placement.gpus_per_replica
    node, place = divmod(replica, gpus_per_node // gpus)
    command = ["vllm", "serve", *serve_arguments(prepared)]
    if placement.replicas > 1:
        command += ["--port", str(FIRST_PORT + place)]
    visible = ",".join(str(place * gpus + i) for i in range(gpus))
    prefix = f"CUDA_VISIBLE_DEVICES={visible} " if gpus < gpus_per_node else ""
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


def _comments(prepared: Prepared) -> list[str]:
    """What no option says."""
    deployment = prepared.deployment
    lines = []
    if deployment.checkpoint.hypothetical:
        lines.append(f"# nobody has published this checkpoint: make it ({_PLACEHOLDER_MODEL})")
    if deployment.engine.kernel:
        lines.append(f"# with the {deployment.engine.kernel} kernels in place of vLLM's choice")
    if deployment.engine.online_quantization:
        parts = ", ".join(f"{k} {v}" for k, v in deployment.engine.online_quantization.items())
        lines.append(f"# with parts re-quantised at load: {parts}")
    if deployment.placement.replicas > 1:
        lines.append(
            f"# and a router in front of the {deployment.placement.replicas} servers: "
            f"{deployment.router}"
        )
    return lines
