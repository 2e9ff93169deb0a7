"""The log of stage runs. The planner learns from it, and it shows that no stage ran twice."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import select
from sqlalchemy.orm import Session

from autocut.study.records import StageRow, StageRun


def write(database: Session, study: str, run: StageRun) -> None:
    """Add a run of `study`. The caller commits."""
    database.add(StageRow(study=study, **asdict(run)))


def read(database: Session, study: str) -> list[StageRun]:
    """Return every run of `study`, oldest first."""
    rows = database.scalars(select(StageRow).where(StageRow.study == study).order_by(StageRow.id))
    return [
        StageRun(
            row.key, row.stage, row.method, row.seconds, row.outcome, row.cached, row.fingerprint, row.started, row.samples_seen
        )
        for row in rows
    ]
