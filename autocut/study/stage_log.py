"""Every stage that was made or found: what the planner learns from, and what shows that none was made twice."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import select
from sqlalchemy.orm import Session

from autocut.study.records import StageRow, StageRun


def write(database: Session, study: str, run: StageRun) -> None:
    """Add `run` of `study`; the caller commits."""
    database.add(StageRow(study=study, **asdict(run)))


def read(database: Session, study: str) -> list[StageRun]:
    """Every run of `study`, oldest first."""
    rows = database.scalars(select(StageRow).where(StageRow.study == study).order_by(StageRow.id))
    return [
        StageRun(
            row.key, row.stage, row.method, row.seconds, row.outcome, row.cached, row.fingerprint, row.started, row.samples_seen
        )
        for row in rows
    ]
