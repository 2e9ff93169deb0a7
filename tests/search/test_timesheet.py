"""The timesheet: at each moment every worker is in one row, so the rows add up."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocut.measurement import Rung
from autocut.recipe import UNTOUCHED
from autocut.search.jobs import (
    JobEnded,
    JobKind,
    ModelLoaded,
    RecipeStarted,
    RungReached,
    StageBroke,
    StageRan,
    StageStarted,
    Waited,
)
from autocut.search.timesheet import Timesheet
from autocut.study.ledger import BORROWED, CATEGORIES


def job(number=1, kind=JobKind.MEASURE):
    """A job; the timesheet needs no more of it."""
    return SimpleNamespace(number=number, kind=kind)


def begun(category, key="key"):
    """A stage begins."""
    return StageStarted("stage", "method", category, key)


def ran(category, key="key", seconds=1.0, cached=False, borrowed_s=0.0):
    """A stage is there."""
    return StageRan(key, "stage", "method", seconds, cached, category, borrowed_s=borrowed_s)


def rows(timesheet, now):
    """The rows with time in them."""
    return {name: pytest.approx(seconds) for name, seconds in timesheet.ledger(now).items() if seconds}


def test_a_search_of_one_worker_is_divided_by_what_it_reports():
    """The start, the process, each stage, a wait within one, a load before one, and the time without a job."""
    timesheet, first = Timesheet(1, started=100.0), job()
    timesheet.begin(first, 105.0)
    for event, now in (
        (RecipeStarted(UNTOUCHED), 106.0),
        (begun("training"), 106.0),
        (ran("training"), 116.0),
        (ModelLoaded("fp32/eager", 2.0), 119.0),
        (begun("measuring"), 119.0),
        (Waited(3.0), 126.0),
        (ran("measuring"), 127.0),
        (JobEnded(3.5, 22.0), 128.0),
    ):
        timesheet.observe(first, event, now)
    timesheet.end(first, 128.5, is_killed=False)
    timesheet.leave_free("idle", 129.0)

    assert rows(timesheet, 131.0) == {
        "starting": 5.0, "training": 10.0, "compiling": 2.0, "measuring": 5.0, "waiting": 3.5, "idle": 2.0, "overhead": 3.5,
    }  # fmt: skip


def test_the_time_of_a_killed_job_since_its_last_finished_step_is_lost():
    """What was finished before is kept in the cache, and keeps its row."""
    timesheet, first = Timesheet(1, 0.0), job()
    timesheet.begin(first, 0.0)
    timesheet.observe(first, begun("compiling"), 0.0)
    timesheet.observe(first, ran("compiling"), 10.0)
    timesheet.observe(first, begun("measuring"), 10.0)
    assert rows(timesheet, 15.0) == {"compiling": 10.0, "measuring": 5.0}
    timesheet.end(first, 130.0, is_killed=True)

    assert rows(timesheet, 130.0) == {"compiling": 10.0, "killed": 120.0}


def test_a_finalization_is_one_row_but_for_its_waiting():
    """Its stages, its loads and the start of its process are part of what a bundle costs."""
    timesheet, last = Timesheet(1, 0.0), job(kind=JobKind.FINALIZE)
    timesheet.begin(last, 0.0)
    timesheet.observe(last, begun("compiling"), 2.0)
    timesheet.observe(last, ran("compiling"), 5.0)
    timesheet.observe(last, ModelLoaded("fp32/eager", 1.0), 6.0)
    timesheet.observe(last, JobEnded(4.0, 20.0), 20.0)
    timesheet.end(last, 20.0, is_killed=False)

    assert rows(timesheet, 20.0) == {"finalizing": 16.0, "waiting": 4.0}


def test_each_of_two_workers_counts_half():
    """While one works the other starts, idles and waits for the machine."""
    timesheet, first, second = Timesheet(2, 0.0), job(1), job(2)
    timesheet.begin(first, 4.0)
    timesheet.observe(first, begun("training"), 4.0)
    timesheet.leave_free("idle", 6.0)
    timesheet.begin(second, 10.0)
    timesheet.end(second, 12.0, is_killed=False)
    timesheet.leave_free("waiting", 12.0)
    timesheet.observe(first, ran("training", borrowed_s=3.0), 20.0)

    assert rows(timesheet, 20.0) == {"starting": 4.0, "training": 8.0, "idle": 2.0, "overhead": 2.0, "waiting": 4.0, BORROWED: 1.5}


def test_a_stage_that_was_found_while_another_is_made_ends_nothing():
    """A timing looks for the untouched model's, which is there."""
    timesheet, first = Timesheet(1, 0.0), job()
    timesheet.begin(first, 0.0)
    timesheet.observe(first, begun("measuring", "outer"), 0.0)
    timesheet.observe(first, ran("measuring", "inner", cached=True, borrowed_s=9.0), 1.0)
    timesheet.observe(first, StageBroke(2.0, "measuring"), 3.0)

    assert rows(timesheet, 4.0) == {"measuring": 3.0, "overhead": 1.0}


