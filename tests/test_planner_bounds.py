"""No simulated run beats its bound, whatever the traffic, the model and the settings."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from moeplan.cost.predictor import Prepared, prepare
from moeplan.deployment import Cluster, Deployment, EngineSettings, Node, Placement
from moeplan.errors import DeploymentError, DoesNotFitError
from moeplan.hardware_specs import load_hardware
from moeplan.models import load_model
from moeplan.planner.bounds import Bounds, bounds
from moeplan.planner.demand import Demand
from moeplan.planner.objective import Latencies
from moeplan.planner.ranking import score_of
from moeplan.planner.slo import METRICS, STATISTICS
from moeplan.planner.twins import alone, twins
from moeplan.simulation.api import predict_prepared
from moeplan.simulation.workload import Workload
from moeplan.speculation import Speculation

HARDWARE = load_hardware()
CLUSTER = Cluster((Node("h100_sxm", 4),), "nvlink4", "ib-ndr")
MODELS = ("gpt-oss-20b", "qwen3-30b-a3b", "nemotron-3-nano-30b-a3b", "llama-3.1-8b")
PLACEMENTS = (
    Placement(),
    Placement(replicas=2),
    Placement(replicas=3),
    Placement(tp=2),
    Placement(tp=2, replicas=2),
    Placement(pp=2),
    Placement(pp=2, replicas=2),
    Placement(tp=2, pp=2),
)
DRAFTS = (
    Speculation("eagle3", 2, (0.9, 0.8)),
    Speculation("ngram", 3, (1.0, 1.0, 1.0)),
    Speculation("eagle3", 1, (0.0,)),
)
ROUNDING = 1 + 1e-9


@st.composite
def workloads(draw) -> Workload:
    """Traffic of every kind, small enough to simulate at once."""
    arrivals = draw(st.sampled_from(["closed", "closed", "rounds", "offline", "poisson"]))
    spread = draw(st.sampled_from([(1.0, 1.0), (1.0, 1.0), (0.5, 1.5), (0.0, 2.0)]))
    cap = draw(st.one_of(st.none(), st.integers(1, 12)))
    return Workload(
        arrivals=arrivals,
        num_prompts=draw(st.integers(1, 30)),
        input_tokens=draw(st.sampled_from([1, 17, 120, 600, 1500, 4000])),
        output_tokens=draw(st.sampled_from([1, 2, 9, 60])),
        input_range=spread,
        output_range=spread,
        concurrency=draw(st.integers(1, 12)) if arrivals in ("closed", "rounds") else cap,
        request_rate=draw(st.sampled_from([2.0, 50.0])) if arrivals == "poisson" else None,
        shared_prefix_tokens=draw(st.sampled_from([0, 0, 0, 100, 1000])),
        seed=draw(st.integers(0, 99)),
    )


@st.composite
def engines(draw) -> EngineSettings:
    """Settings under which schedules differ: budgets, limits, caches, few blocks."""
    return EngineSettings(
        max_num_batched_tokens=draw(st.sampled_from([None, 256, 700, 2048])),
        max_num_seqs=draw(st.sampled_from([None, None, 1, 5])),
        kv_cache_dtype=draw(st.sampled_from(["bf16", "fp8"])),
        enable_prefix_caching=draw(st.sampled_from([None, False])),
        async_scheduling=draw(st.sampled_from([None, False])),
        mixed_prefill=draw(st.sampled_from([None, None, False])),
        enforce_eager=draw(st.sampled_from([False, False, True])),
        long_prefill_token_threshold=draw(st.sampled_from([0, 0, 0, 128])),
        num_gpu_blocks_override=draw(st.sampled_from([None, None, 150, 400, 1500])),
        speculation=draw(st.sampled_from([None, None, *DRAFTS])),
    )


def prepared_for(
    model: str, placement: Placement, engine: EngineSettings, workload: Workload
) -> Prepared | None:
    """The deployment of a case, None where no engine would start."""
    entry = load_model(model)
    deployment = Deployment(
        entry.architecture, entry.default_checkpoint, CLUSTER, placement, engine=engine
    )
    try:
        return prepare(deployment, HARDWARE, workload.longest_tokens, workload.routing_sigma)
    except (DeploymentError, DoesNotFitError):
        return None


def bounds_of(prepared: Prepared, workload: Workload) -> Bounds:
    """As the search bounds a deployment: by one of its replicas where they are twins."""
    parts, demand = twins(prepared, workload), Demand.of(workload)
    one = alone(prepared) if parts > 1 else prepared
    return bounds(one, demand.share(parts)).times(parts)


def assert_not_below(latencies: Latencies, least: Latencies) -> None:
    for metric in METRICS:
        for name in STATISTICS:
            value, bound = latencies[metric][name], least[metric][name]
            assert value * ROUNDING >= bound or value == 0, (metric, name, value, bound)


@settings(max_examples=150, deadline=None)
@given(
    model=st.sampled_from(MODELS),
    placement=st.sampled_from(PLACEMENTS),
    engine=engines(),
    workload=workloads(),
)
def test_no_run_beats_its_bound(model, placement, engine, workload):
    prepared = prepared_for(model, placement, engine, workload)
    if prepared is None:
        return
    try:
        result = predict_prepared(prepared, workload).result
    except DoesNotFitError:
        return
    score = score_of(prepared, result, None, HARDWARE)
    for found in (bounds(prepared, Demand.of(workload)), bounds_of(prepared, workload)):
        assert score.output_tok_s <= found.output_tok_s * ROUNDING
        assert_not_below(score.latencies, found.latencies)
