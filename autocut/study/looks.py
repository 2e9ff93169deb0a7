"""Looks at the locked test split. Each one makes its numbers a little less new, so each one is counted.

A look is one scoring of one model on the split: by finalization, or by an export that makes a bundle. It counts when it begins,
whatever becomes of the bundle. To verify a bundle is none, because it repeats answers whose score is known.

A study of an autocut without this table has its looks in the results of finalization: one for each trial that was tested.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy
from sqlalchemy import ForeignKey, Integer, String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from autocut.front import Final
from autocut.study.records import Base, StudyRow, UtcDateTime, utc_now

FINALIZATION = "finalization"


@dataclass(frozen=True)
class TestLook:
    """One look at the locked test split: the trial whose model was scored, why, and when; None where it is not known."""

    trial: int
    purpose: str
    looked: dt.datetime | None


class LookRow(Base):
    """One `TestLook`."""

    __tablename__ = "autocut_look"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    study: Mapped[str] = mapped_column(ForeignKey(StudyRow.name), index=True)
    trial: Mapped[int] = mapped_column(Integer)
    purpose: Mapped[str] = mapped_column(String(40))
    looked: Mapped[dt.datetime] = mapped_column(UtcDateTime)


def write_look(database: Session, study: str, trial: int, purpose: str) -> None:
    """Add a look, and the table where an older autocut made the study."""
    LookRow.metadata.create_all(database.connection(), tables=[LookRow.__table__])  # type: ignore[list-item]
    database.add(LookRow(study=study, trial=trial, purpose=purpose, looked=utc_now()))


def read_looks(database: Session, study: str, finals: Mapping[int, Final]) -> list[TestLook]:
    """Return every look, oldest first. Tested trials without a written look come first: nobody counted then."""
    written: list[TestLook] = []
    if sqlalchemy.inspect(database.connection()).has_table(LookRow.__tablename__):
        rows = database.scalars(select(LookRow).where(LookRow.study == study).order_by(LookRow.id))
        written = [TestLook(row.trial, row.purpose, row.looked) for row in rows]
    counted = {look.trial for look in written if look.purpose == FINALIZATION}
    earlier = [TestLook(trial, FINALIZATION, None) for trial in sorted(finals) if finals[trial].is_tested and trial not in counted]
    return [*earlier, *written]
