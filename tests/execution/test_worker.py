"""A worker: each failure of a recipe is reported, and ends that recipe alone."""

import time
from dataclasses import replace

import pytest

from autocut.errors import DivergedError, InputError
from autocut.execution.worker import run_job
from autocut.measurement import Cost
from autocut.pipeline.pipeline import Pipeline
from autocut.price import Price
from autocut.recipe import Recipe
from autocut.search.jobs import (
    BaselineReady,
    Job,
    JobEnded,
    RecipeFailed,
    RecipeMeasured,
    RecipeStarted,
    Setting,
    StageRan,
    WorkerFault,
    WorkerUp,
)

ORT = Recipe().with_lowering("fp32", "onnxruntime")


@pytest.fixture
def setting(small_task_file, tmp_path):
    """One search's setting, in a folder of its own."""
    return Setting(str(small_task_file), str(tmp_path / "study"), 0, 1, 10**9, Price("test", 0.1, "today"), "autocut search")


def run(job, setting):
    """Run a job in this process; return its events."""
    events = []
    run_job(job, setting, events.append)
    return events


def job(kind, *recipes, left_s=300.0):
    """A job with a deadline `left_s` from now."""
    return Job(1, kind, recipes, time.time() + left_s, "test")


def test_the_baseline_job_reports_the_reference_and_the_first_trial(setting):
    """Every stage is reported with its seconds, and the last word is what was spent waiting."""
    events = run(job("baseline", Recipe()), setting)
    kinds = [type(event) for event in events]

    assert {StageRan, BaselineReady, RecipeMeasured, JobEnded} <= set(kinds)
    assert kinds[-1] is JobEnded


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (DivergedError("loss must be finite, got nan"), "failed"),
        (MemoryError(), "failed"),
        (ZeroDivisionError("unexpected"), "bug"),
    ],
)
def test_an_error_ends_its_recipe_and_the_next_one_runs(setting, monkeypatch, error, outcome):
    """NaN, out of memory, an unexpected exception."""
    whole = Pipeline.measure

    def measure(self, recipe):
        if recipe.lowering == ("int8_static", "onnxruntime"):
            raise error
        return whole(self, recipe)

    monkeypatch.setattr(Pipeline, "measure", measure)
    events = run(job("measure", Recipe().with_lowering("int8_static", "onnxruntime"), ORT), setting)
    failures = [event for event in events if isinstance(event, RecipeFailed)]

    assert [failure.outcome for failure in failures] == [outcome]
    assert failures[0].reason
    assert [event.recipe for event in events if isinstance(event, RecipeMeasured)] == [ORT]


def test_recipes_of_a_prefix_that_cannot_be_fail_together(setting):
    """The prefix is tried once, not once a lowering."""
    prefix = Recipe({"prune.method": "structured", "prune.ratio": 0.01})
    events = run(job("measure", prefix, prefix.with_lowering("fp32", "onnxruntime")), setting)
    failures = [event for event in events if isinstance(event, RecipeFailed)]

    assert [failure.outcome for failure in failures] == ["infeasible", "infeasible"]
    assert len({failure.reason for failure in failures}) == 1


def test_a_job_whose_time_is_up_does_nothing(setting):
    """Its recipes are reported as interrupted, so that a longer budget runs them."""
    events = run(job("measure", ORT, left_s=-1.0), setting)

    assert [event.outcome for event in events if isinstance(event, RecipeFailed)] == ["interrupted"]
    assert not [event for event in events if isinstance(event, RecipeStarted)]


def test_what_no_recipe_would_survive_is_reported_as_a_fault(setting, monkeypatch):
    """A full disk ends the search with its hint, not trial after trial."""

    def measure(self, recipe):
        raise InputError("disk must have room", "make room")

    monkeypatch.setattr(Pipeline, "measure", measure)
    events = run(job("measure", ORT), setting)

    assert WorkerFault("disk must have room", "make room") in events


def test_a_study_of_another_machine_is_refused(setting):
    """A reference time of one machine divided by a speed-up of another is no time at all."""
    elsewhere = Cost((), 1, 1, 1, 0.0, "some other machine")
    events = run(replace(job("measure", ORT), reference=elsewhere), setting)

    assert [type(event) for event in events] == [WorkerUp, WorkerFault]
    assert "some other machine" in events[-1].message
