"""`moeplan score --published`: tables, limits, constants, exit codes; `--json` and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from moeplan.cli import app
from moeplan.cli.score_published import figure
from moeplan.records import published
from moeplan.records.published import PublishedReport, Verdict, published_report


@pytest.fixture(scope="module")
def shipped() -> PublishedReport:
    """The real report, computed once."""
    from moeplan.hardware_specs import load_hardware

    return published_report(load_hardware(), jobs=1)


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch, shipped: PublishedReport) -> Any:
    """Runs `moeplan score --published` on a report, the real one unless changed."""

    def run(*args: str, **changes: Any) -> Any:
        report = replace(shipped, **changes)
        monkeypatch.setattr(published, "published_report", lambda *_, **__: report)
        return CliRunner().invoke(app, ["score", "--published", "--by", "", *args])

    return run


def test_a_file_without_records_is_refused_beside_the_published_runs_too(
    answer: Any, tmp_path: Path
) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    result = answer(str(empty))
    assert result.exit_code == 2
    assert "no record in" in result.stderr


def squeezed(text: str) -> str:
    return " ".join(text.split())


def test_every_limit_stands_beside_its_real_figure(answer: Any, shipped: PublishedReport) -> None:
    result = answer()
    assert result.exit_code == 0
    shown = squeezed(result.stdout)
    for table in shipped.tables:
        assert table.name in shown
        for verdict in table.verdicts:
            word = "held" if verdict.passed else "MISSED"
            assert squeezed(f"{verdict.limit} {figure(verdict)} {word}") in shown
            if not verdict.passed:
                assert squeezed(f"missed: {verdict.what}: {verdict.reason}") in shown


def test_lambda_shows_the_split_of_both_schedulers(answer: Any) -> None:
    lines = [line.split() for line in answer().stdout.splitlines()]
    for suffix in ("", "#prefill-only"):
        for metric in ("ttft_ms_mean", "itl_ms_mean"):
            assert any(line[:2] == [f"b200-2-x-nvfp4{suffix}", metric] for line in lines)


def test_json_holds_the_contract_and_the_tables(
    answer: Any, shipped: PublishedReport, tmp_path: Any
) -> None:
    out = tmp_path / "score.json"
    answer("--json", str(out))
    data = json.loads(out.read_text())
    assert set(data) == {"records", "summary", "version", "calibration", "published"}
    assert len(data["records"]) == len(shipped.scores)
    tables = data["published"]["tables"]
    assert [t["name"] for t in tables] == [t.name for t in shipped.tables]
    assert {v["passed"] for t in tables for v in t["verdicts"]} == {True, False}
    assert data["published"]["faults"] == []
    first = data["published"]["constants"][0]
    assert {"address", "value", "grade", "source", "samples", "records"} <= set(first)


def _without_reasons(report: PublishedReport) -> tuple[Any, ...]:
    return tuple(
        replace(table, verdicts=tuple(replace(v, reason=None) for v in table.verdicts))
        for table in report.tables
    )


def test_a_miss_without_a_reason_leaves_with_1(answer: Any, shipped: PublishedReport) -> None:
    result = answer(tables=_without_reasons(shipped))
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error")]
    missed = [v.what for t in shipped.tables for v in t.verdicts if not v.passed]
    assert missed
    assert all(what in line for what in missed)


def test_a_stale_reason_leaves_with_1(answer: Any) -> None:
    result = answer(stale_reasons=("decode (tg)",))
    assert result.exit_code == 1
    assert "decode (tg)" in result.stderr


def test_a_circular_constant_leaves_with_1(answer: Any, shipped: PublishedReport) -> None:
    first, *rest = shipped.constants
    result = answer(constants=(replace(first, source="kubis.ai, GPT-OSS page"), *rest))
    assert result.exit_code == 1
    assert first.address in result.stderr


def test_rows_list_every_constant(answer: Any, shipped: PublishedReport) -> None:
    joined = "".join(answer("--rows").stdout.split())
    named = {constant.address for constant in shipped.constants}
    assert len(named) > 200
    assert "kernels/gb10/moe/marlin-mxfp4/floor_us" in named
    assert "moeplan.cost.stage_memory.CONTEXT_BYTES" in named
    assert "fittopublishedservingruns:InferenceX" in joined


def test_figures_come_in_the_unit_of_their_limit() -> None:
    assert figure(Verdict("a", "median error ≤ 12%", 0.114, True)) == "11.4%"
    assert figure(Verdict("b", "within 0.15 of 1.20", 1.2923, True)) == "1.292"


PUBLISHED = sorted((Path(published.__file__).parent / "published").glob("*.jsonl"))


def _endless_records(folder: Path) -> Path:
    """Runs that take minutes to simulate, enough of them for several processes."""
    row = json.loads(PUBLISHED[2].read_text().splitlines()[0])
    row["workload"] |= {"num_prompts": 400_000, "concurrency": 200, "length_range": [0.2, 1.0]}
    file = folder / "long.jsonl"
    file.write_text("".join(json.dumps(row | {"id": f"long-{i}"}) + "\n" for i in range(30)))
    return file


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at processes in /proc")
def test_an_interrupt_ends_all_processes_soon(tmp_path: Path) -> None:
    code = "import os; os.sched_getaffinity = lambda _: {0, 1}; from moeplan.cli import app; app()"
    command = [sys.executable, "-c", code, "score", str(_endless_records(tmp_path))]
    run = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        start = time.monotonic()
        while len(_children(run.pid)) < 2 and time.monotonic() - start < 60:
            time.sleep(0.05)
        time.sleep(0.5)
        children = _children(run.pid)
        os.killpg(run.pid, signal.SIGINT)
        _, errors = run.communicate(timeout=15)
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
    assert run.returncode == 130
    assert b"Traceback" not in errors
    assert len(children) >= 2
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
