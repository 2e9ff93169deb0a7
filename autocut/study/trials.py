"""The finished trials of a study as small records, which a process keeps in memory instead of reading them again."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.orm import Session

from autocut import measurement as measurements
from autocut.errors import StudyError
from autocut.front import Final, FrontPoint
from autocut.measurement import Measurement
from autocut.recipe import Recipe
from autocut.space.outside import checked_recipe
from autocut.study.checks import checked_bundle, checked_text, checked_values
from autocut.study.records import FinalRow, MeasurementRow, utc_now

RECIPE = "recipe"
FINGERPRINT = "fingerprint"
SUMMARY = "summary"
MEASUREMENT_ID = "measurement_id"
IS_BASELINE = "is_baseline"
REASON = "reason"
RETRY = "retry"
CURVE = "curve"

_OWN_ATTRS = frozenset({RECIPE, FINGERPRINT, SUMMARY, MEASUREMENT_ID, IS_BASELINE, REASON, RETRY, CURVE})
_LEGACY_CONSTRAINTS = "constraints"


@dataclass(frozen=True)
class ValidationResult:
    """Values and measurement of a completed trial on the validation split. `worked_s` is how long the study had worked by then."""

    values: Mapping[str, float]
    measurement: Measurement
    worked_s: float


def write_result(database: Session, study: str, recipe: Recipe, result: ValidationResult) -> int:
    """Add the result of a trial to the tables of `study`, and return the number of its row."""
    row = MeasurementRow(
        study=study,
        fingerprint=recipe.fingerprint,
        values=dict(result.values),
        document=measurements.to_json(result.measurement),
        worked_s=result.worked_s,
        measured=utc_now(),
    )
    database.add(row)
    database.flush()
    return row.id


@dataclass(frozen=True)
class TrialRecord:
    """One finished trial. State COMPLETE has `measured`; FAIL and PRUNED (stopped before the last epoch) have `reason`.

    `retry` means that the trial was interrupted, so its recipe may be proposed again. In `constraints`, values above 0 are
    violations.
    """

    trial: int
    trial_id: int
    state: str
    recipe: Recipe | None
    is_baseline: bool
    reason: str | None
    retry: bool
    curve: tuple[float, ...]
    constraints: Mapping[str, float]
    extras: Mapping[str, Any]
    measured: ValidationResult | None
    finished: dt.datetime | None

    @property
    def is_feasible(self) -> bool:
        """Whether no constraint is violated."""
        return all(value <= 0 for value in self.constraints.values())

    @property
    def is_done(self) -> bool:
        """Whether the recipe has a result. A training that was stopped early may still go on in another trial."""
        return self.recipe is not None and not self.retry


def trial_attrs(
    recipe: Recipe | None, *, is_baseline: bool = False, curve: Sequence[float] = (), reason: str | None = None, retry: bool = False
) -> dict[str, Any]:
    """Return the user attributes that `to_record` reads. Empty ones are left out, because the dashboard has a column for each."""
    attrs: dict[str, Any] = {}
    if recipe is not None:
        attrs |= {SUMMARY: recipe.describe(), RECIPE: recipe.canonical_json(), FINGERPRINT: recipe.fingerprint}
    if is_baseline:
        attrs[IS_BASELINE] = True
    if curve:
        attrs[CURVE] = [float(value) for value in curve]
    if reason is not None:
        attrs[REASON] = reason
    if retry:
        attrs[RETRY] = True
    return attrs


def to_record(trial: FrozenTrial, results: Mapping[int, ValidationResult]) -> TrialRecord | None:
    """Return the record of a finished trial; None if it is not finished, or if another program completed it without our result.

    Args:
        trial: The trial in Optuna.
        results: Results by the id of their row.
    """
    attrs = trial.user_attrs
    own = results.get(attrs.get(MEASUREMENT_ID, -1)) if trial.state == TrialState.COMPLETE else None
    if not trial.state.is_finished() or (trial.state == TrialState.COMPLETE and (own is None or RECIPE not in attrs)):
        return None
    return TrialRecord(
        trial=trial.number,
        trial_id=trial._trial_id,
        state=trial.state.name,
        recipe=checked_recipe(json.loads(attrs[RECIPE])) if RECIPE in attrs else None,
        is_baseline=bool(attrs.get(IS_BASELINE, False)),
        reason=attrs.get(REASON),
        retry=bool(attrs.get(RETRY, False)),
        curve=tuple(attrs.get(CURVE, ())),
        constraints=MappingProxyType(_named_constraints(trial.system_attrs)),
        extras=MappingProxyType({key: value for key, value in attrs.items() if key not in _OWN_ATTRS and not _is_value(key, own)}),
        measured=own,
        finished=trial.datetime_complete,
    )


def to_result(row: MeasurementRow, objectives: Iterable[str] = ()) -> ValidationResult:
    """Read a row of the measurement table. It has a value of each of `objectives`."""
    values = MappingProxyType(checked_values(row.values, objectives))
    return ValidationResult(values, measurements.from_json(row.document), float(row.worked_s))


def to_final(row: FinalRow, objectives: Iterable[str] = ()) -> Final:
    """Read a row of the final table. It has a value of each of `objectives`."""
    return Final(
        trial=row.trial,
        values=MappingProxyType(checked_values(row.values, objectives)),
        measurement=measurements.from_json(row.document),
        bundle=checked_bundle(row.bundle),
        bundle_sha256=checked_text(row.bundle_sha256),
        verified=row.verified,
        refusal=checked_text(row.refusal),
    )


def to_final_row(study: str, final: Final) -> FinalRow:
    """Return the row of the final table that `to_final` reads."""
    return FinalRow(
        study=study,
        trial=final.trial,
        values=dict(final.values),
        document=measurements.to_json(final.measurement),
        bundle=checked_bundle(final.bundle),
        bundle_sha256=final.bundle_sha256,
        verified=final.verified,
        refusal=final.refusal,
        finalized=utc_now(),
    )


def finite(values: Mapping[str, float]) -> dict[str, float]:
    """Return those of `values` that are known and finite."""
    return {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}


def to_point(trial: TrialRecord, final: Final | None, folder: Path) -> FrontPoint:
    """Return a measured trial of the study in `folder` as a point, without ties."""
    measured = trial.measured
    if measured is None or trial.recipe is None:
        raise ValueError(f"trial {trial.trial} has no measurement")
    bundle = str(folder / final.bundle) if final is not None and final.verified and final.bundle else None
    return FrontPoint(trial.trial, trial.recipe, measured.values, measured.measurement, trial.is_baseline, bundle, final=final)


def measured_trial(records: Iterable[TrialRecord], trial: int, subject: str, folder: Path) -> TrialRecord:
    """Return the trial with this number, which has a recipe and a measurement.

    Args:
        records: Every trial of the study.
        trial: What the user asked for.
        subject: How the user named it, such as ``--trial``.
        folder: Folder of the study, for the hint.

    Raises:
        StudyError: there is no such trial, or it was not measured.
    """
    known = {record.trial: record for record in records}
    hint = f"see: autocut front {folder} --all"
    record = known.get(trial)
    if record is None:
        span = f"0 to {max(known)}" if known else "none yet"
        raise StudyError(f"{subject} must be a finished trial of {folder} ({span}), got {trial}", hint)
    if record.measured is None or record.recipe is None:
        raise StudyError(f"{subject} must have been measured, got {trial}, which ended so: {record.reason}", hint)
    return record


def relative_to(folder: Path, bundle: Path) -> str:
    """Return the path of a bundle as it is stored: relative to the study's folder if it lies inside."""
    inside, root = bundle.resolve(), folder.resolve()
    return inside.relative_to(root).as_posix() if inside.is_relative_to(root) else str(inside)


def _is_value(key: str, result: ValidationResult | None) -> bool:
    return result is not None and key in result.values


def _named_constraints(system_attrs: Mapping[str, Any]) -> dict[str, float]:
    prefix = f"{_LEGACY_CONSTRAINTS}:"
    return {key.removeprefix(prefix): float(value) for key, value in system_attrs.items() if key.startswith(prefix)}
