"""`Study`: searches write it, all other parts read it.

A process keeps a small record of every finished trial in memory, so it reads nothing twice. A reader calls `reload` to see what
running searches have added, a search calls `refresh`.
"""

from __future__ import annotations

import datetime as dt
import math
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import optuna
import pandas as pd
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import Engine
from sqlalchemy.orm import sessionmaker

from autocut import measurement as measurements
from autocut.errors import DivergedError, StudyError
from autocut.front import Final, FrontPoint
from autocut.measurement import Cost, Measurement
from autocut.recipe import Recipe
from autocut.study import frames, ledger, telling
from autocut.study.artifacts import TrialFiles
from autocut.study.bookings import StudyBookings
from autocut.study.checks import checked_facts, checked_objectives
from autocut.study.database import reading_errors, storage_errors
from autocut.study.kept_points import ComparedFront, KeptFront, KeptPoints
from autocut.study.ledger import Session
from autocut.study.lock import SearchLock
from autocut.study.looks import TestLook, read_looks, write_look
from autocut.study.patience import repeated
from autocut.study.records import StageRow, StageRun, StudyRow
from autocut.study.results import StudyResults, read_results, read_stage_runs
from autocut.study.rungs import StudyRungs
from autocut.study.scores import ScoresRun, TrialScores, read_scores_runs
from autocut.study.telling import Distributions, NewTrial, Outcome
from autocut.study.trials import (
    MEASUREMENT_ID,
    TrialRecord,
    ValidationResult,
    finite,
    relative_to,
    to_final_row,
    to_record,
    trial_attrs,
    write_result,
)

_NO_CONSTRAINTS: Mapping[str, float] = MappingProxyType({})
_NO_EXTRAS: Mapping[str, Any] = MappingProxyType({})


