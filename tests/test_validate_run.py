"""Plan, run, resume, compare, report: the whole way against a stand-in for vLLM."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from moeplan.errors import EngineFailedError, InputError, RecordError
from moeplan.records.reader import read_records
from moeplan.scenario import Scenario
from moeplan.validate.build import Setup, Wanted, build_plan
from moeplan.validate.cli import validate
from moeplan.validate.compare import compare
from moeplan.validate.dummy_model import write_tiny_model
from moeplan.validate.measured import read_store
from moeplan.validate.own_runs import read_own_runs
from moeplan.validate.plan import read_plan, write_plan
from moeplan.validate.records import to_record
from moeplan.validate.run import RunSettings, run_plan, run_plans
from moeplan.validate.store import Store
from moeplan.validate.workloads import ClosedLoop

HERE = Path(__file__).parent
FAKE = str(HERE / "data" / "fake_vllm")
CPU = HERE.parent / "validate" / "cpu_hardware"
SETTINGS = RunSettings(sys.executable, start_timeout_s=30, load_timeout_s=10)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A plan of two runs with predictions, and a stand-in for vLLM on the path."""
    monkeypatch.setenv("PYTHONPATH", FAKE)
    write_tiny_model("qwen3_moe", tmp_path / "model")
    shutil.copytree(CPU, tmp_path / "hardware")
    write_plan(tmp_path / "plan.toml", build_plan(setup(), wanted(), tmp_path))
    return tmp_path


def setup(routers: bool = False) -> Setup:
    scenario = Scenario(model="model", device="cpu", engine_version="0.32.0", enforce_eager=True)
    return Setup(scenario, hardware_dir="hardware", probe=False, routers=routers)


def wanted() -> list[Wanted]:
    def load(concurrency):
        return ClosedLoop(
            concurrency=concurrency, input_tokens=64, output_tokens=8, num_prompts=2 * concurrency
        )

    return [
        Wanted("small", "a small batch", "fit", load(1), repeats=2),
        Wanted("large", "a large batch", "held-out", load(8)),
    ]


def carry_out(folder, store="runs"):
    plan = read_plan(folder / "plan.toml")
    return run_plan(plan, folder, Store(folder / store), SETTINGS, lambda _what, _share: None)


def test_a_plan_reads_back_as_it_was_written(folder):
    plan = read_plan(folder / "plan.toml")
    again = build_plan(setup(), wanted(), folder)
    assert plan == again.model_copy(update={"written": plan.written})
    assert plan.runs[0].predicted.metrics["output_tok_s"] > 0
    assert "--enforce-eager" in plan.launch.options


def test_a_plan_that_cannot_be_read_names_the_field(folder):
    text = (folder / "plan.toml").read_text()
    (folder / "plan.toml").write_text(text.replace('role = "fit"', 'role = "fitted"'))
    with pytest.raises(RecordError, match=r"runs.0.role"):
        read_plan(folder / "plan.toml")


def test_another_prediction_is_another_run(folder):
    plan = read_plan(folder / "plan.toml")
    run = plan.runs[0]
    other = run.model_copy(
        update={"predicted": run.predicted.model_copy(update={"preemptions": 1})}
    )
    assert plan.store_key(run) != plan.store_key(other)


def test_a_plan_is_carried_out_once(folder):
    first = carry_out(folder)
    assert (first.measured, first.failed, first.problems) == (["small", "large"], {}, [])
    second = carry_out(folder)
    assert (second.measured, second.found) == ([], ["small", "large"])
    runs = {run.key: run for run in read_store(folder / "runs").runs}
    assert runs["small"].metrics["output_tok_s"].repeats == 2
    assert runs["large"].facts.kv_cache_tokens == 65_536
    assert runs["large"].plan.runs[0].predicted == read_plan(folder / "plan.toml").runs[1].predicted


def test_a_damaged_repeat_is_measured_again_and_the_rest_kept(folder):
    carry_out(folder)
    store = folder / "runs"
    key = next(path for path in store.iterdir() if path.name.startswith("small"))
    damaged = key / "repeat-1.json"
    damaged.write_text(damaged.read_text()[:-20])
    (key / "repeat-0.json").touch()
    evidence = read_store(store)
    assert any("repeat-1.json" in problem for problem in evidence.problems)
    assert {r.key: len(r.repeats) for r in evidence.runs} == {"small": 1, "large": 1}


