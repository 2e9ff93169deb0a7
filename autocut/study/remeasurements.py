"""The record of `autocut remeasure`: what bundles of a study gave later, or on other machines. The search never reads it."""

from __future__ import annotations

import datetime as dt

import sqlalchemy
from sqlalchemy import JSON, ForeignKey, Integer, String
from sqlalchemy.orm import Mapped, Session, mapped_column

from autocut.study.database import reading_errors, storage_errors
from autocut.study.records import Base, Json, StudyRow, UtcDateTime, utc_now
from autocut.study.study import Study


class RemeasurementRow(Base):
    """One bundle, measured once more. `document` is its part of the document of `autocut remeasure --json`."""

    __tablename__ = "autocut_remeasurement"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    study: Mapped[str] = mapped_column(ForeignKey(StudyRow.name), index=True)
    bundle_sha256: Mapped[str] = mapped_column(String(128), index=True)
    machine: Mapped[str] = mapped_column(String(300))
    threads: Mapped[int] = mapped_column(Integer)
    document: Mapped[Json] = mapped_column(JSON)
    measured: Mapped[dt.datetime] = mapped_column(UtcDateTime)


def prepare(study: Study) -> None:
    """Make the table where it is missing: studies of older versions have none. So a study that cannot be written is told early."""
    with storage_errors(study.folder):
        Base.metadata.create_all(study._engine, tables=[Base.metadata.tables[RemeasurementRow.__tablename__]])


def record(study: Study, bundle_sha256: str, machine: str, threads: int, document: Json) -> None:
    """Add what a bundle gave; `prepare` has made the table."""
    row = RemeasurementRow(
        study=study.name, bundle_sha256=bundle_sha256, machine=machine, threads=threads, document=document, measured=utc_now()
    )
    with storage_errors(study.folder), Session(study._engine) as database, database.begin():
        database.add(row)


def remeasurements(study: Study) -> list[tuple[dt.datetime, Json]]:
    """Return all records with their times, the oldest first."""
    with reading_errors(study.folder), Session(study._engine) as database:
        if not sqlalchemy.inspect(database.connection()).has_table(RemeasurementRow.__tablename__):
            return []
        chosen = sqlalchemy.select(RemeasurementRow).where(RemeasurementRow.study == study.name).order_by(RemeasurementRow.id)
        return [(row.measured, row.document) for row in database.scalars(chosen)]
