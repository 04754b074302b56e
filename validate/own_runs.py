"""Runs that a user wants, from a TOML file, in place of those that the plan would choose.

[[run]]
key = "c8"
why = "between the loads that are fitted"
role = "held-out"
repeats = 2
load = { kind = "closed_loop", concurrency = 8, input_tokens = 1024, output_tokens = 128,
         num_prompts = 32 }
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moeplan.errors import RecordError
from moeplan.validate.build import Wanted
from moeplan.validate.workloads import LoadPoint


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _OwnRun(_Strict):
    key: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    why: str
    role: Literal["fit", "held-out"]
    repeats: Annotated[int, Field(ge=1, le=100)] = 1
    load: LoadPoint


class _OwnRuns(_Strict):
    run: Annotated[list[_OwnRun], Field(min_length=1)]


def read_own_runs(path: Path, plan_name: str) -> list[Wanted]:
    """The runs of a file, in its order; keys begin with `plan_name`, so plans can share a store.

    Raises `RecordError` naming file and field.
    """
    try:
        found = _OwnRuns.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: no TOML: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RecordError(f"{path}: {where}: {first['msg']}") from None
    return [Wanted(f"{plan_name}-{r.key}", r.why, r.role, r.load, r.repeats) for r in found.run]
