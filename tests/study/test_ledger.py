"""The ledger: worked time, by category."""

from __future__ import annotations

import datetime as dt

import pytest

from autocut.study import StageRun, ledger, open_study


def test_only_worked_time_counts_over_sessions(make_study):
    """The budget covers several runs, but not the hours between them."""
    study = make_study()
    first = study.begin_session("autocut search --budget 5m", {"autocut": "0.1.0"})
    first.beat(1.0)
    first.beat(2.5)
    study.close()
    study = make_study()
    study.begin_session("autocut search --budget 10m", {"autocut": "0.1.0"}).beat(4.0)

    assert study.spent_s() == 6.5
    assert [one["command"] for one in study.ledger()["sessions"]] == ["autocut search --budget 5m", "autocut search --budget 10m"]


def test_a_beat_is_safe_at_once(make_study):
    """Another process can read each beat before the session is closed, so `kill -9` loses less than a beat."""
    study = make_study()
    session = study.begin_session("autocut search", {})
    session.beat(4.0, {"starting": 0.5, "training": 3.0})
    session.beat(5.0, {"starting": 0.5, "training": 4.0, "measuring": 0.5})

    reader = open_study(study.folder)
    assert reader.spent_s() == 5.0
    assert reader.ledger()["by_category"]["training"] == 4.0
    assert reader.ledger()["sessions"][0]["by_category"] == {"starting": 0.5, "training": 4.0, "measuring": 0.5}
    reader.close()


def test_time_is_never_counted_twice(make_study):
    """A beat has the total of its run, so a late or repeated beat changes nothing."""
    study = make_study()
    session = study.begin_session("autocut search", {})
    for worked_s in (1.0, 2.0, 2.0, 1.5):
        session.beat(worked_s)

    assert study.spent_s() == 2.0


def test_a_machine_is_paid_once_for_two_searches_at_the_same_time(make_study, monkeypatch):
    """Each of them has a budget of its own. One second of a machine has one price, and two machines have two."""
    begun = dt.datetime(2026, 11, 29, 12, tzinfo=dt.UTC)
    study = make_study()
    for host, until_s, worked_s in [("a", 100, 100), ("a", 150, 90), ("a", 120, 20), ("a", 400, 50), ("b", 130, 30)]:
        monkeypatch.setattr(ledger.socket, "gethostname", lambda host=host: host)
        monkeypatch.setattr(ledger, "utc_now", lambda until_s=until_s: begun + dt.timedelta(seconds=until_s))
        study.begin_session("autocut search", {}).beat(worked_s)

    assert study.spent_s() == 290
    assert study.paid_s() == 150 + 50 + 30


def test_an_unknown_category_is_refused(make_study):
    """A misspelt category would hide its seconds."""
    with pytest.raises(ValueError, match=r"category must be one of starting, training.*got 'trainin'"):
        make_study().begin_session("autocut search", {}).beat(1.0, {"trainin": 1.0})


@pytest.mark.parametrize(
    ("charges", "found"),
    [
        ({"training": 3.0, "waiting": 1.0}, {"training": 3.0, "waiting": 1.0, "unrecorded": 6.0}),
        ({"training": 15.0, "waiting": 5.0}, {"training": 7.5, "waiting": 2.5, "unrecorded": 0.0}),
    ],
)
def test_a_run_of_an_earlier_version_adds_up_too(make_study, charges, found):
    """It wrote seconds of workers, which may be more than the run's, and left out what no worker reported."""
    study = make_study()
    study.begin_session("autocut search", {}).beat(10.0, charges)
    ledger = study.ledger()

    assert ledger["sessions"][0]["by_category"] == found
    assert ledger["sessions"][0]["is_estimated"]
    assert sum(ledger["by_category"].values()) == ledger["spent_s"] == 10.0


def test_a_run_that_was_killed_at_once_is_read(make_study):
    """Nothing was written yet."""
    study = make_study()
    study.begin_session("autocut search", {})

    assert study.ledger()["spent_s"] == 0.0
    assert study.ledger()["cores_busy"] is None


def test_cores_are_busy_but_for_starting_waiting_and_idle(make_study):
    """A training that borrows the core of an idle worker makes it busy."""
    study = make_study()
    study.begin_session("autocut search", {}).beat(10.0, {"starting": 1.0, "training": 6.0, "idle": 3.0, "borrowed": 2.0})
    ledger = study.ledger()

    assert ledger["cores_busy"] == pytest.approx(0.8)
    assert ledger["borrowed_s"] == 2.0
    assert sum(ledger["by_category"].values()) == ledger["spent_s"]


def test_stage_runs_come_back_as_they_were_written(make_study):
    """The planner learns from them, and reads them before the first stage has run."""
    study = make_study()
    assert study.stage_runs() == []

    started = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
    rows = ((4.0, "done", False), (6.0, "done", False), (0.1, "done", True), (9.0, "diverged", False))
    runs = [StageRun(f"k{seconds}", "train", "kl", seconds, outcome, cached, "f", started) for seconds, outcome, cached in rows]
    for run in runs:
        study.record_stage(run)

    assert study.stage_runs() == runs
