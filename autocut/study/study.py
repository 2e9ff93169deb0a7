"""`Study`: what the search writes and everybody else reads.

One process writes. It keeps a light record of every finished trial in memory, so nothing is read twice; a reader that wants to see
what a running search added calls `reload`.
"""

from __future__ import annotations

import datetime as dt
import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import optuna
import pandas as pd
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import Engine, select
from sqlalchemy.orm import sessionmaker

from autocut import measurement as measurements
from autocut.errors import DivergedError, StudyError
from autocut.front import FrontPoint, non_dominated, with_ties
from autocut.measurement import Cost, Measurement
from autocut.recipe import Recipe
from autocut.study import frames, ledger, stage_log, telling
from autocut.study.artifacts import TrialFiles
from autocut.study.database import reading_errors, storage_errors
from autocut.study.index import MEASUREMENT_ID, Final, Measured, TrialRecord, to_final, to_measured, to_record, trial_attrs
from autocut.study.ledger import Session
from autocut.study.lock import SearchLock
from autocut.study.records import FinalRow, MeasurementRow, StageRun, StudyRow, utc_now
from autocut.study.telling import Distributions

_NO_CONSTRAINTS: Mapping[str, float] = MappingProxyType({})
_NO_EXTRAS: Mapping[str, Any] = MappingProxyType({})


