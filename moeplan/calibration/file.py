"""The calibration file: overrides by address, with covariance, residuals and a hash."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from moeplan.calibration.summary import FittedParameter, Summary, determined_values
from moeplan.errors import RecordError
from moeplan.hardware_specs.schema import Hardware, Uncertainty
from moeplan.version import __version__

if TYPE_CHECKING:
    from moeplan.calibration.fit import Fit
    from moeplan.calibration.front_end import FrontEndFit


class Calibration(BaseModel):
    """Parameters fitted to measured steps, as stored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    written: str
    """UTC, ISO 8601."""
    moeplan_version: str
    setups: list[str]
    """What was measured: model, device, placement, engine, one line each."""
    sources: list[str]
    """Runs whose steps were fitted."""
    parameters: list[FittedParameter]
    covariance: list[list[float]]
    """Of log(value), determined parameters only, in order."""
    before: Summary
    after: Summary
    held_out_before: Summary
    held_out_after: Summary
    host: list[FittedParameter] = []
    """What requests spend outside of the engine core, fitted to arrivals and client times."""
    host_covariance: list[list[float]] = []
    """Of log(value), determined ones of `host` only, in order. For the reader: intervals do not
    carry it, as the errors of served runs hold what these leave open."""
    front_end: dict[str, float] = {}
    """The same in older files: a TTFT constant set from a median, by address."""
    errors: dict[str, float]
    """|ln(predicted / measured)| that 80 % stay below after the fit: of decode steps ("step"), of
    steps with a prompt ("prompt") and, where runs were served, of their "tpot", "ttft" and
    "throughput". Of held-out ones where there are."""

    @property
    def overrides(self) -> dict[str, float]:
        """Values by address, for `Hardware.with_overrides`; undetermined ones are not in it."""
        return determined_values((*self.parameters, *self.host)) | self.front_end

    def applied_to(self, hardware: Hardware) -> Hardware:
        """Hardware data with the fitted values, and how sure they are."""
        determined = tuple(p.address for p in self.parameters if p.determined)
        known = Uncertainty(
            source=f"calibration of {self.written[:10]} on {len(self.sources)} runs",
            addresses=determined,
            covariance=tuple(tuple(row) for row in self.covariance),
            errors=self.errors,
            devices=self._said("device", "on"),
            versions=self._said("engine_version"),
            beside=tuple(address for address in self.overrides if address not in determined),
        )
        changed = hardware.with_overrides(self.overrides)
        return changed.model_copy(update={"uncertainty": known})

    def _said(self, *names: str) -> tuple[str, ...]:
        """Words that follow one of these in the setups, each once."""
        pattern = rf"\b(?:{'|'.join(names)}) ([^,\s]+)"
        return tuple(sorted({word for line in self.setups for word in re.findall(pattern, line)}))

    @property
    def sha256(self) -> str:
        """Hash of the content: what a plan stores beside its predictions."""
        return hashlib.sha256(_canonical(self)).hexdigest()


def calibration_of(
    fit: Fit,
    *,
    setups: list[str],
    sources: list[str],
    front_end: FrontEndFit | None = None,
    served: dict[str, float] | None = None,
) -> Calibration:
    """A fit as it is stored; `served` are the errors of served runs by family of metric."""
    return Calibration(
        written=datetime.now(UTC).isoformat(timespec="seconds"),
        moeplan_version=__version__,
        setups=setups,
        sources=sources,
        parameters=list(fit.parameters),
        covariance=fit.covariance.tolist(),
        before=fit.before,
        after=fit.after,
        held_out_before=fit.held_out_before,
        held_out_after=fit.held_out_after,
        host=list(front_end.parameters) if front_end else [],
        host_covariance=[list(row) for row in front_end.covariance] if front_end else [],
        errors=fit.errors | (served or {}),
    )


def save_calibration(path: Path, calibration: Calibration) -> None:
    """Write a calibration as JSON, its hash beside it."""
    content = {"sha256": calibration.sha256, **json.loads(_canonical(calibration))}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def load_calibration(path: Path) -> Calibration:
    """Read a calibration.

    Raises `RecordError` where it is none, or was changed after it was written.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        stated = content.pop("sha256", None)
        calibration = Calibration.model_validate(content)
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}; `moeplan calibrate` writes one") from None
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, TypeError) as error:
        raise RecordError(f"{path}: no calibration file: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RecordError(f"{path}: {where}: {first['msg']}; calibrate anew") from None
    if stated != calibration.sha256:
        raise RecordError(f"{path}: its hash does not fit its content; calibrate anew")
    return calibration


def _canonical(calibration: Calibration) -> bytes:
    content = calibration.model_dump(mode="json")
    for name in ("host", "host_covariance"):  # older files know nothing of these
        if not content[name]:
            del content[name]
    return json.dumps(content, sort_keys=True).encode()
