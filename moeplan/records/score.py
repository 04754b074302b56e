"""`score`: every record simulated and compared, one entry a record."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import active_children
from typing import Any

from moeplan.errors import MoeplanError
from moeplan.hardware_specs import Hardware
from moeplan.records.compare import Comparison, compare
from moeplan.records.prediction import CachingPredictor, Predict, deployment_key, run_record
from moeplan.records.record import RunRecord
from moeplan.records.rules import NotCovered
from moeplan.records.setup import deployment_of

Progress = Callable[[float], None]
"""Called with the share of records that are done."""

_RECORDS_A_TASK = 12


@dataclass(frozen=True, slots=True)
class RecordScore:
    """One record: what was compared, or why nothing was."""

    record: RunRecord
    covered: bool
    reason: str | None = None
    metrics: dict[str, Comparison] = field(default_factory=dict)
    not_compared: list[str] = field(default_factory=list)
    rules: tuple[str, ...] = ()


def score(
    records: Sequence[RunRecord],
    hardware: Hardware,
    *,
    jobs: int = 2,
    progress: Progress | None = None,
    predict: Predict | None = None,
) -> list[RecordScore]:
    """Simulate every record's deployment with its client protocol and compare its metrics.

    The order of `records` is kept. `jobs` processes share the work; with one, or with a `predict`
    of the caller's in place of the simulator, it stays in this process.
    """
    if jobs <= 1 or predict is not None or len(records) <= _RECORDS_A_TASK:
        return _score_here(records, hardware, predict or CachingPredictor(hardware), progress)
    return _score_in_processes(records, hardware, jobs, progress)


def _score_here(
    records: Sequence[RunRecord],
    hardware: Hardware,
    predict: Predict,
    progress: Progress | None,
) -> list[RecordScore]:
    found: list[RecordScore | None] = [None] * len(records)
    for done, index in enumerate(_like_together(records, hardware), 1):
        found[index] = score_record(records[index], hardware, predict)
        if progress:
            progress(done / len(records))
    return [item for item in found if item is not None]


def score_record(record: RunRecord, hardware: Hardware, predict: Predict) -> RecordScore:
    """Score of one record; what cannot be predicted carries its reason."""
    try:
        setup = deployment_of(record, hardware)
        outcome = run_record(record, setup, predict)
        compared = compare(record, setup, outcome, predict)
    except NotCovered as error:
        return RecordScore(record, False, error.reason)
    except MoeplanError as error:
        return RecordScore(record, False, str(error))
    if not compared.metrics:
        return RecordScore(record, False, "no metric that a simulation predicts")
    return RecordScore(record, True, None, compared.metrics, compared.not_compared, setup.rules)


def _like_together(records: Sequence[RunRecord], hardware: Hardware) -> list[int]:
    """Indices such that records of one deployment follow each other and share its tables."""
    return [index for group in _groups(records, hardware) for index in group]


def _groups(records: Sequence[RunRecord], hardware: Hardware) -> list[list[int]]:
    """Indices by deployment, the work of the groups falling: the long ones must not come last."""
    groups: dict[str, list[int]] = {}
    work: dict[str, float] = {}
    for index, record in enumerate(records):
        key, tokens = _key_and_work(record, hardware)
        groups.setdefault(key, []).append(index)
        work[key] = work.get(key, 0.0) + tokens
    return [groups[key] for key in sorted(groups, key=lambda key: -work[key])]


def _key_and_work(record: RunRecord, hardware: Hardware) -> tuple[str, float]:
    """What a record shares with others, and output tokens × pipeline stages, which cost time."""
    try:
        setup = deployment_of(record, hardware)
    except MoeplanError:
        return "", 0.0
    workload, placement = setup.workload, setup.deployment.placement
    key = f"{deployment_key(setup.deployment)}|{workload.longest_tokens}"
    return key, float(workload.size * workload.output_tokens * placement.pp)


_worker: dict[str, Any] = {}
"""Hardware and predictor of a worker process."""


def _start_worker(hardware: Hardware) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which ends this
    _worker["hardware"] = hardware
    _worker["predict"] = CachingPredictor(hardware)


def _score_task(task: list[tuple[int, RunRecord]]) -> list[tuple[int, RecordScore]]:
    hardware, predict = _worker["hardware"], _worker["predict"]
    return [(index, score_record(record, hardware, predict)) for index, record in task]


def _score_in_processes(
    records: Sequence[RunRecord], hardware: Hardware, jobs: int, progress: Progress | None
) -> list[RecordScore]:
    found: dict[int, RecordScore] = {}
    with _pool(jobs, hardware) as pool:
        futures = [pool.submit(_score_task, task) for task in _tasks(records, hardware)]
        for future in as_completed(futures):
            found.update(future.result())
            if progress:
                progress(len(found) / len(records))
    return [found[index] for index in range(len(records))]


@contextmanager
def _pool(jobs: int, hardware: Hardware) -> Iterator[ProcessPoolExecutor]:
    """Worker processes, ended at once where the block fails: a task may take half a minute."""
    others = set(active_children())
    pool = ProcessPoolExecutor(jobs, initializer=_start_worker, initargs=(hardware,))
    try:
        yield pool
    except BaseException:
        for child in set(active_children()) - others:
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _tasks(
    records: Sequence[RunRecord], hardware: Hardware
) -> Iterator[list[tuple[int, RunRecord]]]:
    """Pieces of work for a process, the longest first."""
    for group in _groups(records, hardware):
        for start in range(0, len(group), _RECORDS_A_TASK):
            yield [(index, records[index]) for index in group[start : start + _RECORDS_A_TASK]]
