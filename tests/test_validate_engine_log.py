"""Facts read from engine logs: a recorded one, the wordings of GPU builds, and an unknown one."""

from pathlib import Path

import pytest

from moeplan.validate.engine_log import compiled_kernels, facts_from_dict, read_engine_log
from moeplan.validate.failures import (
    ModelDoesNotFitError,
    PortOccupiedError,
    failure_from_log,
    root_cause,
)

RECORDED = Path(__file__).parent / "data" / "engine_logs" / "vllm_cpu_0.32.0_qwen3_next.log"
# Wordings as in vLLM's source and in public logs of 0.24 to 0.33 on GPUs; figures are made up.
GPU = """\
(EngineCore pid=1) INFO [core.py:1] Initializing a V1 LLM engine (v0.24.0) with config: \
model='/m/gpt-oss', tensor_parallel_size=2, quantization=mxfp4, enforce_eager=False, \
kv_cache_dtype=auto, 'cudagraph_mode': <CUDAGraphMode.FULL_AND_PIECEWISE: (2, 1)>, \
'cudagraph_capture_sizes': [1, 2, 4, 8, 16]
(Worker pid=2) INFO [cuda_communicator.py:1] Using ['CUSTOM', 'SYMM_MEM', 'PYNCCL'] all-reduce \
backends (in dispatch order) for group 'tp:0'
(Worker pid=2) INFO [cuda.py:482] Using FLASH_ATTN attention backend out of potential backends: \
['FLASH_ATTN', 'FLASHINFER'].
(Worker pid=2) INFO [mxfp4.py:1] Using 'MARLIN' Mxfp4 MoE backend
(Worker pid=2) INFO [gpu_model_runner.py:1] Model loading took 13.7 GiB memory and 4.5 seconds
(Worker pid=3) INFO [gpu_model_runner.py:1] Model loading took 13.9 GiB memory and 4.4 seconds
(Worker pid=2) INFO [monitor.py:34] torch.compile takes 32.49 s in total
(Worker pid=2) INFO [gpu_worker.py:1] Available KV cache memory: 55.5 GiB
(Worker pid=3) INFO [gpu_worker.py:1] Available KV cache memory: 55.1 GiB
(EngineCore pid=1) INFO [kv_cache_utils.py:1] GPU KV cache size: 1,203,456 tokens, \
Maximum concurrency for 8,192 tokens per request: 146.91x
(Worker pid=2) INFO [gpu_model_runner.py:1] Graph capturing finished in 12 secs, took 0.83 GiB
(EngineCore pid=1) INFO [core.py:1] init engine (profile, create kv cache, warmup model) took 61.5 s
(APIServer pid=4) INFO [vllm.py:1042] Asynchronous scheduling is enabled.
(APIServer pid=4) INFO [model.py:1] Resolved architecture: GptOssForCausalLM
(Worker pid=2) WARNING [fused_moe.py:1087] Using default MoE config. Performance might be \
sub-optimal!
"""


def test_a_recorded_log_yields_its_facts():
    facts = read_engine_log(RECORDED.read_text())
    assert facts.version == "0.32.0"
    assert facts.architecture == "Qwen3NextForCausalLM"
    assert facts.kv_cache_tokens == 95_325
    assert facts.max_concurrency == 46.55
    assert facts.max_model_len == 2048
    assert facts.mamba_padding_percent == 82.86
    assert facts.moe_backend == "CPU"
    assert facts.enforce_eager is True
    assert facts.max_num_batched_tokens == 512
    assert facts.unread == ("weights_gib",)  # the CPU build does not print it


def test_gpu_wordings_yield_their_facts():
    facts = read_engine_log(GPU)
    assert facts.unread == ()
    assert facts.weights_gib == 13.9  # the rank with most
    assert facts.kv_cache_gib == 55.1  # the rank with least
    assert facts.kv_cache_tokens == 1_203_456
    assert facts.attention_backend == "FLASH_ATTN"
    assert facts.moe_backend == "MARLIN"
    assert facts.all_reduce_backends == ("CUSTOM", "SYMM_MEM", "PYNCCL")
    assert facts.cuda_graph_sizes == (1, 2, 4, 8, 16)
    assert facts.cuda_graph_mode == "FULL_AND_PIECEWISE"
    assert (facts.cuda_graph_gib, facts.compile_seconds) == (0.83, 32.49)
    assert facts.async_scheduling is True
    assert facts.tuned_moe_config is False
    assert facts.quantization == "mxfp4"


@pytest.mark.parametrize(
    ("line", "backend"),
    [
        ("Using TRITON Fp8 MoE backend", "TRITON"),
        ("Using 'MARLIN' NvFp4 MoE backend out of potential", "MARLIN"),
        ("Using TRITON Unquantized MoE backend out of potential backends: ['TRITON']", "TRITON"),
        ("Using FLASHINFER_CUTLASS NvFp4 MoE backend", "FLASHINFER_CUTLASS"),
    ],
)
def test_the_moe_backend_is_named(line, backend):
    assert read_engine_log(line).moe_backend == backend


def test_an_unknown_log_lists_what_it_does_not_tell():
    facts = read_engine_log("engine 9.9 ready\n")
    assert facts.version is None
    assert {"version", "kv_cache_tokens", "kv_cache_gib"} <= set(facts.unread)


def test_facts_survive_a_file():
    facts = read_engine_log(GPU)
    assert facts_from_dict(facts.as_dict() | {"from_a_later_version": 1}) == facts


def test_compilation_is_told_from_talk_of_it():
    log = (
        "Kernel JIT monitor activated; monitored JIT compilations during inference will use mode\n"
        "WARNING Triton kernel JIT compilation during inference: f. This causes a latency spike\n"
        "INFO Compiling a graph for compile range (1, 2048) takes 15.65 s\n"
    )
    assert len(compiled_kernels(log)) == 2


def test_the_root_cause_is_the_first_error_not_its_echo():
    log = (
        "(Worker pid=1) WARNING fallback. Exception: could not create a primitive\n"
        "(EngineCore pid=2) ERROR [core.py:1] Traceback (most recent call last):\n"
        "(EngineCore pid=2) ERROR [core.py:1] KeyError: 'factor'\n"
        "RuntimeError: Engine core initialization failed. See root cause above.\n"
        "INFO:     Application shutdown complete.\n"
    )
    assert root_cause(log) == "KeyError: 'factor'"


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("OSError: [Errno 98] address already in use", PortOccupiedError),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate", ModelDoesNotFitError),
        ("ValueError: No available memory for the cache blocks.", ModelDoesNotFitError),
        (
            "ValueError: Free memory on device cuda:0 is less than desired GPU memory utilization",
            ModelDoesNotFitError,
        ),
    ],
)
def test_failures_are_told_apart(line, kind):
    assert isinstance(failure_from_log(line, "it ended", Path("log")), kind)


def test_a_silent_failure_is_still_reported():
    assert "it wrote nothing" in str(failure_from_log("", "it ended", Path("log")))
