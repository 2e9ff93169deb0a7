"""Files for download on the dashboard: copies under `artifacts/`, with names by Optuna's artifact store."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import optuna
from optuna.artifacts import FileSystemArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound


class TrialFiles:
    """Files attached to finished trials.

    A bundle is made after its trial has finished, but Optuna attaches nothing to a finished trial. The dashboard (0.21) also looks
    in the study's system attributes, so the entry goes there. Can go when `optuna.artifacts.upload_artifact` takes finished trials.
    """

    def __init__(self, study: optuna.Study, folder: Path) -> None:
        self._study = study
        self._folder = folder
        self._store = FileSystemArtifactStore(folder)

    def attach(self, trial_id: int, path: Path, filename: str, mimetype: str) -> str:
        """Copy the file at `path` into the store and offer it on the trial's page.

        Returns:
            The artifact's identity, which `detach` takes.
        """
        identity = str(uuid.uuid4())
        with path.open("rb") as content:
            self._store.write(identity, content)
        entry = {"artifact_id": identity, "filename": filename, "mimetype": mimetype, "encoding": None}
        self._set(trial_id, identity, json.dumps(entry))
        return identity

    def detach(self, trial_id: int, identity: str) -> None:
        """Remove the file from the trial's page and delete the copy."""
        self._set(trial_id, identity, json.dumps(None))
        try:
            self._store.remove(identity)
        except ArtifactNotFound:  # it was deleted on the dashboard
            return

    def sweep(self) -> None:
        """Remove the files that no page offers: a kill came between a file and its entry."""
        storage, study = self._study._storage, self._study._study_id
        systems = [
            storage.get_study_system_attrs(study),
            *(trial.system_attrs for trial in storage.get_all_trials(study, deepcopy=False)),
        ]
        offered = json.dumps(systems, default=str)
        for path in self._folder.iterdir():
            if path.is_file() and path.name not in offered:
                path.unlink(missing_ok=True)

    def attached(self) -> dict[tuple[int, str], str]:
        """Return the names of the attached files, by trial id and identity."""
        found: dict[tuple[int, str], str] = {}
        for key, value in self._study._storage.get_study_system_attrs(self._study._study_id).items():
            words = key.split(":")
            entry = json.loads(value) if words[:2] == ["dashboard", "artifacts"] and len(words) == 4 else None
            if entry is not None:
                found[int(words[2]), words[3]] = entry["filename"]
        return found

    def _set(self, trial_id: int, identity: str, entry: str) -> None:
        self._study._storage.set_study_system_attr(self._study._study_id, f"dashboard:artifacts:{trial_id}:{identity}", entry)