class Study:
    """An open study. Made by `create_study` (to search) and `open_study` (to read).

    `optuna` is the Optuna study under it: the search sets its sampler and asks it; trials end through `complete` and `fail`.
    """

    def __init__(self, folder: Path, row: StudyRow, study: optuna.Study, engine: Engine, lock: SearchLock | None) -> None:
        self.folder = folder
        self.name = row.name
        self.objectives: Mapping[str, str] = MappingProxyType(dict(row.objectives))
        self.task_fingerprint = row.task_fingerprint
        self.space_json = row.space
        self.seed = row.seed
        self.created: dt.datetime = row.created
        self.optuna = study
        self._engine = engine
        self._database = sessionmaker(engine)
        self._lock = lock
        self._session: Session | None = None
        self._spent_before_s = 0.0
        self._memory = threading.RLock()
        self._trials: dict[int, TrialRecord] = {}
        self._finals: dict[int, Final] = {}
        self.reload()

    @property
    def stages_dir(self) -> Path:
        """Folder of the stage cache."""
        return self.folder / "stages"

    @property
    def bundles_dir(self) -> Path:
        """Folder of the bundles."""
        return self.folder / "bundles"

    @property
    def artifacts_dir(self) -> Path:
        """Folder of the files that the dashboard offers."""
        return self.folder / "artifacts"

    @property
    def trial_files(self) -> TrialFiles:
        """Files on the dashboard's trial pages."""
        return TrialFiles(self.optuna, self.artifacts_dir)

    def reload(self) -> None:
        """Read again what the database holds."""
        with self._reading(), self._database() as database:
            mine = select(MeasurementRow).where(MeasurementRow.study == self.name)
            measured = {row.id: to_measured(row) for row in database.scalars(mine)}
            tested = select(FinalRow).where(FinalRow.study == self.name)
            finals = {row.trial: to_final(row) for row in database.scalars(tested)}
            records = [to_record(trial, measured) for trial in self.optuna.get_trials(deepcopy=False)]
        with self._memory:
            self._trials = {record.trial: record for record in records if record is not None}
            self._finals = {number: final for number, final in finals.items() if number in self._trials}

    def close(self) -> None:
        """Write what is not written, close the database and let another process search."""
        if self._session is not None:
            self._session.close()
            self._session = None
        self.optuna._storage.remove_session()  # of this thread; the engine closes the rest
        self._engine.dispose()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    # ---- writing: time ----------------------------------------------------------------------------------------------------------

    def begin_session(self, command: str, versions: Mapping[str, str]) -> Session:
        """Open the ledger for one run of the search: the command that was typed, and the versions of the libraries."""
        self._spent_before_s = self.spent_s()
        self._session = Session(self.name, command, versions, self._database, self._guarded)
        return self._session

    def spent_s(self) -> float:
        """Seconds that all runs have worked, as written in the ledger."""
        with self._reading(), self._database() as database:
            return ledger.spent_s(database, self.name)

    def ledger(self) -> dict[str, Any]:
        """Where the time went: ``spent_s``, ``by_category``, and ``sessions`` with command, versions and times."""
        with self._reading(), self._database() as database:
            return ledger.read_ledger(database, self.name)

    def record_stage(self, run: StageRun) -> None:
        """Add one stage run."""
        with self._guarded(), self._database.begin() as database:
            stage_log.write(database, self.name, run)

    def stage_runs(self) -> list[StageRun]:
        """Every stage run, oldest first."""
        with self._reading(), self._database() as database:
            return stage_log.read(database, self.name)

    def stage_seconds(self) -> pd.DataFrame:
        """Seconds of the stages that were really made and ended well: a row a (stage, method), with count, median, mean and max."""
        return frames.stage_seconds(self.stage_runs())

    # ---- writing: trials --------------------------------------------------------------------------------------------------------

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
        """Record a trial that has its measurement.

        Args:
            trial: The trial that Optuna was asked for; None for a sibling (another lowering of the same prefix) or a baseline.
            recipe: What was run.
            params: Optuna's parameters of a sibling; a trial that was asked for has its own.
            distributions: Their distributions.
            values: Every value of the trial, the objectives among them.
            measurement: On the validation split.
            constraints: Limit -> how far it is violated; feasible where at most 0.
            is_baseline: Whether it was run for comparison.
            curve: Validation metric after each epoch.
            extras: More facts for the trial's page, as plain JSON.
            started: When a sibling's work began; a trial that was asked for knows it.

        Returns:
            The trial's number.

        Raises:
            DivergedError: an objective is not finite; nothing was written.
        """
        if wrong := [name for name in self.objectives if not math.isfinite(values.get(name, math.nan))]:
            raise DivergedError(f"value {wrong[0]} must be a finite number, got {values.get(wrong[0])}")
        numbers = {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}
        attrs = trial_attrs(recipe, is_baseline=is_baseline, curve=curve) | numbers | dict(extras)
        ordered = [numbers[name] for name in self.objectives]
        with self._guarded():
            # Our row first: killed in between, it is an orphan that nobody reads, and the trial is still RUNNING or absent.
            row_id, measured = self._write_measurement(recipe, numbers, measurement)
            attrs[MEASUREMENT_ID] = row_id
            number = self._finish(trial, TrialState.COMPLETE, ordered, params, distributions, attrs, constraints, started)
            self._remember(number, {row_id: measured})
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
        """Record a trial that ended without a measurement, with the reason that the dashboard shows.

        Args:
            trial: The trial that Optuna was asked for, or one of `running`; None for a sibling.
            recipe: What was run; None where that is unknown.
            params: Optuna's parameters of a sibling.
            distributions: Their distributions.
            reason: Why, in words for a person.
            state: "FAIL", or "PRUNED" for a trial that was stopped early. It gets no intermediate values: with several
                objectives Optuna's sampler cannot read them (5.0.0).
            curve: Validation metric after each epoch that was run.
            extras: More facts for the trial's page, as plain JSON.
            retry: The recipe was interrupted, not judged: it may be proposed again.
            started: When a sibling's work began.

        Returns:
            The trial's number.
        """
        attrs = trial_attrs(recipe, curve=curve, reason=reason, retry=retry) | dict(extras)
        with self._guarded():
            number = self._finish(trial, TrialState[state], None, params, distributions, attrs, _NO_CONSTRAINTS, started)
            self._remember(number, {})
        return number

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
        """Record a trial's numbers on the locked test split and what became of its bundle; a second call replaces the first.

        A trial that is not `verified` stays off the front; `refusal` says why.
        """
        if trial not in self._trials:
            raise StudyError(
                f"study {self.folder} has no finished trial {trial}", f"see its trials with: autocut front {self.folder} --csv"
            )
        row = FinalRow(
            study=self.name,
            trial=trial,
            values={name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)},
            document=measurements.to_json(measurement),
            bundle=None if bundle is None else self._relative(bundle),
            bundle_sha256=bundle_sha256,
            verified=verified,
            refusal=refusal,
            finalized=utc_now(),
        )
        final = to_final(row)
        with self._guarded(), self._database.begin() as database:
            database.merge(row)
        with self._memory:
            self._finals[trial] = final

    def describe(self, facts: Mapping[str, Any]) -> None:
        """Set study attributes (task, machine, budget left, ...); the dashboard shows them, and only what changed is written."""
        with self._guarded():
            known = self.optuna.user_attrs
            for key, value in facts.items():
                if key not in known or known[key] != value:
                    self.optuna.set_user_attr(key, value)

    def set_reference(self, cost: Cost) -> None:
        """Keep the cost of the untouched model, against which every trial's latency is corrected."""
        with self._guarded(), self._database.begin() as database:
            database.get_one(StudyRow, self.name).reference = asdict(cost)

    # ---- reading ----------------------------------------

    @property
    def reference(self) -> Cost | None:
        """Cost of the untouched model; None before it was measured."""
        with self._reading(), self._database() as database:
            document = database.get_one(StudyRow, self.name).reference
            return None if document is None else measurements.cost_from_json(document)

    @property
    def facts(self) -> dict[str, Any]:
        """The study attributes that `describe` set."""
        with self._reading():
            return dict(self.optuna.user_attrs)

    def trials(self) -> list[TrialRecord]:
        """Every finished trial, in the order of the numbers."""
        with self._memory:
            return [self._trials[number] for number in sorted(self._trials)]

    def finals(self) -> dict[int, Final]:
        """What finalization gave, by trial."""
        with self._memory:
            return dict(self._finals)

    def verdicts(self) -> dict[Recipe, TrialRecord]:
        """The trial that counts of each recipe, the last one: a training that was stopped may have gone on later.

        A recipe whose last trial was interrupted is left out: it has no verdict.
        """
        last = {trial.recipe: trial for trial in self.trials() if trial.recipe is not None}
        return {recipe: trial for recipe, trial in last.items() if trial.is_done}

    def running(self) -> list[FrozenTrial]:
        """Trials that a dead search left running: tell each to `fail` with ``retry=True``, and run its recipe again."""
        with self._reading():
            return self.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def points(self) -> list[FrontPoint]:
        """All completed trials: numbers of the test split where finalized, else of the validation split (`split` says which)."""
        return [self._point(trial, self._finals.get(trial.trial)) for trial in self.trials() if trial.measured is not None]

    def validation_points(self) -> list[FrontPoint]:
        """All completed trials by validation numbers alone, finalized or not."""
        return [self._point(trial, None) for trial in self.trials() if trial.measured is not None]

    def candidates(self) -> list[FrontPoint]:
        """What may be handed over, by validation numbers alone: feasible and not refused."""
        return [self._point(trial, None) for trial in self._candidates()]

    def search_front(self) -> list[FrontPoint]:
        """The front by validation numbers alone: the candidates beaten by none. Finalization works through it."""
        return non_dominated(self.candidates(), self.objectives)

    def front(self) -> list[FrontPoint]:
        """The front that is handed over: by test numbers what is finalized, by validation numbers what still waits for that.

        Points with test numbers are compared with each other, points without them likewise: the two splits are never mixed in one
        comparison. A finished search has finalized the whole search front, the untouched model, and what time allowed beside them.
        """
        finals = self.finals()
        final = [self._point(trial, finals[trial.trial]) for trial in self._candidates() if trial.trial in finals]
        waiting = [point for point in self.search_front() if point.trial not in finals]
        return with_ties([*non_dominated(final, self.objectives), *waiting], self.objectives)

    def to_frame(self) -> pd.DataFrame:
        """One row a finished trial, flat, for CSV."""
        return frames.to_frame(self.trials(), self.finals(), {point.trial for point in self.front()})

    # ---- private ----------------------------------------

    def _guarded(self) -> AbstractContextManager[None]:
        return storage_errors(self.folder)

    def _reading(self) -> AbstractContextManager[None]:
        return reading_errors(self.folder)

    def _write_measurement(self, recipe: Recipe, values: Mapping[str, float], measurement: Measurement) -> tuple[int, Measured]:
        worked_s = self._spent_before_s + (self._session.worked_s if self._session else 0.0)
        row = MeasurementRow(
            study=self.name,
            fingerprint=recipe.fingerprint,
            values=dict(values),
            document=measurements.to_json(measurement),
            worked_s=worked_s,
            measured=utc_now(),
        )
        with self._database.begin() as database:
            database.add(row)
            database.flush()
            return row.id, Measured(MappingProxyType(dict(values)), measurement, worked_s)

    def _finish(
        self,
        trial: Trial | FrozenTrial | None,
        state: TrialState,
        values: Sequence[float] | None,
        params: Mapping[str, Any],
        distributions: Distributions,
        attrs: Mapping[str, Any],
        constraints: Mapping[str, float],
        started: dt.datetime | None,
    ) -> int:
        if trial is None:
            return telling.add(self.optuna, state, values, params, distributions, attrs, constraints, started)
        return telling.tell(self.optuna, trial, state, values, attrs, constraints)

    def _remember(self, number: int, measured: Mapping[int, Measured]) -> None:
        storage = self.optuna._storage
        trial_id = storage.get_trial_id_from_study_id_trial_number(self.optuna._study_id, number)
        record = to_record(storage.get_trial(trial_id), measured)
        if record is not None:
            with self._memory:
                self._trials[number] = record

    def _candidates(self) -> Iterable[TrialRecord]:
        for trial in self.trials():
            refused = trial.trial in self._finals and not self._finals[trial.trial].verified
            if trial.measured is not None and trial.is_feasible and not refused:
                yield trial

    def _point(self, trial: TrialRecord, final: Final | None) -> FrontPoint:
        measured = final or trial.measured
        if measured is None or trial.recipe is None:
            raise ValueError(f"trial {trial.trial} has no measurement")
        known = self._finals.get(trial.trial)
        bundle = str(self.folder / known.bundle) if known is not None and known.verified and known.bundle else None
        return FrontPoint(
            trial=trial.trial,
            recipe=trial.recipe,
            values=measured.values,
            measurement=measured.measurement,
            is_baseline=trial.is_baseline,
            bundle=bundle,
            ties=(),
        )

    def _relative(self, bundle: Path) -> str:
        inside = bundle.resolve()
        root = self.folder.resolve()
        return inside.relative_to(root).as_posix() if inside.is_relative_to(root) else str(inside)
