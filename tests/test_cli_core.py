"""The command line's own machinery: errors, numbers, JSON, traffic lists."""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from moeplan.cli import app, render
from moeplan.cli.boundary import ErrorBoundary
from moeplan.cli.lazy import GUESTS
from moeplan.cli.lazy import listing as listed_commands
from moeplan.cli.traffic import TrafficOptions, build_workloads
from moeplan.errors import DoesNotFitError, InputError
from moeplan.estimate import Estimate
from moeplan.options import parse_options

runner = CliRunner()


def failing(error: BaseException):
    """A program whose only command raises."""
    program = typer.Typer(cls=ErrorBoundary, rich_markup_mode=None)

    @program.callback()
    def root() -> None: ...

    @program.command()
    def boom() -> None:
        raise error

    return runner.invoke(program, ["boom"])


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("gpus is 0; it must be at least 1"), 2, "error: gpus is 0; it must be"),
        (DoesNotFitError("2 GiB\nare missing", 2.0), 3, "error: 2 GiB are missing"),
        (ZeroDivisionError("division by zero"), 1, "error: moeplan failed (ZeroDivisionError"),
    ],
)
def test_every_error_is_one_line_and_an_exit_code(error, code, line):
    result = failing(error)
    assert result.exit_code == code
    assert result.stderr.startswith(line)
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_an_interrupt_leaves_with_130_and_without_a_word():
    result = failing(KeyboardInterrupt())
    assert result.exit_code == 130
    assert "Traceback" not in result.output


def test_a_traceback_shows_only_when_asked_for(monkeypatch):
    monkeypatch.setenv("MOEPLAN_DEBUG", "1")
    assert "Traceback" in failing(RuntimeError("inside")).stderr


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["hardwar"], "hardware"),
        (["hardware", "--jason"], "--json"),
        (["fit", "gpt-oss-120b"], "--device"),
        (["fit", "gpt-oss-120b", "--device", "gb10", "--gpus", "many"], "many"),
    ],
)
def test_usage_errors_are_one_line_too(arguments, hint):
    result = runner.invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert hint in result.stderr
    assert result.stderr.count("\n") == 1


def test_help_lists_every_command_with_its_own_first_line():
    listing = runner.invoke(app, ["--help"])
    assert listing.exit_code == 0
    shown = " ".join(listing.stdout.split())
    for name, line in listed_commands().items():
        assert f"{name} {line}" in shown
        own = runner.invoke(app, [name, "--help"])
        assert own.exit_code == 0
        assert line in " ".join(own.stdout.split())


def test_a_guest_command_is_listed_where_it_is_installed(monkeypatch, tmp_path):
    (tmp_path / "guest_of_moeplan.py").write_text(
        "import typer\n\ndef guest() -> None:\n    print('hello')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(GUESTS, "guest", ("guest_of_moeplan", "Say hello."))
    monkeypatch.setitem(GUESTS, "stranger", ("not_installed_anywhere", "Say nothing."))
    listing = runner.invoke(app, ["--help"]).stdout
    assert "Say hello." in listing
    assert "stranger" not in listing
    assert runner.invoke(app, ["guest"]).stdout == "hello\n"
    assert runner.invoke(app, ["stranger"]).exit_code == 2


def cpu_seconds(code: str) -> float:
    """Least CPU time of a fresh interpreter over three runs, less that of an empty one."""

    def once(text: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-P", "-c", text], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return min(once(code) for _ in range(3)) - min(once("pass") for _ in range(3))


def test_importing_moeplan_is_fast_and_light():
    heavy = "('scipy', 'simpy', 'pydantic', 'numpy', 'typer', 'plotly', 'rich')"
    code = f"import moeplan, sys; assert not [m for m in {heavy} if m in sys.modules]"
    assert cpu_seconds(code) < 0.3


def test_help_is_fast_because_it_imports_no_command():
    code = (
        "import sys; sys.argv = ['moeplan', '--help']\nfrom moeplan.cli import main\n"
        "try: main()\nexcept SystemExit: pass\nassert 'pydantic' not in sys.modules"
    )
    assert cpu_seconds(code) < 0.5


def test_public_names_are_those_of_their_rooms():
    import moeplan
    from moeplan.deployment import Cluster, Deployment
    from moeplan.simulation.workload import Workload

    assert (moeplan.Cluster, moeplan.Deployment, moeplan.Workload) == (
        Cluster,
        Deployment,
        Workload,
    )
    for name in moeplan.__all__:
        assert callable(getattr(moeplan, name))
    with pytest.raises(AttributeError, match="no attribute 'simulation_of_all'"):
        _ = moeplan.simulation_of_all


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0123456, "0.0123"), (1.2345, "1.23"), (12.345, "12.3"), (999.96, "1,000"),
     (123456.7, "123,457"), (0, "0"), (None, "–"), (math.nan, "–")],
)  # fmt: skip
def test_numbers_keep_three_digits(value, text):
    assert render.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.5e-5, "25.0 µs"), (0.0312, "31.2 ms"), (2.5, "2.50 s"), (1200.0, "20.0 min")],
)
def test_times_carry_the_unit_that_suits_them(value, text):
    assert render.seconds(value) == text


