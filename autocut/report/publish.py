"""Keeps the dashboard up to date: notes, plots and the bundles of the front."""

from __future__ import annotations

import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna_dashboard
from optuna_dashboard._note import note_ver_key, split_body

from autocut.front import FrontPoint
from autocut.report import notes, plots
from autocut.study import Study, TrialRecord, storage_errors

_NOTES_AT_ONCE = 25
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def publish(study: Study) -> None:
    """Write, now, everything that the dashboard shows of `study`."""
    Publisher(study, every_s=0.0).publish(force=True)


class Publisher:
    """Writes what changed, at most every `every_s` seconds. So a search loop may call `publish` after every trial.

    It uses at most a twentieth of the time: after a publication that took one second, it rests for twenty.
    """

    def __init__(self, study: Study, every_s: float = 5.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._study = study
        self._every_s = every_s
        self._clock = clock
        self._rest_until = -float("inf")
        self._written: dict[str, int] = {}
        self._noted: dict[int, bool] = {}
        self._resume()

    def publish(self, *, force: bool = False) -> bool:
        """Publish if it is time, or if `force` is set. With `force` every trial gets its note, otherwise a few at a time.

        Returns:
            Whether it published.
        """
        started = self._clock()
        if started < self._rest_until and not force:
            return False
        with storage_errors(self._study.folder):
            front = self._study.front()
            self._write_trial_notes(None if force else _NOTES_AT_ONCE)
            self._write_study_note(front)
            self._write_plots(front)
            self._attach_bundles(front)
        ended = self._clock()
        self._rest_until = ended + max(self._every_s, 20 * (ended - started))
        return True

    def _resume(self) -> None:
        """Find the trials that already have notes, so that a resumed search does not write hundreds again."""
        with storage_errors(self._study.folder):
            attrs = self._study.optuna._storage.get_study_system_attrs(self._study.optuna._study_id)
        finals = self._study.finals()
        self._noted = {t.trial: t.trial in finals for t in self._study.trials() if note_ver_key(t.trial_id) in attrs}

    def _write_trial_notes(self, most: int | None) -> None:
        finals = self._study.finals()
        stale = [trial for trial in self._study.trials() if self._noted.get(trial.trial) != (trial.trial in finals)]
        for trial in stale[-most:] if most else stale:
            text = notes.trial_note(self._study, trial, finals.get(trial.trial))
            if trial.trial in self._noted:
                target: Any = _NoteTarget(self._study, trial)
                optuna_dashboard.save_note(target, text)
            else:
                self._write_first_note(trial, text)
            self._noted[trial.trial] = trial.trial in finals

    def _write_first_note(self, trial: TrialRecord, text: str) -> None:
        """Write the first note of a trial without `save_note`.

        `save_note` reads every note of the study twice: 0.1 s for one note at 1,000 trials (optuna-dashboard 0.21).
        """
        storage, study_id = self._study.optuna._storage, self._study.optuna._study_id
        for key, piece in split_body(text, trial.trial_id).items():
            storage.set_study_system_attr(study_id, key, piece)
        storage.set_study_system_attr(study_id, note_ver_key(trial.trial_id), 1)

    def _write_study_note(self, front: Sequence[FrontPoint]) -> None:
        text = notes.study_note(self._study, front)
        if self._changed("note", text):
            optuna_dashboard.save_note(self._study.optuna, text)

    def _write_plots(self, front: Sequence[FrontPoint]) -> None:
        figures = {
            "pareto": plots.pareto(self._study, front),
            "learning_curves": plots.learning_curves(self._study, front),
            "hypervolume": plots.hypervolume_history(self._study),
        }
        for name, figure in figures.items():
            if figure.data and self._changed(name, figure.to_json()):
                optuna_dashboard.save_plotly_graph_object(self._study.optuna, figure, graph_object_id=name)

    def _changed(self, name: str, text: str) -> bool:
        same = self._written.get(name) == hash(text)
        self._written[name] = hash(text)
        return not same

    def _attach_bundles(self, front: Sequence[FrontPoint]) -> None:
        """Offer each verified bundle of the front as an archive, and withdraw the archives of trials that left the front."""
        wanted = self._archives(front)
        files = self._study.trial_files
        attached = {(trial_id, filename): identity for (trial_id, identity), filename in files.attached().items()}
        for trial_id, filename in attached.keys() - wanted.keys():
            files.detach(trial_id, attached[trial_id, filename])
        for trial_id, filename in sorted(wanted.keys() - attached.keys()):
            with tempfile.TemporaryDirectory() as scratch:
                archive = Path(scratch) / filename
                _zip(wanted[trial_id, filename], archive)
                files.attach(trial_id, archive, filename, "application/zip")

    def _archives(self, front: Sequence[FrontPoint]) -> dict[tuple[int, str], Path]:
        """Return bundle folders by trial id and archive name. The name contains the hash, so a new bundle replaces an old one."""
        finals = self._study.finals()
        records = {trial.trial: trial.trial_id for trial in self._study.trials()}
        found: dict[tuple[int, str], Path] = {}
        for point in front:
            if point.bundle is not None and Path(point.bundle).is_dir():
                digest = (finals[point.trial].bundle_sha256 or "bundle")[:12]
                found[records[point.trial], f"trial-{point.trial}-{digest}.zip"] = Path(point.bundle)
        return found


@dataclass
class _Owner:
    _study_id: int


class _NoteTarget:
    """The attributes of an Optuna trial that `save_note` uses. A real `Trial` of a finished trial would sample again (5.0.0)."""

    def __init__(self, study: Study, trial: TrialRecord) -> None:
        self.storage = study.optuna._storage
        self.study = _Owner(study.optuna._study_id)
        self._trial_id = trial.trial_id


def _zip(folder: Path, archive: Path) -> None:
    """Write an archive that is the same for the same files: sorted names and one fixed date."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as writer:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(folder.parent).as_posix(), _ZIP_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            with path.open("rb") as source, writer.open(entry, "w") as target:
                while chunk := source.read(1 << 20):
                    target.write(chunk)