class Study:
    """An open study. `create_study` makes it for a search, `open_study` for reading.

    `optuna` is the Optuna study below it. The search sets its sampler and asks it for trials. `complete` and `fail` end the trials.
    """

    def __init__(self, folder: Path, row: StudyRow, study: optuna.Study, engine: Engine, lock: SearchLock | None) -> None:
        self.folder = folder
        self.name = row.name
        self.objectives: Mapping[str, str] = MappingProxyType(checked_objectives(row.objectives))
        self.task_fingerprint = row.task_fingerprint
        self.seed = row.seed
        self.optuna = study
        self._engine = engine
        self._database = sessionmaker(engine)
        self._guarded, self._reading = partial(storage_errors, self.folder), partial(reading_errors, self.folder)
        self.lock = lock
        self._session: Session | None = None
        self._spent_before_s = 0.0
        self._memory = threading.RLock()
        self._found = StudyResults({}, {})
        self.stages_root = Path(self.facts.get("stages_root") or folder)  # else one that the nodes of a cluster share
        self._scores = TrialScores(self.stages_dir, self._scores_runs)
        self._points, self._front = KeptPoints(folder), KeptFront(self.objectives, self._scores)
        self.reload()

    @property
    def stages_dir(self) -> Path:
        """Folder of the stage cache."""
        return self.stages_root / "stages"

    @property
    def artifacts_dir(self) -> Path:
        """Folder of the files on the dashboard."""
        return self.folder / "artifacts"

    @property
    def trial_files(self) -> TrialFiles:
        """The files on the dashboard's trial pages."""
        return TrialFiles(self.optuna, self.artifacts_dir)

    @property
    def rungs(self) -> StudyRungs:
        """The recipes that were measured to explain a trial; they are no trials."""
        return StudyRungs(self.name, self._database, self._reading, self._guarded)

    @property
    def bookings(self) -> StudyBookings:
        """What each search works on right now."""
        return StudyBookings(self.name, self._database, self._reading, self._guarded)

    def reload(self) -> None:
        """Read the database again."""
        found = StudyResults({}, {})
        found.take_in(self._read())
        with self._memory:
            self._scores.forget()
            self._found = found

    def refresh(self) -> StudyResults:
        """Read what other searches have added since the last time, and return it."""
        new = self._read(self._found.trials.keys())
        self._spent_before_s = self.spent_s(without=[self._session.id] if self._session else [])
        with self._memory:
            if new.trials:
                self._scores.forget()
            return self._found.take_in(new)

    def close(self) -> None:
        """Close the database and release the search lock."""
        self.optuna._storage.remove_session()  # only this thread's session; the engine closes the others
        self._engine.dispose()
        if self.lock is not None:
            self.lock.release()
            self.lock = None

    def begin_session(self, command: str, versions: Mapping[str, str]) -> Session:
        """Open the ledger for one run of the search, with the typed command and the versions of the libraries.

        From now on other searches of the study see this one.
        """
        self._spent_before_s = self.spent_s()
        self._session = Session(self.name, command, versions, self._database, self._guarded)
        if self.lock is not None:
            self.lock.enter(self._session.id)
        return self._session

    def spent_s(self, without: Collection[int] = ()) -> float:
        """Return the worked seconds of all runs in the ledger, `without` those of these sessions."""
        with self._reading(), self._database() as database:
            return ledger.spent_s(database, self.name, without)

    def paid_s(self) -> float:
        """Return the seconds for which machines are paid: those of two searches on one host at the same time count once."""
        with self._reading(), self._database() as database:
            return ledger.paid_s(database, self.name)

    def ledger(self) -> dict[str, Any]:
        """Return the ledger: ``spent_s``, ``by_category``, and ``sessions`` with command, versions and times."""
        with self._reading(), self._database() as database:
            return ledger.read_ledger(database, self.name)

    @repeated
    def record_stage(self, run: StageRun) -> None:
        """Add one stage run."""
        with self._guarded(), self._database.begin() as database:
            database.add(StageRow(study=self.name, **asdict(run)))
        with self._memory:
            self._scores.add(run)

    def stage_runs(self, recipes: Iterable[Recipe] | None = None) -> list[StageRun]:
        """Return the stage runs of `recipes`, by default every one; the oldest first."""
        with self._reading(), self._database() as database:
            return read_stage_runs(database, self.name, recipes)

    def complete(
        self,
        trial: Trial | None,
        recipe: Recipe,
        params: Mapping[str, Any],
        distributions: Distributions,
        values: Mapping[str, float],
        measurement: Measurement,
        constraints: Mapping[str, float] = _NO_CONSTRAINTS,
        *,
        is_baseline: bool = False,
        curve: Sequence[float] = (),
        extras: Mapping[str, Any] = _NO_EXTRAS,
        started: dt.datetime | None = None,
    ) -> int:
        """Record a measured trial.

        Args:
            trial: The running trial in Optuna; None for a new one, such as another lowering of the same prefix or a baseline.
            recipe: Recipe of the trial.
            params: Optuna's parameters of a new trial; a running trial has its own.
            distributions: Distributions of `params`.
            values: Every value of the trial, including the objectives.
            measurement: Measurement on the validation split.
            constraints: Limit -> size of its violation. The trial is feasible if none is above 0.
            is_baseline: Whether the trial ran for comparison.
            curve: Validation metric after each epoch.
            extras: More facts for the trial's page, as plain JSON.
            started: Time when the work on a new trial began; a running trial has its own.

        Returns:
            The trial's number.

        Raises:
            DivergedError: An objective is not finite. Nothing is written.
        """
        if wrong := [name for name in self.objectives if not math.isfinite(values.get(name, math.nan))]:
            raise DivergedError(f"value {wrong[0]} must be a finite number, got {values.get(wrong[0])}")
        numbers = finite(values)
        attrs = trial_attrs(recipe, is_baseline=is_baseline, curve=curve) | numbers | dict(extras)
        ordered = [numbers[name] for name in self.objectives]
        with self._guarded():
            # Our row comes first. If the process is killed in between, no trial points at the row, so readers ignore it.
            row_id, result = self._write_measurement(recipe, numbers, measurement)
            outcome = Outcome(TrialState.COMPLETE, ordered, attrs | {MEASUREMENT_ID: row_id}, constraints)
            number = telling.end(self.optuna, trial or NewTrial(params, distributions, started), outcome)
            self._remember(number, {row_id: result})
        return number

    def fail(
        self,
        trial: Trial | FrozenTrial | None,
        recipe: Recipe | None,
        params: Mapping[str, Any],
        distributions: Distributions,
        reason: str,
        state: str = "FAIL",
        *,
        curve: Sequence[float] = (),
        extras: Mapping[str, Any] = _NO_EXTRAS,
        retry: bool = False,
        started: dt.datetime | None = None,
    ) -> int:
        """Record a trial that ended without a measurement, and return its number. The dashboard shows the reason.

        What is not named here is as in `complete`. `recipe` is None if it is unknown. `state` is "FAIL", or "PRUNED" for a trial
        that was stopped early. It gets no intermediate values, because with several objectives Optuna's sampler cannot read them
        (5.0.0).
        `retry` says that the trial was interrupted and has no result, so that its recipe may be proposed again.
        """
        attrs = trial_attrs(recipe, curve=curve, reason=reason, retry=retry) | dict(extras)
        with self._guarded():
            outcome = Outcome(TrialState[state], None, attrs, _NO_CONSTRAINTS)
            number = telling.end(self.optuna, trial or NewTrial(params, distributions, started), outcome)
            self._remember(number, {})
        return number

    @repeated
    def record_final(
        self,
        trial: int,
        measurement: Measurement,
        values: Mapping[str, float],
        *,
        bundle: Path | None,
        bundle_sha256: str | None,
        verified: bool,
        refusal: str | None = None,
    ) -> None:
        """Record a trial's numbers on the locked test split, and its bundle. A second call replaces the first.

        A trial that is not `verified` stays off the front; `refusal` is the reason.
        """
        if trial not in self._found.trials:
            raise StudyError(
                f"study {self.folder} has no finished trial {trial}", f"see its trials with: autocut front {self.folder} --csv"
            )
        path = None if bundle is None else relative_to(self.folder, bundle)
        final = Final(trial, finite(values), measurement, path, bundle_sha256, verified, refusal)
        row = to_final_row(self.name, final)
        with self._guarded(), self._database.begin() as database:
            database.merge(row)
        with self._memory:
            self._found.finals[trial] = final

    @repeated
    def record_look(self, trial: int, purpose: str) -> None:
        """Count a look at the locked test split when it begins: a bundle that fails after it was scored has been looked at too."""
        with self._guarded(), self._database.begin() as database:
            write_look(database, self.name, trial, purpose)

    def looks(self) -> list[TestLook]:
        """Return every look at the locked test split, oldest first."""
        with self._reading(), self._database() as database:
            return read_looks(database, self.name, self.finals())

    def describe(self, facts: Mapping[str, Any]) -> None:
        """Set study attributes (task, machine, budget left, ...) for the dashboard. Only changes are written."""
        with self._guarded():
            known = self.optuna.user_attrs
            for key, value in facts.items():
                if key not in known or known[key] != value:
                    self.optuna.set_user_attr(key, value)

    @repeated
    def set_reference(self, cost: Cost) -> None:
        """Store the cost of the untouched model. Every trial's latency is corrected by it."""
        with self._guarded(), self._database.begin() as database:
            database.get_one(StudyRow, self.name).reference = asdict(cost)

    @property
    def reference(self) -> Cost | None:
        """Cost of the untouched model; None until it is measured."""
        with self._reading(), self._database() as database:
            document = database.get_one(StudyRow, self.name).reference
            return None if document is None else measurements.cost_from_json(document)

    @property
    def facts(self) -> dict[str, Any]:
        """The study attributes that `describe` set."""
        with self._reading():
            return checked_facts(self.optuna.user_attrs)

    def trials(self) -> list[TrialRecord]:
        """Return every finished trial, in the order of the numbers."""
        with self._memory:
            return [self._found.trials[number] for number in sorted(self._found.trials)]

    def finals(self) -> dict[int, Final]:
        """Return the results of finalization, by trial."""
        with self._memory:
            return dict(self._found.finals)

    def results(self) -> dict[Recipe, TrialRecord]:
        """Return the last trial of each recipe: a training that was stopped may have gone on in a later trial.

        A recipe is left out if its last trial was interrupted, because it has no result.
        """
        last = {trial.recipe: trial for trial in self.trials() if trial.recipe is not None}
        return {recipe: trial for recipe, trial in last.items() if trial.is_done}

    def running(self) -> list[FrozenTrial]:
        """Return the running trials. If its search is dead, `fail` it with ``retry=True``, and run its recipe again."""
        with self._reading():
            return self.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def points(self) -> list[FrontPoint]:
        """Return all completed trials. Those of the front, and the untouched model, have their ties."""
        compared = {point.trial: point for point in self._compared().points}
        with self._memory:
            return [compared.get(one.point.trial, one.point) for one in self._points.of(self._found)]

    def candidates(self) -> list[FrontPoint]:
        """Return the feasible trials whose bundle was not refused, without their ties."""
        with self._memory:
            return [one.point for one in self._points.of(self._found) if one.is_candidate]

    def front(self) -> list[FrontPoint]:
        """Return the front of the candidates by the numbers of the search, with its ties. Finalization works through it.

        The locked test split only reports: what a trial has there decides nothing.
        """
        return list(self._compared().front)

    def untested(self) -> tuple[int, ...]:
        """Return the trials of the front whose accuracies go by intervals, because their scores are not stored any more."""
        return self._compared().untested

    def to_frame(self) -> pd.DataFrame:
        """Return one flat row for each finished trial, for CSV."""
        return frames.to_frame(self.trials(), self.finals(), {point.trial for point in self.front()})

    def _compared(self) -> ComparedFront:
        with self._memory:
            kept = self._points.of(self._found)
            return self._front.compare([one.point for one in kept], [one.point for one in kept if one.is_candidate])

    def _scores_runs(self) -> list[ScoresRun]:
        with self._reading(), self._database() as database:
            return read_scores_runs(database, self.name)

    def _read(self, known: Collection[int] = ()) -> StudyResults:
        with self._reading(), self._database() as database:
            return read_results(self.optuna, database, self.name, self.objectives, known)

    @repeated
    def _write_measurement(
        self, recipe: Recipe, values: Mapping[str, float], measurement: Measurement
    ) -> tuple[int, ValidationResult]:
        worked_s = self._spent_before_s + (self._session.worked_s if self._session else 0.0)
        result = ValidationResult(MappingProxyType(dict(values)), measurement, worked_s)
        with self._database.begin() as database:
            return write_result(database, self.name, recipe, result), result

    def _remember(self, number: int, results: Mapping[int, ValidationResult]) -> None:
        storage = self.optuna._storage
        trial_id = storage.get_trial_id_from_study_id_trial_number(self.optuna._study_id, number)
        record = to_record(storage.get_trial(trial_id), results)
        if record is not None:
            with self._memory:
                self._found.trials[number] = record
