"""`moeplan validate`: predict, run real vLLM, compare; `moeplan calibrate` beside it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moeplan.cli.boundary import ErrorBoundary
from moeplan.cli.options import CalibrationFile, JsonFlag, with_options
from moeplan.cli.targets import check_target
from moeplan.errors import InputError
from moeplan.scenario import Scenario
from moeplan.validate.experiment import ExperimentOptions, plan_of

if TYPE_CHECKING:
    from moeplan.calibration import Calibration

validate = typer.Typer(
    cls=ErrorBoundary,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Predict, run real vLLM, compare.",
)


PlanFiles = Annotated[
    list[Path], typer.Argument(help="Plans that `validate plan` wrote, one engine start each.")
]
RunsFolder = Annotated[Path, typer.Argument(help="Folder that `validate run -o` wrote.")]
RunsFolders = Annotated[
    list[Path], typer.Argument(help="Folders that `validate run -o` or `validate unpack` wrote.")
]
PlanFolder = Annotated[
    Path | None,
    typer.Option(
        "--plan",
        exists=True,
        dir_okay=False,
        help="Plan whose folder holds traces, hardware files and the calibration.",
    ),
]
PythonOption = Annotated[
    str | None, typer.Option("--python", help="Python that has vLLM.  [default: this one]")
]
StartTimeout = Annotated[float, typer.Option(help="Seconds that the engine may take to start.")]
LoadTimeout = Annotated[float, typer.Option(help="Seconds that one benchmark run may take.")]


@validate.command()
@with_options
def plan(
    scenario: Scenario,
    experiment: ExperimentOptions,
    out: Annotated[Path, typer.Option("-o", "--out", help="Plan to write.")] = Path("plan.toml"),
) -> None:
    """Choose runs, predict them, write both down before anything runs."""
    from moeplan.validate.cli_show import show_plan
    from moeplan.validate.plan import write_plan

    check_target("out", out)
    made = plan_of(scenario, experiment, out, held_out=True)
    write_plan(out, made)
    show_plan(made)
    print(f"wrote {out}", file=sys.stderr)


@validate.command()
def run(
    plan_files: PlanFiles,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the store.")] = Path("runs"),
    python: PythonOption = None,
    start_timeout: StartTimeout = 1800.0,
    load_timeout: LoadTimeout = 900.0,
    port: Annotated[int | None, typer.Option(help="Port.  [default: a free one]")] = None,
) -> None:
    """Launch vllm serve, measure what the store lacks, stop it; run again to continue."""
    from moeplan.validate.cli_show import show_outcome
    from moeplan.validate.run import RunSettings, run_plans
    from moeplan.validate.store import Store

    settings = RunSettings(python or sys.executable, start_timeout, load_timeout, port=port)
    with _terminated_as_interrupt(), _progress() as report:
        outcome = run_plans(plan_files, Store(out), settings, report)
    show_outcome(outcome, out)


@validate.command()
def report(
    runs: RunsFolder,
    out: Annotated[Path, typer.Option("-o", "--out", help="Page to write.")] = Path("report.html"),
    plan_file: PlanFolder = None,
    records: Annotated[
        Path | None, typer.Option(help="Also append run records to this JSON Lines file.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Predicted against measured, stage by stage, as one HTML page."""
    from moeplan.cli.render import emit
    from moeplan.records.reader import write_records
    from moeplan.validate.cli_show import show_comparisons
    from moeplan.validate.compare import compare
    from moeplan.validate.measured import read_store
    from moeplan.validate.records import to_record
    from moeplan.validate.report import render

    check_target("out", out)
    check_target("records", records)
    evidence = read_store(runs)
    folder = (plan_file or runs.absolute()).parent
    pairs = [(found, compare(found, folder)) for found in evidence.runs]
    out.write_text(render(pairs, evidence.problems), encoding="utf-8")
    if records is not None:
        write_records(records, [to_record(found, folder) for found in evidence.runs])
    for problem in evidence.problems:
        print(f"not used: {problem}", file=sys.stderr)
    emit([comparison for _, comparison in pairs], as_json, show_comparisons)
    print(f"wrote {out}", file=sys.stderr)


@validate.command()
def compare(
    runs: RunsFolders,
    calibration: CalibrationFile = None,
    plan_file: PlanFolder = None,
    as_json: JsonFlag = False,
) -> None:
    """Predicted before, predicted anew with the experts counted and a calibration, measured."""
    from moeplan.calibration import load_calibration
    from moeplan.cli.render import emit
    from moeplan.hardware_specs import load_hardware
    from moeplan.validate.again import predict_again
    from moeplan.validate.cli_accuracy import show_accuracy
    from moeplan.validate.engines import Accuracy, summarise
    from moeplan.validate.measured import read_store

    evidence = [(store, read_store(store)) for store in runs]
    placed = [
        (run, (plan_file or store.absolute()).parent) for store, e in evidence for run in e.runs
    ]
    own = placed[0][0].plan.hardware_dir
    then = now = load_hardware(placed[0][1] / own if own else None)
    if calibration is not None:
        now = load_calibration(calibration).applied_to(then)
    found = [predict_again(run, folder, now) for run, folder in placed]
    emit(Accuracy(summarise(placed, then, now), found), as_json, show_accuracy)
    for problem in (problem for _, e in evidence for problem in e.problems):
        print(f"not used: {problem}", file=sys.stderr)


