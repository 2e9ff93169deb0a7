"""What a start that failed leaves: a study in which nothing was measured. It binds nobody to its conditions."""

from __future__ import annotations

from pathlib import Path

import optuna
from sqlalchemy import delete, select
from sqlalchemy.orm import Session as Database

from autocut.study.database import close_storage, open_optuna_storage
from autocut.study.records import Base, ChargeRow, MeasurementRow, SessionRow, StudyRow
from autocut.study.study import Study


def is_empty(study: Study) -> bool:
    """Whether nothing was measured in the study yet, not even the untouched model, and no other search is about to."""
    is_joined = study.lock is not None and bool(study.lock.others())
    return not is_joined and study.reference is None and not any(trial.measured for trial in study.trials())


def is_empty_row(database: Database, row: StudyRow) -> bool:
    """As `is_empty`, for a study that is not open."""
    measured = select(MeasurementRow.id).where(MeasurementRow.study == row.name).limit(1)
    return row.reference is None and database.scalar(measured) is None


def remove(folder: Path, storage_url: str | None, database: Database, name: str) -> None:
    """Remove the study `name` from the database: its own tables, then Optuna's. Its folder keeps the stages."""
    sessions = select(SessionRow.id).where(SessionRow.study == name)
    database.execute(delete(ChargeRow).where(ChargeRow.session.in_(sessions)))
    for table in reversed(Base.metadata.sorted_tables):
        if "study" in table.c:
            database.execute(delete(table).where(table.c.study == name))
    database.execute(delete(StudyRow).where(StudyRow.name == name))
    database.commit()
    storage = open_optuna_storage(folder, storage_url)
    try:
        optuna.delete_study(study_name=name, storage=storage)
    except KeyError:
        pass  # a process was killed after it had made our row's study, or while it removed it
    finally:
        close_storage(storage)
