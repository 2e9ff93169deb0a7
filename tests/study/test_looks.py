"""Every look at the locked test split is counted."""

import sqlalchemy

from autocut.study import open_study
from autocut.study.looks import FINALIZATION

VERIFIED = {"bundle": None, "bundle_sha256": None, "verified": True}


def looked(study):
    """Trial and purpose of each look."""
    return [(look.trial, look.purpose) for look in study.looks()]


def test_finalization_and_export_are_looks_and_a_refusal_before_the_test_is_none(make_study, complete, make_measurement):
    """A second scoring of one model is a second look."""
    study = make_study()
    for ratio in (0.1, 0.2):
        complete(study, ratio, 0.9, 1.0)
    values = {"accuracy": 0.9, "usd_per_million": 1.0}
    study.record_look(0, FINALIZATION)
    study.record_final(0, make_measurement(0.89, 10.0, "test"), values, **VERIFIED)
    study.record_final(1, make_measurement(0.9, 10.0), values, **VERIFIED | {"verified": False}, refusal="no kernel")
    study.record_look(1, "export")
    study.record_look(0, FINALIZATION)

    expected = [(0, "finalization"), (1, "export"), (0, "finalization")]
    assert looked(study) == looked(open_study(study.folder)) == expected
    assert all(look.looked is not None for look in study.looks())


def test_a_study_from_before_the_count_has_its_tested_trials_as_looks(make_study, complete, make_measurement):
    """Its table is missing; the next look makes it, and the earlier ones stay counted."""
    study = make_study()
    complete(study, 0.1, 0.9, 1.0)
    complete(study, 0.2, 0.9, 1.0)
    study.record_final(0, make_measurement(0.89, 10.0, "test"), {"accuracy": 0.89, "usd_per_million": 1.0}, **VERIFIED)
    with study._engine.begin() as connection:
        connection.execute(sqlalchemy.text("DROP TABLE autocut_look"))

    assert looked(study) == [(0, "finalization")]
    assert study.looks()[0].looked is None
    study.record_look(1, "export")
    assert looked(study) == [(0, "finalization"), (1, "export")]