@validate.command()
@with_options
def probe(
    scenario: Scenario,
    experiment: ExperimentOptions,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the store.")] = Path("probe"),
    python: PythonOption = None,
    start_timeout: StartTimeout = 1800.0,
    load_timeout: LoadTimeout = 900.0,
) -> None:
    """Record step times and schedules from inside the engine, to calibrate from."""
    from moeplan.validate.cli_show import show_outcome
    from moeplan.validate.plan import write_plan
    from moeplan.validate.run import RunSettings, run_plan
    from moeplan.validate.store import Store

    if not experiment.probe:
        raise InputError("probe is off; leave --no-probe out")
    out.mkdir(parents=True, exist_ok=True)
    made = plan_of(scenario, experiment, out / "plan.toml", held_out=False)
    write_plan(out / "plan.toml", made)
    settings = RunSettings(python or sys.executable, start_timeout, load_timeout)
    with _terminated_as_interrupt(), _progress() as report_progress:
        outcome = run_plan(made, out, Store(out), settings, report_progress)
    show_outcome(outcome, out)


@validate.command()
def model(
    slug: Annotated[str, typer.Argument(help="Catalogue slug, or tiny-FAMILY for a tiny one.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write.")],
    checkpoint: Annotated[str | None, typer.Option(help="Form of the weights.")] = None,
    layers: Annotated[int | None, typer.Option(help="Cut to the first layers.")] = None,
) -> None:
    """Write a model folder without weights, for --load-format dummy."""
    from moeplan.validate.dummy_model import write_named

    print(write_named(slug, out, checkpoint, layers))


@validate.command()
def pack(
    runs: RunsFolder,
    out: Annotated[Path, typer.Option("-o", "--out", help="Archive to write.")] = Path(
        "runs.tar.gz"
    ),
) -> None:
    """Make one archive of a store, to carry home."""
    from moeplan.validate.archive import pack as pack_runs

    check_target("out", out)
    for problem in pack_runs(runs, out):
        print(f"left out: {problem}", file=sys.stderr)
    print(out)


@validate.command()
def unpack(
    archive: Annotated[Path, typer.Argument(help="Archive that `validate pack` wrote.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the store.")] = Path("runs"),
) -> None:
    """Unpack an archive into a store."""
    from moeplan.validate.archive import unpack as unpack_runs

    print(f"{unpack_runs(archive, out)} runs in {out}")


def calibrate(
    stores: Annotated[
        list[Path],
        typer.Argument(help="Folders of runs and probes, or files of run records (.jsonl)."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Calibration to write.")],
    hardware_dir: Annotated[
        Path | None, typer.Option(help="Folder with hardware files.  [default: the plans' own]")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Fit the parameters that measured steps identify; held-out runs only judge.

    Of run records it takes the client's figures that one kind of step makes up.
    """
    from moeplan.calibration import save_calibration
    from moeplan.cli.render import emit
    from moeplan.validate.cli_show import show_calibration

    check_target("out", out)
    found, problems = _fitted(stores, hardware_dir)
    save_calibration(out, found)
    for problem in problems:
        print(f"not used: {problem}", file=sys.stderr)
    emit(found, as_json, show_calibration)
    print(f"wrote {out}", file=sys.stderr)


def _fitted(stores: list[Path], hardware_dir: Path | None) -> tuple[Calibration, list[str]]:
    """The calibration that stores or files of records give, and what of them was not used."""
    if any(store.is_file() for store in stores):
        return _fitted_to_records(stores, hardware_dir)
    from moeplan.hardware_specs import load_hardware
    from moeplan.validate.calibrate import calibrate as fit
    from moeplan.validate.measured import read_store

    evidence = [read_store(store) for store in stores]
    runs = [(run, store.absolute().parent) for store, e in zip(stores, evidence, strict=True)
            for run in e.runs]  # fmt: skip
    own = hardware_dir or next((run.plan.hardware_dir for run, _ in runs), None)
    found = fit(runs, load_hardware(runs[0][1] / own if own else None))
    return found, [problem for e in evidence for problem in e.problems]


def _fitted_to_records(
    files: list[Path], hardware_dir: Path | None
) -> tuple[Calibration, list[str]]:
    from moeplan.calibration.from_records import calibrate_records
    from moeplan.cli.progress import progress_bar
    from moeplan.hardware_specs import load_hardware
    from moeplan.records.reader import read_many

    read = read_many(files)
    with progress_bar("calibrating") as bar:
        found, steps = calibrate_records(read.records, load_hardware(hardware_dir), bar)
    unused = [f"{name}: {reason}" for name, reason in steps.unused.items()]
    return found, [*read.problems, *unused]


@contextmanager
def _terminated_as_interrupt() -> Iterator[None]:
    """SIGTERM and a lost terminal end the run as Ctrl-C does: in order, nothing left behind."""

    def stop(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = {n: signal.signal(n, stop) for n in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress() -> Iterator:
    from moeplan.cli.progress import progress_bar

    with progress_bar("validating") as bar:
        last: list[str] = []

        def report(what: str, share: float) -> None:
            if not sys.stderr.isatty() and last[-1:] != [what]:
                print(what, file=sys.stderr)
            last.append(what)
            bar(share)

        yield report
