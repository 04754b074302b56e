"""The search: counts, refusals, the same winner as exhaustive simulation, ties, limits."""

from __future__ import annotations

from dataclasses import astuple, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moeplan.deployment import Cluster, EngineSettings, Node, Placement
from moeplan.errors import DoesNotFitError, InputError, NoFeasiblePlanError
from moeplan.hardware_specs import load_hardware
from moeplan.models import load_model
from moeplan.planner.candidates import Space, placements
from moeplan.planner.objective import TIE
from moeplan.planner.recommendation import Recommendation
from moeplan.planner.search import Request, recommend
from moeplan.planner.slo import parse_limit
from moeplan.planner.twins import simulate, twins
from moeplan.planner.workers import LAG, Workers
from moeplan.simulation import metrics
from moeplan.simulation.api import predict_prepared
from moeplan.simulation.workload import Workload

HARDWARE = load_hardware()
FOUR = Cluster((Node("h100_sxm", 4),), "nvlink4", "ib-ndr")
LOAD = Workload(num_prompts=24, input_tokens=600, output_tokens=40, concurrency=8)


def request(model: str = "gpt-oss-20b", **changes) -> Request:
    """A search over four GPUs, budgets pinned to two unless said otherwise."""
    entry = load_model(model)
    space = Space(checkpoints=(entry.default_checkpoint,), token_budgets=(None, 512))
    plain = Request(entry.architecture, FOUR, space, LOAD, runners_up=0)
    return replace(plain, **changes)


def winner(found: Recommendation) -> tuple:
    """What tells one deployment from another."""
    prepared = found.winner.prepared
    engine = prepared.engine
    return (
        prepared.deployment.placement,
        engine.kv_format,
        engine.max_num_batched_tokens,
        engine.max_num_seqs,
    )


LIMITS = (
    (),
    (parse_limit("ttft", "90ms"),),
    (parse_limit("itl", "p99:6ms"), parse_limit("ttft", "p90:400ms")),
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    model=st.sampled_from(["gpt-oss-20b", "qwen3-30b-a3b", "nemotron-3-nano-30b-a3b"]),
    limits=st.sampled_from(LIMITS),
    objective=st.sampled_from(["throughput", "latency", "cost"]),
    concurrency=st.sampled_from([1, 3, 8]),
    lengths=st.sampled_from([(100, 60), (600, 40), (3000, 20)]),
    spread=st.sampled_from([(1.0, 1.0), (0.5, 1.5)]),
)
def test_same_winner_as_exhaustive_simulation(
    model, limits, objective, concurrency, lengths, spread
):
    load = Workload(
        num_prompts=3 * concurrency,
        input_tokens=lengths[0],
        output_tokens=lengths[1],
        concurrency=concurrency,
        input_range=spread,
        output_range=spread,
    )
    wanted = request(model, workload=load, limits=limits, objective=objective)
    everything, found = (_outcome(wanted, exhaustive=x) for x in (True, False))
    if isinstance(everything, str):
        assert found == everything
        return
    assert winner(found) == winner(everything)
    assert found.winner.score == everything.winner.score
    if not limits:
        assert {_point(c) for c in found.front} == {_point(c) for c in everything.front}


def _outcome(wanted: Request, *, exhaustive: bool) -> Recommendation | str:
    """What a search finds, or says where nothing meets the limits."""
    try:
        return recommend(wanted, HARDWARE, exhaustive=exhaustive)
    except NoFeasiblePlanError as error:
        return str(error)


def _point(candidate) -> tuple[float, float]:
    return candidate.score.output_tok_s_per_gpu, candidate.score.tok_s_per_user


def test_rate_limited_traffic_goes_to_the_fewest_gpus():
    load = Workload(
        arrivals="poisson",
        num_prompts=60,
        input_tokens=300,
        output_tokens=20,
        request_rate=2.0,
    )
    found = recommend(request(workload=load), HARDWARE)
    assert found.winner.gpus == 1
    best = max(c.score.output_tok_s for c in found.simulated)
    assert found.winner.score.output_tok_s >= best * (1 - TIE)


def test_counts_add_up():
    for exhaustive in (False, True):
        counts = recommend(request(), HARDWARE, exhaustive=exhaustive).counts
        refused = sum(counts.refused.values())
        assert counts.built == refused + counts.duplicates + counts.screened + counts.simulated
        assert not exhaustive or counts.screened == 0
    # 11 placements, two KV formats, two budgets
    assert len(list(placements([4]))) == 11
    assert counts.built == 11 * 2 * 2


def test_placements_are_powers_of_two_times_any_replicas():
    found = set(placements([8]))
    assert len(found) == 26
    assert Placement(tp=1, replicas=7) in found
    assert all(p.gpus <= 8 for p in found)
    assert {p.tp for p in found} == {p.pp for p in found} == {1, 2, 4, 8}


def test_a_replica_takes_whole_nodes_or_a_part_of_one():
    across = set(placements([3, 3]))
    assert Placement(tp=2, replicas=2) in across
    assert Placement(tp=2, replicas=3) not in across
    assert Placement(tp=4) not in across
    assert {str(p) for p in placements([1, 1])} == {"TP1", "2×TP1", "TP1 PP2", "TP2"}
    assert Placement(tp=8, pp=2) in set(placements([8, 8, 4]))
    assert Placement(tp=4, replicas=5) in set(placements([8, 8, 4]))


