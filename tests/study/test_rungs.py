"""Rungs: what was measured to explain a trial."""

import sqlite3

import pytest

from autocut.measurement import Accuracy, Cost, Interval, Latency, Measurement
from autocut.recipe import Recipe
from autocut.study import create_study, open_study

ONE = Interval(1.0, 0.9, 1.1)
COST = Cost((Latency(1, 64, ONE, None, None, 1.0, ONE, 1.0),), 5, 4, 1, 1.0, "here")
MEASUREMENT = Measurement(Accuracy("validation", 10, ONE), COST)
PRUNED = Recipe({"prune.method": "structured", "prune.ratio": 0.5})
MODE = Recipe({"compile.mode": "onnxruntime"})


@pytest.fixture
def study(tmp_path):
    """An open study without trials."""
    opened = create_study(
        tmp_path / "study", name="tiny", task_fingerprint="t", space_json="{}", objectives={"accuracy": "maximize"}, seed=0
    )
    yield opened
    opened.close()


def test_a_rung_comes_back_as_it_was_stored(study):
    """By any process that opens the study; it is no trial."""
    study.rungs.record(PRUNED, {"accuracy": 1.0}, MEASUREMENT)
    study.rungs.refuse(MODE, "no kernel")
    study.rungs.record_pair(PRUNED, MODE, ONE)
    stored = {rung.recipe: rung for rung in open_study(study.folder).rungs.all()}

    assert (stored[PRUNED].values, stored[PRUNED].measurement, stored[PRUNED].reason) == ({"accuracy": 1.0}, MEASUREMENT, None)
    assert (stored[MODE].measurement, stored[MODE].reason) == (None, "no kernel")
    assert study.rungs.pairs() == {(PRUNED.fingerprint, MODE.fingerprint): ONE}
    assert study.trials() == []
    assert study.front() == []


def test_a_second_measurement_replaces_a_reason(study):
    """A newer version may be able to do it."""
    study.rungs.refuse(PRUNED, "no kernel")
    study.rungs.record(PRUNED, {}, MEASUREMENT)

    assert [rung.reason for rung in study.rungs.all()] == [None]


def test_a_study_of_an_earlier_version_has_no_rungs_and_can_get_some(study):
    """Its database has no table for them."""
    with sqlite3.connect(study.folder / "study.db") as database:
        database.execute("DROP TABLE autocut_rung")
        database.execute("DROP TABLE autocut_rung_pair")
    database.close()

    assert study.rungs.all() == []
    assert study.rungs.pairs() == {}
    study.rungs.record(PRUNED, {}, MEASUREMENT)
    assert [rung.recipe for rung in study.rungs.all()] == [PRUNED]