def test_a_hung_benchmark_costs_its_run_only(folder, monkeypatch):
    monkeypatch.setenv("FAKE_BENCH", "hang")
    quick = RunSettings(sys.executable, start_timeout_s=30, load_timeout_s=0.5, attempts=1)
    plan, store = read_plan(folder / "plan.toml"), Store(folder / "runs")
    outcome = run_plan(plan, folder, store, quick, lambda _what, _share: None)
    assert set(outcome.failed) == {"small", "large"}
    assert "--load-timeout" in outcome.failed["small"]
    monkeypatch.delenv("FAKE_BENCH")
    assert carry_out(folder).measured == ["small", "large"]


def test_an_engine_that_dies_is_started_again(folder, monkeypatch):
    monkeypatch.setenv("FAKE_FAULT", "crash-on-reset")
    outcome = carry_out(folder)
    assert "illegal memory access" in outcome.failed["small"]
    assert len(list((folder / "runs" / ".logs").iterdir())) >= 1
    monkeypatch.delenv("FAKE_FAULT")
    assert carry_out(folder).failed == {}


def test_an_engine_that_does_not_start_says_why(folder, monkeypatch):
    monkeypatch.setenv("FAKE_FAULT", "oom")
    with pytest.raises(EngineFailedError, match="does not fit"):
        carry_out(folder)


def test_a_log_of_an_unknown_version_is_used_with_what_it_lacks(folder, monkeypatch):
    monkeypatch.setenv("FAKE_FAULT", "unknown")
    assert carry_out(folder).failed == {}
    run = read_store(folder / "runs").runs[0]
    assert {"version", "kv_cache_tokens"} <= set(run.facts.unread)
    assert [row.name for row in compare(run, folder).memory] == ["KV blocks"]


def test_requests_that_fail_are_no_evidence(folder, monkeypatch):
    monkeypatch.setenv("FAKE_BENCH", "fail")
    outcome = carry_out(folder)
    assert "requests failed" in outcome.problems[0]
    with pytest.raises(RecordError, match="no usable run"):
        read_store(folder / "runs")


def test_a_full_disk_ends_the_run_and_leaves_the_store_usable(folder):
    """No file of the run and its children may exceed 40 kB: the second run's record does."""
    small, large = wanted()
    load = large.load.model_copy(update={"num_prompts": 400})
    plan = build_plan(setup(), [small, replace(large, load=load)], folder)
    write_plan(folder / "plan.toml", plan)
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000));"
        "from moeplan.validate.cli import validate; validate()"
    )
    argv = [sys.executable, "-c", script, "run", str(folder / "plan.toml")]
    argv += ["-o", str(folder / "runs")]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 3
    assert "File too large" in ended.stderr
    assert "make room and run again" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert _commands() == ""
    assert [run.key for run in read_store(folder / "runs").runs] == ["small"]
    outcome = carry_out(folder)
    assert (outcome.found, outcome.measured) == (["small"], ["large"])


def test_ctrl_c_in_mid_run_leaves_a_store_that_continues(folder, monkeypatch):
    monkeypatch.setenv("FAKE_BENCH", "hang")
    argv = [sys.executable, "-m", "moeplan.validate", "run", str(folder / "plan.toml")]
    argv += ["-o", str(folder / "runs")]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as running:
        while running.stderr.readline().strip() != "small":
            pass
        time.sleep(1.0)
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=60) == 130
    assert _commands() == ""
    monkeypatch.delenv("FAKE_BENCH")
    assert carry_out(folder).measured == ["small", "large"]


