"""Launch commands, word by word."""

from __future__ import annotations

import json
import shlex
import subprocess

import pytest

from moeplan.cost.predictor import Prepared, prepare
from moeplan.deployment import Cluster, Deployment, EngineSettings, Node, Placement
from moeplan.hardware_specs import load_hardware
from moeplan.models import load_model
from moeplan.planner.launch import launch_commands
from moeplan.speculation import speculation

HARDWARE = load_hardware()
EIGHT = Cluster((Node("h100_sxm", 8),), "nvlink4", "ib-ndr")
TWO_SPARKS = Cluster((Node("gb10", 1), Node("gb10", 1)), "nvlink5", "cx7-200gbe")


def prepared(
    cluster: Cluster,
    placement: Placement,
    form: str | None = None,
    model: str = "gpt-oss-120b",
    **settings,
) -> Prepared:
    entry = load_model(model)
    checkpoint = entry.checkpoint(form, hypothetical=True) if form else entry.default_checkpoint
    engine = EngineSettings(**settings)
    deployment = Deployment(entry.architecture, checkpoint, cluster, placement, engine=engine)
    return prepare(deployment, HARDWARE, 9216)


def test_replicas_share_a_node_port_by_port():
    lines = launch_commands(prepared(EIGHT, Placement(tp=4, replicas=2)))
    common = (
        "vllm serve openai/gpt-oss-120b --tensor-parallel-size 4 --max-model-len 9216 "
        "--max-num-batched-tokens 8192 --max-num-seqs 1024 --gpu-memory-utilization 0.92 "
        "--kv-cache-dtype auto --enable-prefix-caching"
    )
    assert lines == [
        f"CUDA_VISIBLE_DEVICES=0,1,2,3 {common} --port 8000",
        f"CUDA_VISIBLE_DEVICES=4,5,6,7 {common} --port 8001",
        "# and a router in front of the 2 servers: round_robin",
    ]


def test_one_replica_over_two_nodes_starts_a_process_on_each():
    lines = launch_commands(prepared(TWO_SPARKS, Placement(tp=2)))
    common = (
        "vllm serve openai/gpt-oss-120b --tensor-parallel-size 2 --max-model-len 9216 "
        "--max-num-batched-tokens 2048 --max-num-seqs 256 --gpu-memory-utilization 0.85 "
        "--kv-cache-dtype auto --enable-prefix-caching --nnodes 2"
    )
    assert lines == [
        f"{common} --node-rank 0 --master-addr $HEAD_NODE_ADDRESS   # node 0",
        f"{common} --node-rank 1 --master-addr $HEAD_NODE_ADDRESS --headless   # node 1",
    ]


def test_replicas_on_nodes_of_one_device_need_no_mask():
    first, second, _router = launch_commands(prepared(TWO_SPARKS, Placement(replicas=2)))
    assert first.endswith("--port 8000   # node 0")
    assert second.endswith("--port 8000   # node 1")
    assert "CUDA_VISIBLE_DEVICES" not in first


def test_all_gpus_of_a_node_need_neither_mask_nor_port():
    (line,) = launch_commands(prepared(EIGHT, Placement(tp=4, pp=2)))
    assert line.startswith("vllm serve openai/gpt-oss-120b --tensor-parallel-size 4")
    assert "--pipeline-parallel-size 2" in line
    assert "--port" not in line


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kv_cache_dtype": "fp8"}, "--kv-cache-dtype fp8"),
        ({"enable_prefix_caching": False}, "--no-enable-prefix-caching"),
        ({"async_scheduling": False}, "--no-async-scheduling"),
        ({"enforce_eager": True}, "--enforce-eager"),
        ({"block_size": 32}, "--block-size 32"),
        ({"num_gpu_blocks_override": 20_000}, "--num-gpu-blocks-override 20000"),
        ({"long_prefill_token_threshold": 512}, "--long-prefill-token-threshold 512"),
        ({"disable_hybrid_kv_cache_manager": True}, "--disable-hybrid-kv-cache-manager"),
        (
            {"speculation": speculation("eagle3", 3, None)},
            '--speculative-config \'{"method": "eagle3", "model": "PATH_TO_YOUR_EAGLE3_HEAD", '
            '"num_speculative_tokens": 3}\'',
        ),
    ],
)
def test_settings_of_the_user_stand_in_the_command(settings, words):
    given, plain = (
        launch_commands(prepared(EIGHT, Placement(tp=8), **options))[0]
        for options in (settings, {})
    )
    assert words in given
    assert words not in plain


def test_a_checkpoint_that_nobody_published_is_to_be_made():
    lines = launch_commands(prepared(EIGHT, Placement(tp=8), form="int4", model="qwen3-32b"))
    known = prepared(EIGHT, Placement(tp=8), form="int4", model="qwen3-32b").deployment.checkpoint
    if known.hypothetical:
        assert "PATH_TO_YOUR_CHECKPOINT" in lines[0]
        assert "nobody has published" in lines[-1]


def test_other_engines_are_named_without_invented_options():
    (line,) = launch_commands(prepared(EIGHT, Placement(tp=2), engine="sglang", version="0.5"))
    assert line.startswith("# sglang: TP2")


PARSE = """
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = make_arg_parser(FlexibleArgumentParser())
for words in json.load(sys.stdin):
    found = parser.parse_args(words)
    print(found.tensor_parallel_size, found.pipeline_parallel_size, found.nnodes)
"""


@pytest.mark.vllm
def test_vllm_itself_reads_the_commands(vllm_python, tmp_path):
    every = {
        "kv_cache_dtype": "fp8",
        "enable_prefix_caching": False,
        "async_scheduling": False,
        "enforce_eager": True,
        "block_size": 32,
        "num_gpu_blocks_override": 20_000,
        "long_prefill_token_threshold": 512,
        "disable_hybrid_kv_cache_manager": True,
    }
    lines = [
        *launch_commands(prepared(TWO_SPARKS, Placement(tp=2))),
        *launch_commands(prepared(EIGHT, Placement(tp=4, pp=2))),
        *launch_commands(prepared(EIGHT, Placement(tp=8), **every)),
        *launch_commands(prepared(EIGHT, Placement(tp=8), kv_cache_memory_bytes=10**10)),
    ]
    words = [shlex.split(line, comments=True) for line in lines]
    done = subprocess.run(
        [vllm_python, "-c", PARSE],
        input=json.dumps([line[line.index("serve") + 1 :] for line in words]),
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout.split("\n")[-6:-1] == ["2 1 2", "2 1 2", "4 2 1", "8 1 1", "8 1 1"]
