"""What bundles gave later is kept beside the study, and changes nothing of it."""

from __future__ import annotations

import sqlalchemy

from autocut.study import open_study, remeasurements
from autocut.study.remeasurements import RemeasurementRow


def test_records_come_back_in_their_order(make_study):
    """With their times."""
    study = make_study()
    remeasurements.prepare(study)
    for threads in (1, 2):
        remeasurements.record(study, "a" * 64, "a machine", threads, {"threads": threads})
    found = remeasurements.remeasurements(study)

    assert [document["threads"] for _, document in found] == [1, 2]
    assert found[0][0] <= found[1][0]


def test_a_study_of_an_older_version_has_none(make_study, complete):
    """Its database has no such table until something is recorded; its trials stay as they are."""
    study = make_study()
    complete(study, 0.5, 0.9, 0.1)
    with study._engine.begin() as connection:
        RemeasurementRow.__table__.drop(connection, checkfirst=True)
    opened = open_study(study.folder)
    before = opened.to_frame()

    assert remeasurements.remeasurements(opened) == []
    remeasurements.prepare(opened)
    remeasurements.record(opened, "a" * 64, "a machine", 1, {})
    assert sqlalchemy.inspect(opened._engine).has_table(RemeasurementRow.__tablename__)
    opened.reload()
    assert opened.to_frame().equals(before)
    opened.close()
