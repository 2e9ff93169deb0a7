"""Reads the finished trials of a study, and what finalization found of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields

import optuna
from pydantic import TypeAdapter
from sqlalchemy import select
from sqlalchemy.orm import Session as Database

from autocut.front import Final
from autocut.recipe import Recipe
from autocut.study.records import FinalRow, MeasurementRow, StageRow, StageRun
from autocut.study.trials import MEASUREMENT_ID, TrialRecord, to_final, to_record, to_result

_STAGE_RUNS = TypeAdapter(list[StageRun])


@dataclass
class StudyResults:
    """Finished trials, and results of finalization, both by the number of the trial. It grows."""

    trials: dict[int, TrialRecord]
    finals: dict[int, Final]

    @property
    def measured(self) -> list[int]:
        """Numbers of the measured trials, sorted."""
        return sorted(number for number, trial in self.trials.items() if trial.measured is not None)

    def take_in(self, found: StudyResults) -> StudyResults:
        """Add what is new in `found`, and return that."""
        self.trials.update(found.trials)
        finals = {number: final for number, final in found.finals.items() if number in self.trials}
        new = {number: final for number, final in finals.items() if self.finals.get(number) != final}
        self.finals.update(new)
        return StudyResults(found.trials, new)


def read_results(
    study: optuna.Study, database: Database, name: str, objectives: Iterable[str], known: Collection[int] = ()
) -> StudyResults:
    """Return the finished trials whose numbers are not `known`, and every result of finalization.

    Args:
        study: The trials in Optuna.
        database: autocut's own tables.
        name: Name of the study in these tables.
        objectives: Values that each result has.
        known: Numbers of trials that are not read again.
    """
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.number not in known and trial.state.is_finished()]
    wanted = select(MeasurementRow).where(MeasurementRow.study == name)
    if known:
        wanted = wanted.where(MeasurementRow.id.in_([trial.user_attrs.get(MEASUREMENT_ID, -1) for trial in trials]))
    results = {row.id: to_result(row, objectives) for row in database.scalars(wanted)}
    records = [record for trial in trials if (record := to_record(trial, results)) is not None]
    rows = database.scalars(select(FinalRow).where(FinalRow.study == name))
    return StudyResults({record.trial: record for record in records}, {row.trial: to_final(row, objectives) for row in rows})


def read_stage_runs(database: Database, name: str, recipes: Iterable[Recipe] | None = None) -> list[StageRun]:
    """Return the stage runs of `recipes`, by default every one; the oldest first."""
    wanted = select(StageRow).where(StageRow.study == name).order_by(StageRow.id)
    if recipes is not None:
        wanted = wanted.where(StageRow.fingerprint.in_([recipe.fingerprint for recipe in recipes]))
    names = [field.name for field in fields(StageRun)]
    return _STAGE_RUNS.validate_python([{name: getattr(row, name) for name in names} for row in database.scalars(wanted)])
