"""Creates and opens studies, and refuses a study that was made for something else."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import ExperimentalWarning
from optuna.study import StudyDirection
from sqlalchemy.orm import Session as Database

from autocut.errors import StudyError, nearest_hint, quoted
from autocut.study import emptiness
from autocut.study.database import (
    DATABASE_FILE,
    close_storage,
    open_engine,
    open_optuna_storage,
    reading_errors,
    storage_errors,
    without_password,
)
from autocut.study.lock import SearchLock
from autocut.study.records import SCHEMA_VERSION, Base, StudyRow, utc_now
from autocut.study.study import Study

_ADDRESS_FILE = "study.json"
_SMALLEST_PAGE = 512
"""SQLite takes a smaller file for an empty one, and writes to it when it is opened (3.40)."""
_ELSEWHERE = "search into another folder: --out FOLDER"
_KEPT = ("stages_root",)
"""Facts that a study keeps: two searches that begin it at the same moment have each chosen one."""


def create_study(
    folder: Path,
    *,
    name: str,
    task_fingerprint: str,
    space_json: str,
    objectives: Mapping[str, str],
    seed: int,
    storage_url: str | None = None,
    description: Mapping[str, Any] | None = None,
    exclusive: bool = True,
) -> Study:
    """Create the study in `folder`, or reopen it if it exists. One for something else is replaced if nothing was measured in it.

    Args:
        folder: Folder of the study; created if missing.
        name: The task's name, also the name of Optuna's study.
        task_fingerprint: Identity of the task; a study of another task is refused.
        space_json: Canonical JSON of the space. Another space is refused, because in Optuna a parameter cannot change its choices.
        objectives: Value name -> "maximize" | "minimize", in the dashboard's order.
        seed: Seed of the study; an existing study keeps its own.
        storage_url: Database server that several nodes share. None: the server that `folder` names, else SQLite in `folder`.
        description: Facts of the study (task, machine, ...), as its attributes.
        exclusive: Whether to search the study. Then no other search opens it before `study.lock.end_turn()`. `Study.close` releases
            the locks, or the kernel when the process ends.

    Raises:
        StudyError: The study was made for something else, is damaged, or cannot be written.
    """
    folder = Path(folder)
    expected = StudyRow(
        name=name,
        schema_version=SCHEMA_VERSION,
        task_fingerprint=task_fingerprint,
        objectives=[list(pair) for pair in objectives.items()],
        space=space_json,
        seed=seed,
        created=utc_now(),
    )
    with storage_errors(folder):
        _make_folders(folder)
        storage_url = _followed(folder, expected, storage_url)
        lock = _lock(folder, name, storage_url) if exclusive else None
        try:
            study = _open_or_make(folder, expected, storage_url, lock, description or {})
            known = study.facts
            study.describe({key: value for key, value in (description or {}).items() if key not in _KEPT or key not in known})
            return study
        except BaseException:
            if lock is not None:
                lock.release()
            raise


def open_study(folder: Path) -> Study:
    """Open the study in `folder` for reading. A search of it may run at the same time.

    Raises:
        StudyError: The folder has no study, or its database is damaged, foreign, or of another autocut version.
    """
    folder = Path(folder)
    address = folder / _ADDRESS_FILE
    with storage_errors(folder):
        if not is_study(folder):
            raise StudyError(
                f"study must be a folder that autocut search made, got {quoted(str(folder))}", where_studies_are(folder)
            )
        storage_url, name = _read_address(address)
        row = None
        if storage_url is not None or (folder / DATABASE_FILE).stat().st_size >= _SMALLEST_PAGE:
            with open_engine(folder, storage_url) as engine, Database(engine) as database:
                row = _stored(folder, database, name)
        if row is None:
            raise StudyError(
                f"study {folder} has a database without an autocut study in it",
                "give the folder that autocut search made: studies/<task name>",
            )
        return _load(folder, row, storage_url, None)


def stored_space(folder: Path) -> str | None:
    """Return the `space_json` of the study in `folder`, None where it holds none, or one in which nothing was measured yet.

    Raises:
        StudyError: The database is damaged, foreign, or of another autocut version.
    """
    if not is_study(folder):
        return None
    with storage_errors(folder):
        storage_url, name = _read_address(folder / _ADDRESS_FILE)
        with open_engine(folder, storage_url) as engine, Database(engine) as database:
            row = _stored(folder, database, name)
            return None if row is None or emptiness.is_empty_row(database, row) else row.space


def stored_facts(folder: Path, name: str, storage_url: str | None = None) -> dict[str, Any] | None:
    """Return the facts of the study of the task `name` in `folder` or in the database of `storage_url`, None where there is none.

    Raises:
        StudyError: The database is damaged, foreign, of another autocut version, or out of reach.
    """
    if storage_url is None and not is_study(folder):
        return None
    with storage_errors(folder):
        storage_url = storage_url or _read_address(folder / _ADDRESS_FILE)[0]
        with open_engine(folder, storage_url) as engine, Database(engine) as database:
            row = _stored(folder, database, name if storage_url else None)
        if row is None:
            return None
        study = _load(folder, row, storage_url, None)
        try:
            return study.facts
        finally:
            study.close()


def where_studies_are(folder: Path) -> str:
    """Return a hint for `folder`, which is no study: the nearest one beside it, all of them, or how to make one."""
    try:
        near = sorted(path.name for path in folder.parent.iterdir() if is_study(path))
    except OSError:
        near = []
    if hint := nearest_hint(folder.name, near):
        return hint
    return f"studies in {folder.parent}: {', '.join(near)}" if near else "make one with: autocut search task.py --budget 30m"


def is_study(path: Path) -> bool:
    """Whether `path` is a folder that a search has made, by its files."""
    return (path / DATABASE_FILE).is_file() or (path / _ADDRESS_FILE).is_file()


def _open_or_make(
    folder: Path, expected: StudyRow, storage_url: str | None, lock: SearchLock | None, facts: Mapping[str, Any]
) -> Study:
    with open_engine(folder, storage_url) as engine, Database(engine, expire_on_commit=False) as database:
        Base.metadata.create_all(engine)
        row = _stored(folder, database, expected.name if storage_url else None)
        if row is not None and lock is not None and not lock.others() and _is_left_over(database, row, expected):
            emptiness.remove(folder, storage_url, database, row.name)
            row = None
        if row is None:
            _make(folder, expected, storage_url, facts)
            database.add(row := expected)
            database.commit()
    with reading_errors(folder):
        _check_same(folder, row, expected)
    if storage_url is not None:
        _write_address(folder / _ADDRESS_FILE, storage_url, expected.name)
    return _load(folder, row, storage_url, lock)


def _is_left_over(database: Database, row: StudyRow, expected: StudyRow) -> bool:
    """Whether a start that failed left a study for something else: the user has corrected the task since then."""
    conditions = ("name", "task_fingerprint", "objectives", "space", "seed")
    differs = any(getattr(row, name) != getattr(expected, name) for name in conditions)
    return differs and emptiness.is_empty_row(database, row)


def _followed(folder: Path, expected: StudyRow, storage_url: str | None) -> str | None:
    """Return the given server, else the one that the folder names, so that a forgotten --storage starts no second study."""
    if storage_url is not None:
        return storage_url
    storage_url, name = _read_address(folder / _ADDRESS_FILE)
    if name is not None and name != expected.name:
        raise _other_task(folder, name, expected)
    return storage_url


def _make(folder: Path, expected: StudyRow, storage_url: str | None, facts: Mapping[str, Any]) -> None:
    """Create Optuna's study with its first facts. Our row is written later, so a study with our row is complete."""
    _quiet_optuna()
    storage = open_optuna_storage(folder, storage_url, create=True)
    directions = [StudyDirection[direction.upper()] for _, direction in expected.objectives]
    try:
        made = optuna.create_study(storage=storage, study_name=expected.name, directions=directions, load_if_exists=True)
        if made.directions != directions or made.get_trials(deepcopy=False):
            raise StudyError(
                f"study {quoted(expected.name)} in this database was not made by autocut",
                "search into another folder or database: --out, --storage",
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # set_metric_names, experimental since Optuna 3.2
            made.set_metric_names([name for name, _ in expected.objectives])
        for key, value in facts.items():
            made.set_user_attr(key, value)
    finally:
        close_storage(storage)


def _load(folder: Path, row: StudyRow, storage_url: str | None, lock: SearchLock | None) -> Study:
    _quiet_optuna()
    with reading_errors(folder):
        try:
            storage = open_optuna_storage(folder, storage_url)
        except RuntimeError as error:  # raised by Optuna's compatibility check
            raise StudyError(
                f"study {folder} was written by another Optuna: {error}", "install the Optuna version that wrote it"
            ) from error
        try:
            return Study(folder, row, _optuna_study(folder, row.name, storage), storage.engine, lock)
        except BaseException:
            close_storage(storage)
            raise


def _optuna_study(folder: Path, name: str, storage: optuna.storages.RDBStorage) -> optuna.Study:
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        raise StudyError(
            f"study {folder} has lost its Optuna study {quoted(name)}", "restore study.db from a copy, or move the folder away"
        ) from None


def _stored(folder: Path, database: Database, name: str | None) -> StudyRow | None:
    with reading_errors(folder):
        if not sqlalchemy.inspect(database.connection()).has_table(StudyRow.__tablename__):
            return None
        version = database.scalar(sqlalchemy.select(StudyRow.schema_version).limit(1))
        if version not in (None, SCHEMA_VERSION):
            raise StudyError(
                f"study {folder} has schema version {version}, this autocut reads version {SCHEMA_VERSION}",
                "pip install --upgrade autocut" if version > SCHEMA_VERSION else "open it with the autocut version that wrote it",
            )
        chosen = sqlalchemy.select(StudyRow) if name is None else sqlalchemy.select(StudyRow).where(StudyRow.name == name)
        return database.scalars(chosen.limit(1)).one_or_none()


def _check_same(folder: Path, row: StudyRow, expected: StudyRow) -> None:
    if row.name != expected.name:
        raise _other_task(folder, row.name, expected)
    if row.task_fingerprint != expected.task_fingerprint:
        raise StudyError(
            f"study {folder} was made for another version of task {quoted(row.name)} (its file, data or weights changed)",
            _ELSEWHERE,
        )
    if row.objectives != expected.objectives:
        made, asked = (", ".join(f"{direction} {name}" for name, direction in one.objectives) for one in (row, expected))
        raise StudyError(f"study {folder} was made for objectives {made}, got {asked}", _ELSEWHERE)
    if row.space != expected.space:
        raise StudyError(f"study {folder} was made for another space", f"give the space it was made with, or {_ELSEWHERE}")


def _other_task(folder: Path, name: str, expected: StudyRow) -> StudyError:
    return StudyError(f"study {folder} was made for task {quoted(name)}, got task {quoted(expected.name)}", _ELSEWHERE)


def _make_folders(folder: Path) -> None:
    for part in ("stages", "bundles", "artifacts"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="utf-8")


def _lock(folder: Path, name: str, storage_url: str | None) -> SearchLock:
    if storage_url is None:
        return SearchLock(folder, name)
    with open_engine(folder, storage_url) as engine:
        return SearchLock(folder, name, engine)


def _write_address(address: Path, storage_url: str, name: str) -> None:
    """Write the address file in one step, so that readers see all of it or nothing.

    Every opening writes it, because another node may have made the study, or this folder may have lost the file.
    """
    text = json.dumps({"storage": without_password(storage_url), "name": name}) + "\n"
    draft = address.with_suffix(".draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(address)


def _read_address(address: Path) -> tuple[str | None, str | None]:
    if not address.is_file():
        return None, None
    try:
        document = json.loads(address.read_text(encoding="utf-8"))
        return str(document["storage"]), str(document["name"])
    except (ValueError, KeyError, TypeError):
        raise StudyError(
            f"study {address.parent} has an unreadable {address.name}", "run the search command with --storage again"
        ) from None


def _quiet_optuna() -> None:
    # Optuna writes about every study, trial and undecodable byte to stderr, but the console is the only writer to the terminal.
    optuna.logging.set_verbosity(logging.ERROR)
