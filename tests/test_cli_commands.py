"""Each command on real data: tables and JSON, names, limits, exit codes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from support.cli import refuse, run, squeezed

from moeplan.models import list_models
from moeplan.planner.objective import TIE
from moeplan.records import published

GPT = ["gpt-oss-120b", "--device", "h100_sxm"]


def read_json(*arguments: str):
    def no_constant(name: str):
        raise AssertionError(f"{name} in JSON")

    return json.loads(run(*arguments, "--json").stdout, parse_constant=no_constant)


class TestModels:
    def test_the_list_holds_the_catalogue(self):
        rows = read_json("models")
        assert [row["model"] for row in rows] == list(list_models())
        assert len(rows) >= 32

    def test_table_and_json_agree(self):
        table = squeezed(run("models").stdout)
        for row in read_json("models"):
            assert f" {row['model']} " in table
            assert f"{row['max_position_embeddings']:,}" in table

    def test_one_model_shows_counts_and_sources(self):
        data = read_json("models", "gpt-oss-120b")
        assert sum(data["components"].values()) == data["total_params"]
        assert sum(kind["layers"] for kind in data["layer_kinds"]) == data["layers"] == 36
        table = squeezed(run("models", "openai/gpt-oss-120b").stdout)
        assert "routed_experts" in table
        assert data["checkpoints"][0]["repo"] in table

    def test_an_unknown_model_names_the_nearest(self):
        assert "gpt-oss-120b" in refuse("models", "gpt-os-120b")

    @pytest.mark.parametrize(
        ("content", "named"),
        [
            ("{", "line 1"),
            ("[1]", "JSON object"),
            ('{"model_type": "gpt_oss", "hidden_size": Infinity}', "hidden_size = inf"),
            ('{"model_type": "gemma3", "text_config": {"hidden_size": -3}}', "hidden_size = -3"),
            ('{"model_type": "frobnicator"}', "frobnicator"),
        ],
    )
    def test_a_malformed_config_names_the_field(self, tmp_path, content, named):
        (tmp_path / "config.json").write_text(content)
        assert named in refuse("models", str(tmp_path))
        assert named in refuse("fit", str(tmp_path / "config.json"), "--device", "gb10")


class TestHardware:
    def test_the_list_holds_devices_fabrics_and_engines(self):
        data = read_json("hardware")
        assert {"gb10", "h100_sxm", "rtx_pro_6000"} <= {row["id"] for row in data["devices"]}
        assert {"cx7-200gbe", "nvlink5"} <= {row["id"] for row in data["fabrics"]}
        assert {"vllm", "sglang", "trtllm"} == {row["engine"] for row in data["engines"]}
        table = squeezed(run("hardware").stdout)
        for row in (*data["devices"], *data["fabrics"]):
            assert row["id"] in table

    def test_every_figure_of_a_device_has_grade_and_source(self):
        data = read_json("hardware", "gb10")
        for row in (*data["figures"], *data["kernels"]):
            assert row["grade"]
            assert row["source"]
        assert data["figures"][0]["source"] in squeezed(run("hardware", "gb10").stdout)

    def test_constants_list_every_parameter(self):
        everything = read_json("hardware", "--constants")
        mine = read_json("hardware", "--constants", "gb10")
        assert 0 < len(mine) < len(everything)
        assert all("gb10" in row["address"].split("/") for row in mine)
        assert all(row["source"] for row in everything)

    def test_an_unknown_device_names_the_nearest(self):
        assert "gb10" in refuse("hardware", "gb1")


class TestFit:
    MISTRAL = (
        *("fit", "mistral-large-2411", "--checkpoint", "nvfp4", "--device", "gb10"),
        *("--kv", "fp8", "--max-model-len", "32768"),
    )

    def test_parts_add_up_to_what_the_engine_takes(self):
        data = read_json(*self.MISTRAL)
        memory = {name: figure for name, figure in data["memory"].items() if name.endswith("_gib")}
        inside = sum(memory[f"{part}_gib"]["value"] for part in data["in_request"])
        assert inside == pytest.approx(memory["requested_gib"]["value"], rel=1e-6)
        weights = data["memory"]["weights_by_component_gib"].values()
        assert sum(w["value"] for w in weights) == pytest.approx(memory["weights_gib"]["value"])

    def test_table_shows_the_figures_of_the_json(self):
        data, table = read_json(*self.MISTRAL), squeezed(run(*self.MISTRAL).stdout)
        assert f"{data['memory']['weights_gib']['value']:,.2f}" in table
        assert f"{data['memory']['kv_tokens']:,} tokens" in table
        assert "hypothetical" in table
        assert "uncalibrated" in table

    def test_longer_sequences_are_fewer(self):
        rows = read_json(*self.MISTRAL)["sequences"]
        fitting = [row["sequences"] for row in rows]
        assert fitting == sorted(fitting, reverse=True)
        assert rows[-1]["tokens"] == 32768

    def test_what_does_not_fit_names_what_is_missing_and_what_would_do(self):
        line = refuse("fit", "deepseek-v3", "--device", "rtx_pro_6000", "--gpus", "2", code=3)
        assert "GiB" in line
        assert "the smallest that fits" in line

    def test_what_fits_nowhere_says_so(self):
        line = refuse("fit", "kimi-k2", "--device", "rtx_3090", "--max-model-len", "1024", code=3)
        assert "GiB" in line

    @pytest.mark.parametrize(
        ("extra", "named"),
        [
            (["--gpus", "3"], "attention heads"),
            (["--pp", "64", "--tp", "1"], "36 layers"),
            (["--gpus", "0"], "gpus is 0; it must be at least 1"),
            (["--gpus", "-1"], "gpus is -1"),
            (["--gpus", "nan"], "gpus is nan; it must be a whole number"),
            (["--gpus", "1000000000"], "it must be at most"),
            (["--gpu-memory-utilization", "nan"], "gpu_memory_utilization is nan"),
            (["--checkpoint", "mxpf4"], "mxfp4"),
            (["--fabric", "nvlink9"], "nvlink5"),
            (["--kv", "fp3"], "auto, bf16, fp8"),
            (["--router", "random"], "simple-shuffle"),
            (["--max-model-len", "999999"], "131072"),
            (["--dp", "2"], "not modelled"),
        ],
    )
    def test_wrong_input_is_named(self, extra, named):
        assert named in refuse("fit", *GPT, *extra)

    def test_fp8_kv_is_refused_where_no_kernel_reads_it(self):
        line = refuse("fit", "gpt-oss-20b", "--device", "rtx_3090", "--kv", "fp8")
        assert "fp8" in line.lower()

    def test_unused_gpus_are_said(self):
        assert "2 of 4 GPUs stay unused" in run("fit", *GPT, "--gpus", "4", "--tp", "2").stdout


class TestExplain:
    STEP = ("explain", *GPT, "--gpus", "2", "--batch", "32", "--context", "8192")

    def test_operators_and_the_rest_add_up_to_the_step(self):
        data = read_json(*self.STEP)
        operators = sum(row["seconds"] for row in data["operators"])
        rest = sum(stage["other_seconds"] for stage in data["stages"])
        assert operators + rest == pytest.approx(data["step_seconds"]["value"], rel=1e-9)
        assert all(row["source"] and row["family"] for row in data["operators"])

    def test_table_shows_each_operator_and_the_step(self):
        data, table = read_json(*self.STEP), squeezed(run(*self.STEP).stdout)
        for row in data["operators"]:
            assert row["name"] in table
        assert f"step: {data['step_seconds']['value'] * 1e3:.1f} ms" in table
        assert "effective bit-work" in table

    def test_prefill_costs_more_than_a_lone_decode(self):
        decode = read_json("explain", *GPT)["step_seconds"]["value"]
        prefill = read_json("explain", *GPT, "--batch", "0", "--prefill", "4096")
        assert prefill["step_seconds"]["value"] > decode

    @pytest.mark.parametrize(
        ("extra", "named"),
        [
            (["--batch", "0"], "a step needs"),
            (["--batch", "-1"], "batch is -1"),
            (["--context", "0"], "context is 0"),
            (["--batch", "5000"], "max_num_seqs"),
            (["--prefill", "20000"], "max_num_batched_tokens"),
        ],
    )
    def test_impossible_steps_are_named(self, extra, named):
        assert named in refuse("explain", *GPT, *extra)


class TestSimulate:
    LOAD = ("--input", "512", "--output", "64")

    def test_a_sweep_shows_the_figures_of_its_json(self):
        arguments = ("simulate", *GPT, *self.LOAD, "--concurrency", "1,4,8")
        points, table = read_json(*arguments)["points"], squeezed(run(*arguments).stdout)
        assert [p["workload"]["concurrency"] for p in points] == [1, 4, 8]
        rates = [p["output_tok_s"]["value"] for p in points]
        assert rates == sorted(rates)
        for rate in rates:
            assert f"{rate:,.0f}" in table
        assert table.count("uncalibrated") == 1

    def test_one_load_shows_percentiles(self):
        (point,) = read_json("simulate", *GPT, *self.LOAD, "--concurrency", "4")["points"]
        for metric in ("ttft_s", "tpot_s", "itl_s", "e2e_s"):
            figures = point[metric]
            assert figures["p50"]["value"] <= figures["p90"]["value"] <= figures["p99"]["value"]
        speed = point["output_tok_s"]
        assert speed["low"] < speed["value"] < speed["high"]
        assert "published runs" in speed["interval_from"]
        assert point["ttft_s"]["p99"]["low"] is None  # tails are judged by too few runs
        table = squeezed(run("simulate", *GPT, *self.LOAD, "--concurrency", "4").stdout)
        assert "mean p50 p90 p99" in table
        assert f"{point['output_tok_s']['value']:,.0f}" in table

    def test_rates_and_traces(self, tmp_path):
        trace = tmp_path / "trace.jsonl"
        rows = [{"timestamp": i * 0.1, "input_length": 64, "output_length": 8} for i in range(5)]
        trace.write_text("\n".join(json.dumps(row) for row in rows))
        (point,) = read_json("simulate", *GPT, "--arrivals", "trace", str(trace))["points"]
        assert point["workload"]["num_prompts"] == 5
        points = read_json("simulate", *GPT, *self.LOAD, "--rate", "1,2", "--num-prompts", "20")
        assert [p["workload"]["request_rate"] for p in points["points"]] == [1, 2]

    def test_a_malformed_trace_names_the_line(self, tmp_path):
        trace = tmp_path / "trace.jsonl"
        trace.write_text('{"timestamp": 0, "input_length": 64, "output_length": 8}\n{"timestamp"\n')
        assert "line 2" in refuse("simulate", *GPT, "--arrivals", "trace", str(trace))

    def test_the_plot_is_one_page_that_needs_nothing_else(self, tmp_path):
        page = tmp_path / "load.html"
        run("simulate", *GPT, *self.LOAD, "--concurrency", "1,2", "--plot", str(page))
        content = page.read_text()
        assert "gpt-oss-120b" in content
        assert "<script src=" not in content

    @pytest.mark.parametrize(
        ("extra", "named"),
        [
            (["--concurrency", "0"], "concurrency is 0"),
            (["--rate", "nan"], "rate is nan"),
            (["--rate", "-1"], "rate is -1"),
            (["--input", "0"], "input is 0"),
            (["--output", "1000000"], "positions"),
            (["--plot", "curve.png"], ".html"),
            (["--plot", "nowhere/curve.html"], "no folder"),
        ],
    )
    def test_wrong_loads_are_named(self, extra, named):
        assert named in refuse("simulate", *GPT, *extra)

    def test_a_missing_calibration_is_named(self, tmp_path):
        missing = tmp_path / "none.json"
        assert "none.json" in refuse("simulate", *GPT, "--calibration", str(missing))


class TestRecommend:
    ASK = (
        *("recommend", "gpt-oss-20b", "--device", "h100_sxm", "--gpus", "2"),
        *("--input", "256", "--output", "32", "--concurrency", "4"),
    )

    def test_the_winner_is_the_best_that_was_simulated_or_ties_with_it(self):
        data = read_json(*self.ASK)
        best = max(row["output_tok_s"]["value"] for row in data["simulated"])
        assert data["winner"]["output_tok_s"]["value"] >= best * (1 - TIE)
        counts = data["counts"]
        assert counts["simulated"] == len(data["simulated"]) > 0
        table = squeezed(run(*self.ASK).stdout)
        for command in data["winner"]["commands"]:
            assert squeezed(command) in table
        assert f"{counts['built']:,} deployments built" in table
        assert "Pareto front" in table

    def test_pins_hold(self):
        rows = read_json(*self.ASK, "--tp", "1", "--replicas", "2", "--kv", "bf16")["simulated"]
        assert {row["placement"] for row in rows} == {"2×TP1"}
        assert {row["kv_cache_dtype"] for row in rows} == {"bf16"}

    def test_limits_hold_or_nothing_is_recommended(self):
        data = read_json(*self.ASK, "--ttft", "10s", "--itl", "p99:1s")
        assert data["limits"] == ["TTFT ≤ 10 s", "p99 ITL ≤ 1 s"]
        line = refuse(*self.ASK, "--ttft", "0.001ms", code=3)
        assert "nearest" in line
        assert "TTFT" in line

    def test_a_model_that_fits_nowhere_leaves_with_3(self):
        line = refuse("recommend", "deepseek-v3", "--device", "gb10", "--gpus", "2", code=3)
        assert "GiB" in line
        assert "the smallest that fits" in line

    def test_the_pareto_plot_is_written(self, tmp_path):
        page = tmp_path / "pareto.html"
        run(*self.ASK, "--plot", str(page))
        assert "Pareto front" in page.read_text()

    @pytest.mark.parametrize(
        ("extra", "named"),
        [
            (["--ttft", "soon"], "2s, 30ms"),
            (["--concurrency", "1,2"], "moeplan simulate"),
            (["--tp", "8"], "no placement"),
            (["--objective", "glory"], "throughput, latency, cost"),
            (["--usd-per-gpu-hour", "-1"], "usd_per_gpu_hour is -1"),
        ],
    )
    def test_wrong_wishes_are_named(self, extra, named):
        assert named in refuse(*self.ASK, *extra)


PUBLISHED = sorted((Path(published.__file__).parent / "published").glob("*.jsonl"))


class TestScore:
    @pytest.fixture
    def records(self, tmp_path):
        """Two published records, one of an unknown model, and a line that is no record."""
        lines = PUBLISHED[0].read_text().splitlines()[:2]
        stranger = json.loads(lines[0]) | {
            "id": "stranger", "model": "nobody/Nothing-1T", "architecture": "nothing-1t",
        }  # fmt: skip
        file = tmp_path / "runs.jsonl"
        file.write_text("\n".join([*lines, json.dumps(stranger), '{"id": 3}']) + "\n")
        return file

    def test_the_report_holds_to_its_contract(self, records, tmp_path):
        out = tmp_path / "score.json"
        result = run("score", str(records), "--json", str(out), "--by", "hardware")
        report = json.loads(out.read_text())
        assert set(report) == {"records", "summary", "version", "calibration"}
        assert [item["covered"] for item in report["records"]] == [True, True, False]
        assert report["records"][2]["reason"]
        for item in report["records"][:2]:
            for metric in item["metrics"].values():
                assert set(metric) == {"measured", "predicted", "low", "high"}
                assert metric["predicted"] > 0
        assert "runs.jsonl:4" in result.stderr
        table = squeezed(result.stdout)
        assert "3 records, 2 predicted (67%), 1 malformed lines skipped" in table
        everything = report["summary"]["groups"]["everything"]["all"]["all"]
        for family, figures in everything.items():
            assert f"all {family} {figures['n']} {figures['median_error']:.1%}" in table

    def test_rows_print_every_comparison(self, records):
        table = squeezed(run("score", str(records), "--rows", "--by", "").stdout)
        first = json.loads(records.read_text().splitlines()[0])
        assert first["id"] in table

    def test_published_runs_ship_with_the_package(self):
        assert sum(len(file.read_text().splitlines()) for file in PUBLISHED) > 90

    def test_wrong_calls_are_named(self, records, tmp_path):
        assert "--published" in refuse("score")
        assert "hardware" in refuse("score", str(records), "--by", "hardwear")
        assert "no folder" in refuse("score", str(records), "--json", str(tmp_path / "x" / "o"))
        assert "none.jsonl" in refuse("score", str(tmp_path / "none.jsonl"))


def test_importing_a_benchmark_result_keeps_its_figures(tmp_path):
    result = {
        "date": "20261101-120000", "backend": "vllm", "endpoint_type": "openai",
        "model_id": "openai/gpt-oss-120b", "num_prompts": 40, "request_rate": "inf",
        "max_concurrency": 4, "duration": 10.0, "completed": 40, "total_input_tokens": 40960,
        "total_output_tokens": 5120, "output_throughput": 512.0, "mean_ttft_ms": 120.0,
        "mean_tpot_ms": 7.0,
    }  # fmt: skip
    source, out = tmp_path / "run.json", tmp_path / "runs.jsonl"
    source.write_text(json.dumps(result))
    data = read_json(
        *("records", "import", str(source), "--out", str(out), "--set", "hardware=h100_sxm"),
        *("--set", "gpus=1"),
    )
    (record,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert record["hardware"] == "h100_sxm"
    assert record["gpus"] == 1
    assert math.isclose(data["records"][0]["measured"]["output_tok_s"], 512.0)
    assert "field=value" in refuse(
        "records", "import", str(source), "--out", str(out), "--set", "hardware"
    )
