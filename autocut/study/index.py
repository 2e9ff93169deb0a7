"""What a process keeps in memory of a study: one light record a finished trial, instead of reading them all again and again."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from autocut import measurement as measurements
from autocut.measurement import Measurement
from autocut.recipe import Recipe
from autocut.study.records import FinalRow, MeasurementRow

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
class Measured:
    """Values and measurement of a completed trial on the validation split; `worked_s` is the study's age at that moment."""

    values: Mapping[str, float]
    measurement: Measurement
    worked_s: float


@dataclass(frozen=True)
class Final:
    """A trial on the locked test split, and its bundle: `verified`, or refused for the reason in `refusal`."""

    trial: int
    values: Mapping[str, float]
    measurement: Measurement
    bundle: str | None
    bundle_sha256: str | None
    verified: bool
    refusal: str | None


@dataclass(frozen=True)
class TrialRecord:
    """One finished trial. `measured` is there for state COMPLETE, `reason` for FAIL and PRUNED (ended before its last epoch).

    `retry` says that the recipe may be proposed again: it was interrupted, not judged. `constraints` hold where all are at most 0.
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
    measured: Measured | None
    finished: dt.datetime | None

    @property
    def is_feasible(self) -> bool:
        """Whether every constraint holds."""
        return all(value <= 0 for value in self.constraints.values())

    @property
    def is_done(self) -> bool:
        """Whether the recipe has its verdict; a training that was stopped early may still go on, in a trial of its own."""
        return self.recipe is not None and not self.retry


def trial_attrs(
    recipe: Recipe | None, *, is_baseline: bool = False, curve: Sequence[float] = (), reason: str | None = None, retry: bool = False
) -> dict[str, Any]:
    """User attributes that `to_record` reads back; only what is set, because the dashboard shows a column for each."""
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


def to_record(trial: FrozenTrial, measured: Mapping[int, Measured]) -> TrialRecord | None:
    """Record of a finished trial; None for one that is not finished, or COMPLETE without a measurement of ours (a stranger's)."""
    attrs = trial.user_attrs
    own = measured.get(attrs.get(MEASUREMENT_ID, -1)) if trial.state == TrialState.COMPLETE else None
    if not trial.state.is_finished() or (trial.state == TrialState.COMPLETE and (own is None or RECIPE not in attrs)):
        return None
    return TrialRecord(
        trial=trial.number,
        trial_id=trial._trial_id,
        state=trial.state.name,
        recipe=Recipe(json.loads(attrs[RECIPE])) if RECIPE in attrs else None,
        is_baseline=bool(attrs.get(IS_BASELINE, False)),
        reason=attrs.get(REASON),
        retry=bool(attrs.get(RETRY, False)),
        curve=tuple(attrs.get(CURVE, ())),
        constraints=MappingProxyType(_named_constraints(trial.system_attrs)),
        extras=MappingProxyType({key: value for key, value in attrs.items() if key not in _OWN_ATTRS and not _is_value(key, own)}),
        measured=own,
        finished=trial.datetime_complete,
    )


def to_measured(row: MeasurementRow) -> Measured:
    """Read a row of the measurement table."""
    return Measured(MappingProxyType(row.values), measurements.from_json(row.document), row.worked_s)


def to_final(row: FinalRow) -> Final:
    """Read a row of the final table."""
    return Final(
        trial=row.trial,
        values=MappingProxyType(row.values),
        measurement=measurements.from_json(row.document),
        bundle=row.bundle,
        bundle_sha256=row.bundle_sha256,
        verified=row.verified,
        refusal=row.refusal,
    )


def _is_value(key: str, measured: Measured | None) -> bool:
    return measured is not None and key in measured.values


def _named_constraints(system_attrs: Mapping[str, Any]) -> dict[str, float]:
    prefix = f"{_LEGACY_CONSTRAINTS}:"
    return {key.removeprefix(prefix): float(value) for key, value in system_attrs.items() if key.startswith(prefix)}
