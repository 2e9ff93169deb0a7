"""autocut's own tables, in the same database as Optuna's. They hold what Optuna's tables cannot.

    autocut_study ......... purpose of the study: task, objectives, space, seed; its schema version
    autocut_session ....... one run of `autocut search`: command, versions, process, worked time
    autocut_charge ........ seconds of a session, by category
    autocut_stage_run ..... every stage that was run or found in the cache, with its seconds
    autocut_measurement ... measurement of a trial, with samples and spread; the trial points at its row
    autocut_final ......... a trial's numbers on the locked test split, and its bundle
    autocut_rung .......... what was measured to explain a trial: see `rungs.py`, also for autocut_rung_pair
    autocut_look .......... every look at the locked test split (`looks.py`)
    autocut_booking ....... what each search of the study works on right now (`bookings.py`)

If no finished trial points at a row of `autocut_measurement`, a killed process left it. Readers ignore it.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, Float, ForeignKey, Integer, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

SCHEMA_VERSION = 1
"""Increase it when older code cannot read a changed table."""

Json = Any
"""A value that `json` can write: str, int, float, bool, None, or a list or string-keyed dictionary of these."""


@dataclass(frozen=True)
class StageRun:
    """One stage of one recipe, either run or found in the stage cache (`cached`). `seconds` is the time of the run or look-up.

    `outcome` is "done", or the reason why there is no result. `fingerprint` is the recipe's. `samples_seen` counts the training
    examples of a training stage.
    """

    key: str
    stage: str
    method: str
    seconds: float
    outcome: str
    cached: bool
    fingerprint: str
    started: dt.datetime
    samples_seen: int = 0


def utc_now() -> dt.datetime:
    """Return the present time with its zone."""
    return dt.datetime.now(dt.UTC)


class UtcDateTime(TypeDecorator[dt.datetime]):
    """A time with its zone. SQLite keeps no zones, so every time is stored and returned in UTC."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: Dialect) -> dt.datetime | None:  # noqa: ARG002
        """Convert to UTC and drop the zone."""
        return None if value is None else value.astimezone(dt.UTC).replace(tzinfo=None)

    def process_result_value(self, value: dt.datetime | None, dialect: Dialect) -> dt.datetime | None:  # noqa: ARG002
        """Add the zone UTC."""
        return None if value is None else value.replace(tzinfo=dt.UTC)


class Base(DeclarativeBase):
    """Base of autocut's tables, separate from Optuna's, so that each side creates only its own tables."""


class StudyRow(Base):
    """The purpose of a study. `objectives` is a list of [name, direction] pairs in Optuna's order."""

    __tablename__ = "autocut_study"

    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    schema_version: Mapped[int] = mapped_column(Integer)
    task_fingerprint: Mapped[str] = mapped_column(String(128))
    objectives: Mapped[Json] = mapped_column(JSON)
    space: Mapped[str] = mapped_column(Text)
    seed: Mapped[int] = mapped_column(Integer)
    reference: Mapped[Json] = mapped_column(JSON, nullable=True)
    created: Mapped[dt.datetime] = mapped_column(UtcDateTime)


class SessionRow(Base):
    """One run of the search. `worked_s` counts against the budget."""

    __tablename__ = "autocut_session"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    study: Mapped[str] = mapped_column(ForeignKey(StudyRow.name), index=True)
    command: Mapped[str] = mapped_column(Text)
    versions: Mapped[Json] = mapped_column(JSON)
    pid: Mapped[int] = mapped_column(Integer)
    host: Mapped[str] = mapped_column(String(200))
    started: Mapped[dt.datetime] = mapped_column(UtcDateTime)
    last_beat: Mapped[dt.datetime] = mapped_column(UtcDateTime)
    worked_s: Mapped[float] = mapped_column(Float, default=0.0)


class ChargeRow(Base):
    """Seconds of one session spent on one category."""

    __tablename__ = "autocut_charge"

    session: Mapped[int] = mapped_column(ForeignKey(SessionRow.id), primary_key=True)
    category: Mapped[str] = mapped_column(String(40), primary_key=True)
    seconds: Mapped[float] = mapped_column(Float)


class StageRow(Base):
    """One `StageRun`."""

    __tablename__ = "autocut_stage_run"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    study: Mapped[str] = mapped_column(ForeignKey(StudyRow.name), index=True)
    key: Mapped[str] = mapped_column(String(128), index=True)
    stage: Mapped[str] = mapped_column(String(40))
    method: Mapped[str] = mapped_column(String(200))
    seconds: Mapped[float] = mapped_column(Float)
    outcome: Mapped[str] = mapped_column(Text)
    cached: Mapped[bool]
    fingerprint: Mapped[str] = mapped_column(String(64))
    started: Mapped[dt.datetime] = mapped_column(UtcDateTime)
    samples_seen: Mapped[int] = mapped_column(Integer, default=0)


class MeasurementRow(Base):
    """Measurement of one trial on the validation split. `worked_s` is how long the study had worked by then."""

    __tablename__ = "autocut_measurement"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    study: Mapped[str] = mapped_column(ForeignKey(StudyRow.name), index=True)
    fingerprint: Mapped[str] = mapped_column(String(64), index=True)
    values: Mapped[Json] = mapped_column(JSON)
    document: Mapped[Json] = mapped_column(JSON)
    worked_s: Mapped[float] = mapped_column(Float)
    measured: Mapped[dt.datetime] = mapped_column(UtcDateTime)


class FinalRow(Base):
    """Result of a trial on the locked test split, and its bundle. The path `bundle` is relative to the study folder."""

    __tablename__ = "autocut_final"

    study: Mapped[str] = mapped_column(ForeignKey(StudyRow.name), primary_key=True)
    trial: Mapped[int] = mapped_column(Integer, primary_key=True)
    values: Mapped[Json] = mapped_column(JSON)
    document: Mapped[Json] = mapped_column(JSON)
    bundle: Mapped[str | None] = mapped_column(Text)
    bundle_sha256: Mapped[str | None] = mapped_column(String(128))
    verified: Mapped[bool]
    refusal: Mapped[str | None] = mapped_column(Text)
    finalized: Mapped[dt.datetime] = mapped_column(UtcDateTime)