def test_the_end_of_a_search_kills_what_still_runs():
    """The rest of the session ends processes."""
    timesheet = Timesheet(2, 0.0)
    timesheet.begin(job(1), 1.0)
    timesheet.leave_free("idle", 1.0)
    timesheet.observe(job(1), begun("training"), 1.0)
    timesheet.observe(job(1), ran("training", borrowed_s=2.0), 3.0)
    timesheet.stop(5.0)

    assert rows(timesheet, 6.0) == {
        "starting": 1.0, "training": 1.0, "killed": 1.0, "idle": 2.0, "overhead": 1.0, BORROWED: 1.0,
    }  # fmt: skip


def test_the_step_of_a_job_is_known_with_its_epochs():
    """It is what the user reads."""
    timesheet, first = Timesheet(1, 0.0), job()
    timesheet.begin(first, 0.0)
    assert timesheet.step(first) is None
    timesheet.observe(first, begun("training"), 2.0)
    timesheet.observe(first, RungReached(UNTOUCHED, Rung(3, 8, 0.5)), 5.0)

    step = timesheet.step(first)
    assert (step.since, step.rung.epoch, step.rung_at, step.rungs) == (2.0, 3, 5.0, 1)
    assert timesheet.step(job(9)) is None


EVENTS = st.sampled_from(
    [
        begun("training"), begun("measuring", "other"), begun("unheard of"), begun("", ""), ran("training"), StageBroke(1.0, "x"),
        Waited(50.0), Waited(0.2), ModelLoaded("fp32/eager", 2.0), JobEnded(9.0, 10.0), RecipeStarted(UNTOUCHED),
    ]
)  # fmt: skip
CALLS = st.tuples(st.sampled_from(["begin", "observe", "end", "kill", "idle"]), st.integers(1, 4), EVENTS, st.floats(0, 100))


@given(st.lists(CALLS, max_size=40), st.sampled_from(list(JobKind)))
def test_whatever_workers_report_the_rows_add_up_to_the_time_and_none_is_negative(calls, kind):
    """Also with reports that claim more seconds than have passed, or come in a strange order."""
    timesheet, now, running = Timesheet(3, 0.0), 0.0, set()
    for what, number, event, seconds in calls:
        now += seconds
        if what == "begin" and number not in running and len(running) < 3:
            timesheet.begin(job(number, kind), now)
            running.add(number)
        elif what == "observe":
            timesheet.observe(job(number, kind), event, now)
        elif what in ("end", "kill"):
            timesheet.end(job(number, kind), now, is_killed=what == "kill")
            running.discard(number)
        elif what == "idle":
            timesheet.leave_free("idle", now)
    ledger = timesheet.ledger(now)
    ledger.pop(BORROWED)

    assert set(ledger) == set(CATEGORIES)
    assert sum(ledger.values()) == pytest.approx(now)
    assert min(ledger.values()) >= -1e-9