def test_pinned_numbers_need_no_power_of_two():
    assert [str(p) for p in placements([8], tp=1, pp=3)] == ["TP1 PP3", "2×TP1 PP3"]
    assert [str(p) for p in placements([8], tp=4, replicas=2)] == ["2×TP4"]
    assert not list(placements([8], tp=16))


def test_refusals_name_rule_and_example():
    load = replace_workload(concurrency=2, num_prompts=6)
    found = recommend(request("llama-3.3-70b", workload=load), HARDWARE)
    counts = found.counts
    assert counts.refused["more replicas than requests in flight"] > 0
    assert counts.refused["does not fit in memory"] > 0
    assert set(counts.refused) == set(counts.refusal_examples)
    assert "70b" in counts.refusal_examples["does not fit in memory"]


def replace_workload(**changes) -> Workload:
    return LOAD.model_copy(update=changes)


def test_nothing_fits():
    entry = load_model("deepseek-v3")
    space = Space(checkpoints=(entry.default_checkpoint,))
    with pytest.raises(DoesNotFitError) as error:
        recommend(request(architecture=entry.architecture, space=space), HARDWARE)
    assert error.value.missing_gib > 0


def test_no_deployment_meets_the_limit():
    limits = (parse_limit("itl", "1ms"), parse_limit("ttft", "10s"))
    with pytest.raises(NoFeasiblePlanError, match=r"mean ITL is .* ms against 1 ms.*relax --itl"):
        recommend(request(limits=limits), HARDWARE)


def test_fewer_sequences_meet_a_gap_limit_that_the_default_misses():
    one = Space(
        checkpoints=(load_model("gpt-oss-20b").default_checkpoint,),
        kv_formats=("bf16",),
        token_budgets=(None,),
        placements=(Placement(),),
    )
    load = replace_workload(concurrency=64, num_prompts=192)
    plain = recommend(request(space=one, workload=load), HARDWARE).winner.score
    goal = plain.latencies["itl"]["mean"] * 0.8
    limits = (parse_limit("itl", f"{goal * 1e3:.6f}ms"),)
    found = recommend(request(space=one, workload=load, limits=limits), HARDWARE).winner
    assert found.score.latencies["itl"]["mean"] <= goal
    assert found.prepared.engine.max_num_seqs < 64


def test_costs_need_a_price(monkeypatch):
    monkeypatch.setattr("moeplan.planner.search.hourly_cost", lambda *_args: None)
    with pytest.raises(InputError, match="no price of h100_sxm is known"):
        recommend(request(objective="cost"), HARDWARE)


def test_runners_up_are_simulated_for_comparison():
    found = recommend(request(runners_up=4), HARDWARE)
    assert len({candidate.family for candidate in found.simulated}) >= 5


@pytest.mark.parametrize("placement", [Placement(replicas=2), Placement(pp=2, replicas=2)])
@pytest.mark.parametrize("arrivals", ["closed", "rounds", "offline"])
def test_twins_tell_the_whole_run(placement, arrivals):
    space = replace(request().space, placements=(placement,))
    load = replace_workload(arrivals=arrivals)
    prepared = recommend(request(space=space, workload=load), HARDWARE).winner.prepared
    assert twins(prepared, load) == 2
    one, all_of_them = simulate(prepared, load), predict_prepared(prepared, load).result
    assert metrics.output_tok_s(one) == pytest.approx(metrics.output_tok_s(all_of_them), rel=1e-12)
    for metric in (metrics.ttft, metrics.tpot, metrics.itl, metrics.e2e, metrics.steady_ttft):
        assert astuple(metric(one)) == pytest.approx(
            astuple(metric(all_of_them)), rel=1e-12, nan_ok=True
        )


def test_unlike_requests_have_no_twins():
    space = replace(request().space, placements=(Placement(replicas=2),))
    prepared = recommend(request(space=space), HARDWARE).winner.prepared
    assert twins(prepared, replace_workload(input_range=(0.5, 1.5))) == 1
    assert twins(prepared, replace_workload(num_prompts=23)) == 1
    assert twins(prepared, replace_workload(concurrency=7)) == 1


def test_workers_look_back_by_a_fixed_lag(monkeypatch):
    seen: list[int] = []

    def wanted(item: int) -> bool:
        return len(seen) >= item - LAG + 1 or item < LAG

    for patience in (1e9, -1.0):  # here, then in processes
        seen.clear()
        monkeypatch.setattr("moeplan.planner.workers.PATIENCE_S", patience)
        with Workers(2) as workers:
            for item, result in workers.run(pow, range(12), wanted):
                assert result == 2**item
                seen.append(item)
        assert seen == list(range(12))


def test_pins_hold():
    space = replace(request().space, kv_formats=("fp8",), running_limits=(4,))
    engine = EngineSettings(gpu_memory_utilization=0.5)
    found = recommend(request(space=space, engine=engine), HARDWARE)
    for candidate in found.simulated:
        assert candidate.prepared.engine.kv_format == "fp8"
        assert candidate.prepared.engine.max_num_seqs == 4
        assert candidate.prepared.engine.gpu_memory_utilization == 0.5
