"""Record every scheduler step from inside an unmodified vLLM engine.

    PYTHONPATH=<this folder> MOEPLAN_STEPPROBE=<folder> vllm serve ... \
        --scheduler-cls moeplan_stepprobe.StepProbe       # synchronous scheduling (CPU)
        --scheduler-cls moeplan_stepprobe.AsyncStepProbe  # asynchronous scheduling (GPU)

Uses `add_request`, `schedule` and `update_from_output` of the V1 scheduler, the same from 0.24 to
0.33. Written for little time inside the step: integers go to one array, which reaches the file in
large pieces, or when the engine has nothing to do.

The folder gets one pair of files an engine process: `<pid>.meta.jsonl`, whose first line describes
the engine and each further line one request (number, id, prompt tokens, most output tokens), and
`<pid>.steps.i64`, little-endian 64-bit integers, events one after another:

    1 t dt step waiting running free k (request new computed)×k    schedule() returned
    2 t step                                                       a step's result came in
    3 t request                                                    a request arrived
    4 t                                                            nothing is left to do
    5 t request                                                    the next step preempted it

Times in nanoseconds of the monotonic clock, `dt` the time inside schedule(); `computed` counts the
request's tokens computed after the step; `free` the free blocks after it.
"""

import json
import os
import time
from array import array

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

SCHEDULED, UPDATED, ARRIVED, IDLE, PREEMPTED = 1, 2, 3, 4, 5
FLUSH_INTEGERS = 1 << 16


class Recorder:
    """Numbers requests, collects events and writes them."""

    def __init__(self, folder, facts):
        os.makedirs(folder, exist_ok=True)
        stem = os.path.join(folder, str(os.getpid()))
        self.meta = open(stem + ".meta.jsonl", "a", buffering=1)  # noqa: SIM115 - lives with us
        self.file = open(stem + ".steps.i64", "ab", buffering=0)  # noqa: SIM115
        self.meta.write(json.dumps(facts) + "\n")
        self.events = array("q")
        self.numbers = {}
        self.step = 0

    def number(self, request_id):
        """Number of a request; one that was never announced gets one as well."""
        found = self.numbers.get(request_id)
        if found is None:
            found = self.numbers[request_id] = len(self.numbers)
        return found

    def arrived(self, request):
        """A request entered the waiting queue."""
        known = request.request_id in self.numbers
        number = self.number(request.request_id)
        if not known:
            row = [number, request.request_id, request.num_prompt_tokens, request.max_tokens]
            self.meta.write(json.dumps(row) + "\n")
        self.events.extend((ARRIVED, time.monotonic_ns(), number))

    def flush(self):
        """Hand what was collected to the file."""
        if self.events:
            self.file.write(self.events.tobytes())
            self.events = array("q")


def describe(scheduler, asynchronous):
    """Facts that a replay of the schedule needs; null where this version keeps them elsewhere."""
    config = scheduler.vllm_config
    sources = {
        "async": lambda: asynchronous,
        "block_size": lambda: scheduler.block_size,
        "num_gpu_blocks": lambda: config.cache_config.num_gpu_blocks,
        "kv_groups": lambda: [
            describe_group(group) for group in scheduler.kv_cache_config.kv_cache_groups
        ],
        "enable_prefix_caching": lambda: config.cache_config.enable_prefix_caching,
        "max_num_batched_tokens": lambda: config.scheduler_config.max_num_batched_tokens,
        "max_num_seqs": lambda: config.scheduler_config.max_num_seqs,
        "max_model_len": lambda: config.model_config.max_model_len,
    }
    facts = {"format": 1}
    for name, source in sources.items():
        try:
            facts[name] = source()
        except AttributeError:
            facts[name] = None
    return facts


def describe_group(group):
    """One group of layers that share blocks."""
    spec = group.kv_cache_spec
    return {
        "spec": type(spec).__name__,
        "block_size": spec.block_size,
        "page_bytes": spec.page_size_bytes,
        "window": getattr(spec, "sliding_window", None),
        "layers": len(group.layer_names),
    }


def probing(base):
    """A subclass of a vLLM scheduler that records what it does."""

    class Probe(base):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            facts = describe(self, issubclass(base, AsyncScheduler))
            self.recorder = Recorder(os.environ["MOEPLAN_STEPPROBE"], facts)

        def add_request(self, request):
            self.recorder.arrived(request)
            super().add_request(request)

        def schedule(self, *args, **kwargs):
            begin = time.monotonic_ns()
            output = super().schedule(*args, **kwargs)
            end = time.monotonic_ns()
            recorder = self.recorder
            scheduled = output.num_scheduled_tokens
            if scheduled:
                output.moeplan_step = recorder.step
                for request_id in getattr(output, "preempted_req_ids", None) or ():
                    recorder.events.extend((PREEMPTED, end, recorder.number(request_id)))
                head = (SCHEDULED, end, end - begin, recorder.step, len(self.waiting))
                free = self.kv_cache_manager.block_pool.get_num_free_blocks()
                recorder.events.extend((*head, len(self.running), free, len(scheduled)))
                for request_id, new in scheduled.items():
                    computed = self.requests[request_id].num_computed_tokens
                    recorder.events.extend((recorder.number(request_id), new, computed))
                recorder.step += 1
            if not scheduled or len(recorder.events) > FLUSH_INTEGERS:
                recorder.flush()
            return output

        def update_from_output(self, scheduler_output, model_runner_output):
            arrived = time.monotonic_ns()
            result = super().update_from_output(scheduler_output, model_runner_output)
            step = getattr(scheduler_output, "moeplan_step", None)
            if step is not None:
                self.recorder.events.extend((UPDATED, arrived, step))
                if not self.has_unfinished_requests():
                    self.recorder.events.extend((IDLE, time.monotonic_ns()))
                    self.recorder.flush()
            return result

        def shutdown(self, *args, **kwargs):
            self.recorder.flush()
            return super().shutdown(*args, **kwargs)

    return Probe


StepProbe = probing(Scheduler)
AsyncStepProbe = probing(AsyncScheduler)