def test_estimates_show_their_interval_once_they_have_one():
    assert render.estimate(Estimate(12.0, "interpolated")) == "12.0"
    assert render.interval(Estimate(12.0, "interpolated")) == ""
    assert render.interval(Estimate(12.0, "interpolated", 11.0, 13.5)) == "11.0 – 13.5"


def test_a_calibration_that_says_nothing_here_is_named_once(capsys):
    found = Estimate(
        12.0, "interpolated", caveat="calibration is of h200; of it nothing applies here"
    )
    render.print_trust([found, found, None])
    printed = capsys.readouterr().out
    assert "Predictions: uncalibrated" in printed
    assert printed.count("The calibration is of h200; of it nothing applies here.") == 1


def test_json_holds_no_nan_and_no_foreign_types():
    @dataclass
    class Row:
        name: str
        values: tuple[float, ...]

    data = {"row": Row("a", (1.0, math.inf)), "count": np.int64(3), "share": np.float64("nan")}
    assert json.loads(json.dumps(render.plain(data))) == {
        "row": {"name": "a", "values": [1.0, None]},
        "count": 3,
        "share": None,
    }


def workloads(**words):
    return build_workloads(parse_options(TrafficOptions, words))


def test_a_list_of_concurrencies_is_a_sweep_with_ten_prompts_each():
    points = workloads(concurrency="1,4, 8")
    assert [(w.concurrency, w.num_prompts) for w in points] == [(1, 10), (4, 40), (8, 80)]
    assert {w.arrivals for w in points} == {"closed"}


def test_a_rate_means_poisson_arrivals():
    point, _ = workloads(rate="0.5,2")
    assert (point.arrivals, point.request_rate, point.num_prompts) == ("poisson", 0.5, 1000)


def test_range_ratio_spreads_lengths_around_the_nominal_ones():
    (point,) = workloads(input=1000, output=100, range_ratio=0.2)
    assert point.input_range == (0.8, 1.2)
    assert point.longest_tokens == 1320


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        ({"concurrency": "1,x"}, "concurrency holds 'x'"),
        ({"concurrency": "0"}, "concurrency is 0"),
        ({"concurrency": "-1"}, "concurrency is -1"),
        ({"concurrency": "1.5"}, "concurrency holds '1.5'"),
        ({"concurrency": ""}, "concurrency holds ''"),
        ({"rate": "nan"}, "rate is nan"),
        ({"rate": "inf"}, "rate is inf"),
        ({"rate": "1,2", "concurrency": "1,2"}, "sweep one of them"),
        ({"rate": "1", "arrivals": "closed"}, "rate does not go with closed"),
        ({"arrivals": "poisson"}, "request_rate is missing"),
        ({"arrivals": "trace"}, "--arrivals trace FILE"),
        ({"arrivals": "uniform"}, "arrivals is uniform; it must be one of closed"),
        ({"input": 0}, "input is 0; it must be at least 1"),
        ({"output": -5}, "output is -5; it must be at least 1"),
        ({"range_ratio": math.nan}, "range_ratio is nan; it must be a finite number"),
    ],
)
def test_traffic_that_makes_no_sense_is_refused_by_name(words, rule):
    with pytest.raises(InputError, match=rule.replace("(", r"\(")):
        workloads(**words)