def _commands() -> str:
    """Command lines of all processes that were given our stand-in."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environment = (entry / "environ").read_bytes()
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if FAKE.encode() in environment and b"pytest" not in command:
                found.append(command.replace(b"\0", b" ").decode())
    return "\n".join(found)


def test_records_carry_the_engines_own_facts_and_the_routing_check(folder):
    write_plan(folder / "plan.toml", build_plan(setup(routers=True), wanted(), folder))
    carry_out(folder)
    run = next(r for r in read_store(folder / "runs").runs if r.key == "large")
    record = to_record(run, folder)
    assert record.workload.concurrency == 8
    assert record.measured["output_tok_s"] == pytest.approx(256)
    assert record.engine_facts.kv_cache_tokens == 65_536
    assert record.engine_facts.num_gpu_blocks == 64
    assert record.engine_facts.routing.batch_tokens == 16
    assert record.engine_facts.routing.distinct_experts_mean == 7.5
    assert "routing counted" in record.notes


def test_routers_that_cannot_be_checked_are_reported(folder, monkeypatch):
    monkeypatch.setenv("FAKE_FAULT", "no-extension")
    write_plan(folder / "plan.toml", build_plan(setup(routers=True), wanted(), folder))
    outcome = carry_out(folder)
    assert outcome.measured == ["small", "large"]
    assert "routing not checked" in outcome.problems[0]
    run = read_store(folder / "runs").runs[0]
    assert any("no evidence" in note for note in compare(run, folder).notes)


def test_the_report_shows_the_stored_predictions(folder, capsys):
    carry_out(folder)
    page = folder / "report.html"
    arguments = ["report", str(folder / "runs"), "-o", str(page), "--json"]
    with pytest.raises(SystemExit, match="0"):
        validate(arguments)
    found = {item["key"]: item for item in json.loads(capsys.readouterr().out)}
    planned = read_plan(folder / "plan.toml").runs[1].predicted.metrics["output_tok_s"]
    rows = {row["name"]: row for row in found["large"]["client"]}
    assert rows["output_tok_s"]["predicted"] == planned
    text = page.read_text()
    assert "What the client saw" in text
    assert "no steps were recorded" in text
    assert "<script" in text
    assert "http://" not in text.split("<script")[0]


def test_the_report_writes_records(folder):
    carry_out(folder)
    records = folder / "records.jsonl"
    arguments = ["report", str(folder / "runs"), "-o", str(folder / "r.html")]
    with pytest.raises(SystemExit, match="0"):
        validate([*arguments, "--records", str(records)])
    assert len(read_records(records).records) == 2


def test_replicas_are_refused(tmp_path):
    write_tiny_model("qwen3_moe", tmp_path / "model")
    scenario = Scenario(model="model", device="cpu", replicas=2, gpus=2, nodes=2, max_model_len=512)
    with pytest.raises(InputError, match="--replicas"):
        build_plan(Setup(scenario, hardware_dir=str(CPU)), wanted(), tmp_path)


def test_several_plans_share_a_store_and_a_failing_start_costs_its_own_only(folder, monkeypatch):
    own = folder / "own.toml"
    own.write_text(
        '[[run]]\nkey = "tiny"\nwhy = "by hand"\nrole = "held-out"\n'
        'load = { kind = "closed_loop", concurrency = 2, input_tokens = 8, output_tokens = 4,'
        " num_prompts = 4 }\n"
    )
    hardware, model = str(folder / "hardware"), str(folder / "model")
    words = ["--device", "cpu", "--engine-version", "0.32.0", "--enforce-eager", "--no-probe"]
    words += ["--hardware-dir", hardware, "--runs", str(own), "-o", str(folder / "second.toml")]
    validate(["plan", model, *words], standalone_mode=False)
    second = read_plan(folder / "second.toml")
    assert [(run.key, run.role) for run in second.runs] == [("second-tiny", "held-out")]
    files = [folder / "plan.toml", folder / "second.toml"]
    store = Store(folder / "runs")
    done = run_plans(files, store, SETTINGS, lambda _what, _share: None)
    assert done.measured == ["small", "large", "second-tiny"]
    monkeypatch.setenv("FAKE_FAULT", "oom")
    failed = run_plans(files, Store(folder / "other"), SETTINGS, lambda _what, _share: None)
    assert set(failed.failed) == {"plan", "second"}


def test_own_runs_that_cannot_be_read_name_the_field(tmp_path):
    (tmp_path / "own.toml").write_text('[[run]]\nkey = "a"\nwhy = "b"\nrole = "fitted"\n')
    with pytest.raises(RecordError, match=r"run.0.role"):
        read_own_runs(tmp_path / "own.toml", "plan")


def test_a_warm_up_is_short():
    load = ClosedLoop(concurrency=64, input_tokens=4096, output_tokens=256, num_prompts=640)
    assert (load.shrunk().num_prompts, load.shrunk().output_tokens) == (16, 16)
