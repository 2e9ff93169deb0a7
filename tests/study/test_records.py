"""autocut's own tables."""

from __future__ import annotations

import datetime as dt

import pytest
import sqlalchemy
from sqlalchemy.orm import Session

from autocut.study.records import SCHEMA_VERSION, Base, StudyRow

COLUMNS = {"schema_version": SCHEMA_VERSION, "task_fingerprint": "t", "space": "{}", "seed": 0}


@pytest.fixture
def database():
    """A database in memory with autocut's tables."""
    engine = sqlalchemy.create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        yield session
    engine.dispose()


def test_a_time_comes_back_with_its_zone(database):
    """SQLite keeps no zones, but a stored time must be comparable with the present time."""
    there = dt.datetime(2026, 11, 23, 12, 0, tzinfo=dt.timezone(dt.timedelta(hours=9)))
    database.add(
        StudyRow(name="s", schema_version=SCHEMA_VERSION, task_fingerprint="t", objectives=[], space="{}", seed=0, created=there)
    )
    database.flush()
    database.expire_all()

    assert database.get_one(StudyRow, "s").created == there
    assert database.get_one(StudyRow, "s").created.tzinfo is dt.UTC


def test_the_order_of_the_objectives_is_kept(database):
    """Optuna identifies objectives by position, so their order is part of the study."""
    objectives = [["usd_per_million", "minimize"], ["accuracy", "maximize"]]
    created = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    database.add(
        StudyRow(name="s", schema_version=1, task_fingerprint="t", objectives=objectives, space="{}", seed=0, created=created)
    )
    database.flush()
    database.expire_all()

    assert database.get_one(StudyRow, "s").objectives == objectives


def test_no_table_collides_with_one_of_optuna():
    """Both sets of tables are in one database."""
    assert all(name.startswith("autocut_") for name in Base.metadata.tables)
