"""Rungs: recipes that were measured to explain a trial. They are no trials: neither the sampler nor the front sees them.

    autocut_rung ........ a recipe with its measurement on the validation split, or the reason why it has none
    autocut_rung_pair ... difference of the metric of two recipes on the same examples

A study of an earlier version has no such tables. It gets them when the first rung is written.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import cast

import sqlalchemy
from sqlalchemy import JSON, ForeignKey, String, Table, Text, select
from sqlalchemy.orm import Mapped, Session, mapped_column, sessionmaker

from autocut import measurement as measurements
from autocut.measurement import Interval, Measurement
from autocut.recipe import Recipe
from autocut.study.ledger import Guard
from autocut.study.records import Base, Json, StudyRow, UtcDateTime, utc_now


class RungRow(Base):
    """One recipe. `document` is its measurement; it is null where `reason` says why there is none."""

    __tablename__ = "autocut_rung"

    study: Mapped[str] = mapped_column(ForeignKey(StudyRow.name), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64), primary_key=True)
    recipe: Mapped[Json] = mapped_column(JSON)
    values: Mapped[Json] = mapped_column(JSON)
    document: Mapped[Json] = mapped_column(JSON, nullable=True)
    reason: Mapped[str | None] = mapped_column(Text)
    measured: Mapped[dt.datetime] = mapped_column(UtcDateTime)


class RungPairRow(Base):
    """Two recipes by their fingerprints, and the metric of `after` minus that of `before`."""

    __tablename__ = "autocut_rung_pair"

    study: Mapped[str] = mapped_column(ForeignKey(StudyRow.name), primary_key=True)
    before: Mapped[str] = mapped_column(String(64), primary_key=True)
    after: Mapped[str] = mapped_column(String(64), primary_key=True)
    difference: Mapped[Json] = mapped_column(JSON)


@dataclass(frozen=True)
class StoredRung:
    """A recipe with its values and measurement, or with the `reason` why it has none."""

    recipe: Recipe
    values: Mapping[str, float]
    measurement: Measurement | None
    reason: str | None


class StudyRungs:
    """The rungs of one study. `reading` and `writing` translate the errors of the database."""

    def __init__(self, study: str, database: sessionmaker[Session], reading: Guard, writing: Guard) -> None:
        self._study = study
        self._database = database
        self._reading = reading
        self._writing = writing

    def all(self) -> list[StoredRung]:
        """Return every rung."""
        with self._reading(), self._database() as database:
            if not _has_table(database, RungRow):
                return []
            return [_stored(row) for row in database.scalars(select(RungRow).where(RungRow.study == self._study))]

    def pairs(self) -> dict[tuple[str, str], Interval]:
        """Return the known differences by the fingerprints of the two recipes: (before, after)."""
        with self._reading(), self._database() as database:
            if not _has_table(database, RungPairRow):
                return {}
            rows = database.scalars(select(RungPairRow).where(RungPairRow.study == self._study))
            return {(row.before, row.after): Interval(**row.difference) for row in rows}

    def record(self, recipe: Recipe, values: Mapping[str, float], measurement: Measurement) -> None:
        """Store a measured recipe. A second call replaces the first."""
        self._write(self._row(recipe, values, measurements.to_json(measurement), None))

    def refuse(self, recipe: Recipe, reason: str) -> None:
        """Store why a recipe has no measurement and will have none."""
        self._write(self._row(recipe, {}, None, reason))

    def record_pair(self, before: Recipe, after: Recipe, difference: Interval) -> None:
        """Store the metric of `after` minus that of `before` on the same examples."""
        self._write(
            RungPairRow(study=self._study, before=before.fingerprint, after=after.fingerprint, difference=asdict(difference))
        )

    def _row(self, recipe: Recipe, values: Mapping[str, float], document: Json, reason: str | None) -> RungRow:
        return RungRow(
            study=self._study,
            fingerprint=recipe.fingerprint,
            recipe=dict(recipe),
            values=dict(values),
            document=document,
            reason=reason,
            measured=utc_now(),
        )

    def _write(self, row: RungRow | RungPairRow) -> None:
        with self._writing(), self._database.begin() as database:
            cast(Table, row.__table__).create(database.connection(), checkfirst=True)
            database.merge(row)


def _has_table(database: Session, row: type[Base]) -> bool:
    return sqlalchemy.inspect(database.connection()).has_table(row.__tablename__)


def _stored(row: RungRow) -> StoredRung:
    measured = None if row.document is None else measurements.from_json(row.document)
    return StoredRung(Recipe(row.recipe), dict(row.values), measured, row.reason)
