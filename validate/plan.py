"""`plan.toml`: which runs, why, and what was predicted before any of them started."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from moeplan.errors import RecordError
from moeplan.scenario import Scenario
from moeplan.simulation.workload import Routing
from moeplan.validate.store import write_atomically
from moeplan.validate.workloads import LoadPoint

FORMAT = 1


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Predicted(_Strict):
    """What moeplan said before the run.

    `metrics` uses the names of run records (`output_tok_s`, `tpot_ms_mean`, ...). The rest says by
    which schedule it comes about.
    """

    metrics: dict[str, float]
    steps: int
    mean_step_ms: float
    mean_decodes: float
    """Sequences that decode, mean over steps."""
    preemptions: int
    prefix_hit_tokens: int


class PlannedRun(_Strict):
    """One load point, to be measured `repeats` times."""

    key: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    """Folder name in the store; unique in the plan."""
    why: str
    role: Literal["fit", "held-out"]
    """Held-out runs are compared, never fitted."""
    repeats: Annotated[int, Field(ge=1, le=100)] = 1
    minutes: Annotated[float, Field(ge=0)]
    """Estimated duration, repeats and warm-up included."""
    load: LoadPoint
    predicted: Predicted


class Launch(_Strict):
    """How the engine is started."""

    options: list[str]
    """Options of `vllm serve`, one argument an element."""
    model: str | None = None
    """Folder with weights, relative to the plan; None makes one without (`--load-format dummy`)."""
    layers: int | None = None
    """Layers of a cut model."""
    environment: dict[str, str] = {}
    probe: bool = True
    """Record every scheduler step from inside the engine."""
    routers: bool = False
    """Draw the routers of a model without weights and count the experts that they touch."""


class Calibration(_Strict):
    """The calibration behind the predictions."""

    path: str
    sha256: str


class Memory(_Strict):
    """The memory map's prediction."""

    kv_cache_tokens: int
    """As the engine prints it: what sequences of `max_model_len` would fill."""
    num_blocks: int
    weights_gib: float


class Plan(_Strict):
    """A validation: one engine start, several runs, all predicted."""

    format: Literal[1] = 1
    written: str
    """UTC, ISO 8601."""
    moeplan_version: str
    calibration: Calibration | None = None
    hardware_dir: str | None = None
    """Folder with hardware files of one's own, relative to the plan."""
    routing: Routing = "random"
    """Expert popularity that the predictions assume; random token ids for random prompts."""
    deployment: dict[str, Any]
    """Fields of a `Scenario` that are not at their default."""
    launch: Launch
    memory: Memory
    runs: list[PlannedRun]

    @model_validator(mode="after")
    def _keys_are_unique(self) -> Plan:
        keys = [run.key for run in self.runs]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise ValueError(f"run key {twice[0]!r} stands twice")
        return self

    @property
    def scenario(self) -> Scenario:
        """The deployment in a user's words; a model path in it is relative to the plan."""
        return Scenario.model_validate(self.deployment)

    @property
    def minutes(self) -> float:
        """Estimated duration of all runs, the engine's start left out."""
        return sum(run.minutes for run in self.runs)

    def digest(self, run: PlannedRun) -> str:
        """SHA-256 of everything that decides and predicts a run, eight digits of it."""
        about = {
            "deployment": self.deployment,
            "launch": self.launch.model_dump(),
            "calibration": self.calibration.sha256 if self.calibration else None,
            "run": run.model_dump(),
        }
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:8]

    def store_key(self, run: PlannedRun) -> str:
        """Folder of a run: another prediction or another set-up is another folder."""
        return f"{run.key}-{self.digest(run)}"


def now() -> str:
    """UTC to the second, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_plan(path: Path, plan: Plan) -> None:
    """Write a plan as TOML, whole or not at all."""
    import tomli_w

    values = _without_none(plan.model_dump(mode="json"))
    write_atomically(path, tomli_w.dumps(values, multiline_strings=False).encode())


def read_plan(path: Path) -> Plan:
    """Read a plan; raises `RecordError` naming file, field and remedy."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}; write a plan with `validate plan`") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: no TOML: {error}") from None
    if values.get("format") != FORMAT:
        raise RecordError(
            f"{path}: format is {values.get('format')!r}; this moeplan reads {FORMAT}: plan anew"
        )
    try:
        return Plan.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "plan"
        raise RecordError(f"{path}: {where}: {first['msg']}") from None


def _without_none(value: Any) -> Any:
    """TOML has no null: what is None is left out, and reads back as the default."""
    if isinstance(value, Mapping):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return value
