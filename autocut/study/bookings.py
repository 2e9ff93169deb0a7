"""Bookings: what each search of a study works on right now, so that no other search does the same.

A search books a recipe before it works on it, and frees it once the result is stored. The primary key of the table decides which
of two searches gets a recipe. So one search at most has it, and a recipe that nobody has booked has its stored result, or was left
without one. The bookings of a dead search stay until another search frees them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy
from sqlalchemy import ForeignKey, Integer, String, Text, delete, select
from sqlalchemy.orm import Mapped, Session, mapped_column, sessionmaker

from autocut.recipe import Recipe
from autocut.space.outside import checked_recipe
from autocut.study.ledger import Guard
from autocut.study.patience import repeated
from autocut.study.records import Base, SessionRow, StudyRow


class BookingRow(Base):
    """One `Booking`."""

    __tablename__ = "autocut_booking"

    study: Mapped[str] = mapped_column(ForeignKey(StudyRow.name), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64), primary_key=True)
    session: Mapped[int] = mapped_column(Integer)
    purpose: Mapped[str] = mapped_column(String(40))
    recipe: Mapped[str] = mapped_column(Text)


@dataclass(frozen=True)
class Booking:
    """The search with the number `session` works on `recipe`, with this `purpose`."""

    recipe: Recipe
    session: int
    purpose: str


_TAKE = sqlalchemy.text(
    "INSERT INTO autocut_booking (study, fingerprint, session, purpose, recipe)"
    " VALUES (:study, :fingerprint, :session, :purpose, :recipe) ON CONFLICT DO NOTHING"
)


class StudyBookings:
    """The bookings of one study. `reading` and `writing` translate the errors of the database."""

    def __init__(self, study: str, database: sessionmaker[Session], reading: Guard, writing: Guard) -> None:
        self._study = study
        self._database = database
        self._reading = reading
        self._writing = writing

    @repeated
    def take(self, recipes: Sequence[Recipe], session: int, purpose: str) -> list[Recipe]:
        """Book `recipes` for a search; return those that it has booked now, or had booked before."""
        rows = [
            {
                "study": self._study,
                "fingerprint": recipe.fingerprint,
                "session": session,
                "purpose": purpose,
                "recipe": recipe.canonical_json(),
            }
            for recipe in sorted(recipes, key=lambda one: one.fingerprint)  # in one order: two searches never wait for each other
        ]
        with self._writing(), self._database.begin() as database:
            for row in rows:
                database.execute(_TAKE, row)
            of_study = select(BookingRow.fingerprint).where(BookingRow.study == self._study, BookingRow.session == session)
            held = set(database.scalars(of_study))
        return [recipe for recipe in recipes if recipe.fingerprint in held]

    @repeated
    def free(self, recipes: Iterable[Recipe], session: int) -> None:
        """Free what a search has booked: its results are stored, or there will be none."""
        fingerprints = [recipe.fingerprint for recipe in recipes]
        with self._writing(), self._database.begin() as database:
            own = delete(BookingRow).where(BookingRow.study == self._study, BookingRow.session == session)
            database.execute(own.where(BookingRow.fingerprint.in_(fingerprints)))

    @repeated
    def keep_those_of(self, sessions: Iterable[int]) -> None:
        """Free every booking but those of these searches, which are alive."""
        with self._writing(), self._database.begin() as database:
            database.execute(delete(BookingRow).where(BookingRow.study == self._study, BookingRow.session.not_in(list(sessions))))

    def all(self) -> list[Booking]:
        """Return every booking."""
        with self._reading(), self._database() as database:
            rows = database.scalars(select(BookingRow).where(BookingRow.study == self._study))
            return [Booking(checked_recipe(json.loads(row.recipe)), row.session, row.purpose) for row in rows]

    def searchers(self, sessions: Iterable[int]) -> dict[int, str]:
        """Return which process searches, or has searched, with each of these sessions."""
        with self._reading(), self._database() as database:
            rows = database.scalars(select(SessionRow).where(SessionRow.id.in_(list(sessions))))
            return {row.id: f"process {row.pid} on {row.host}" for row in rows}
