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
    KnownTask,
    RecipeFailed,
    RecipeMeasured,
    RecipePriced,
    RecipeStarted,
    ScoringPlan,
    ScoringPlanned,
    Setting,
    StageRan,
    TrainingPlanned,
    WorkerFault,
    WorkerUp,
)
from autocut.task.loading import load_task
from autocut.task.task import Task
from tests.fakes import COST

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
    """NaN, out of memory, an unexpected exception. What that one may have harmed is this process: another one goes on."""
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
    assert [event.recipe for event in events if isinstance(event, RecipeMeasured)] == ([] if outcome == "bug" else [ORT])
    assert events[-1].leaves_rest is (outcome == "bug")


def test_recipes_of_a_prefix_that_cannot_be_fail_together(setting):
    """The prefix is tried once, not once a lowering."""
    prefix = Recipe({"prune.method": "structured", "prune.ratio": 0.01})
    events = run(job("measure", prefix, prefix.with_lowering("fp32", "onnxruntime")), setting)
    failures = [event for event in events if isinstance(event, RecipeFailed)]

    assert [failure.outcome for failure in failures] == ["infeasible", "infeasible"]
    assert len({failure.reason for failure in failures}) == 1


@pytest.mark.parametrize("error", [DivergedError("loss must be finite, got nan"), KeyError("it may have harmed this process")])
def test_a_training_that_fails_is_tried_once_for_all_of_its_cuts(setting, monkeypatch, error):
    """Models that are pruned after it share its weights, and so its end."""
    tried = []

    def diverge(*_, **__):
        tried.append(1)
        raise error

    run(job("baseline", Recipe()), setting)
    monkeypatch.setattr("autocut.pipeline.model_stages.train_model", diverge)
    last = {"prune.method": "structured", "train.epochs": 1, "prune.when": "after_training"}
    cuts = [Recipe({**last, "prune.ratio": ratio}) for ratio in (0.25, 0.5)]
    events = run(job("measure", *cuts, cuts[0].with_lowering("fp32", "onnxruntime")), setting)

    assert [event.recipe.prefix for event in events if isinstance(event, RecipeFailed)] == [*cuts, cuts[0]]
    assert len(tried) == 1


def test_a_pricing_job_times_structures_without_training(setting, monkeypatch):
    """What fails is left to its trial, and the costs are found again by a job that has the weights."""
    monkeypatch.setattr(Cost, "is_disturbed", property(lambda _: False))  # a busy machine's timings would be repeated
    pruned = Recipe({"prune.method": "structured", "prune.ratio": 0.5}).with_lowering("fp32", "onnxruntime")
    events = run(job("price", Recipe(), Recipe({"prune.method": "structured", "prune.ratio": 0.01}), pruned), setting)
    later = run(job("baseline", Recipe()), setting) + run(job("measure", pruned), setting)

    assert [event.recipe for event in events if isinstance(event, RecipePriced)] == [Recipe(), pruned]
    assert not [event for event in events if isinstance(event, RecipeFailed) or getattr(event, "stage", "") == "baseline"]
    assert all(event.cached for event in later if isinstance(event, StageRan) and event.stage == "cost")


def test_a_preparing_job_leaves_an_artifact_and_no_result(setting):
    """What it has made is found by the job that measures; what it could not make is told by that one."""
    run(job("baseline", Recipe()), setting)
    failing = Recipe().with_lowering("int8_dynamic", "eager")
    prepared = run(job("prepare", ORT, failing), setting)
    measured = run(job("measure", ORT), setting)
    compiled = [event for event in measured if isinstance(event, StageRan) and event.stage == "compile"]

    assert not [event for event in prepared if isinstance(event, RecipeMeasured | RecipeFailed)]
    assert [event.stage for event in prepared if isinstance(event, StageRan) and not event.cached][-1] == "compile"
    assert {event.cached for event in compiled if event.method == "fp32/onnxruntime"} == {True}


def test_slow_scoring_is_told_when_it_begins(setting, monkeypatch):
    """Other workers may begin something by then."""
    plan = ScoringPlan(100, 256, 0.3)
    monkeypatch.setattr(Pipeline, "plan_scoring", lambda self, seconds: plan)
    events = run(job("baseline", Recipe()), setting)
    told = [event for event in events if isinstance(event, ScoringPlanned)]

    assert [event.plan for event in told] == [plan]
    assert told[0].model_bytes > 0
    assert events.index(told[0]) < next(
        i for i, event in enumerate(events) if isinstance(event, StageRan) and event.stage == "accuracy"
    )


def test_the_untouched_model_is_trained_for_the_epochs_that_fit(setting, monkeypatch):
    """The plan is told before the training, and later jobs of the study use the same model."""
    monkeypatch.setattr("autocut.pipeline.training_plan.sample_seconds", lambda *_, **__: 0.1)
    events = run(job("baseline", Recipe(), left_s=300.0), setting)
    ready = next(event for event in events if isinstance(event, BaselineReady))
    again = run(replace(job("measure", ORT), untouched_epochs=ready.epochs), setting)

    assert TrainingPlanned(2, 4, pytest.approx(140.0), pytest.approx(280.0)) in events
    assert (ready.epochs, ready.samples_seen) == (2, 1400)
    assert [event.cached for event in again if isinstance(event, StageRan) and event.stage == "baseline"] == [True]


def test_a_training_without_room_for_an_epoch_is_a_fault_with_a_hint(setting, monkeypatch):
    """The search ends at once, and says which budget is enough."""
    monkeypatch.setattr("autocut.pipeline.training_plan.sample_seconds", lambda *_, **__: 9.0)
    fault = next(event for event in run(job("baseline", Recipe()), setting) if isinstance(event, WorkerFault))

    assert "one epoch of the untouched model must fit" in fault.message
    assert "--budget" in fault.hint


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


def test_a_job_does_not_build_the_model_to_know_the_task(setting, monkeypatch):
    """The search knows the fingerprint: building a large model and hashing its weights takes seconds of every job."""
    found, builds = load_task(setting.task_path), []
    run(job("baseline", Recipe()), setting)
    whole = Task.build_model
    monkeypatch.setattr(Task, "build_model", lambda task, seed=None: builds.append(task.name) or whole(task, seed))
    known = replace(setting, known_task=KnownTask(found.fingerprint, found.source_sha256, found.is_pretrained))
    for name in ("fingerprint", "is_pretrained"):
        vars(found).pop(name, None)
    builds.clear()
    events = run(job("measure", ORT), known)

    assert [event.recipe for event in events if isinstance(event, RecipeMeasured)] == [ORT]
    assert builds == []


def test_a_fingerprint_of_another_source_is_not_taken_over(setting):
    """The file was edited while the search ran: its stages get keys of their own."""
    found = load_task(setting.task_path)
    vars(found).pop("fingerprint", None)
    found.know("of another source", is_pretrained=True, source_sha256="0" * 64)
    own = found.fingerprint
    found.know("of no source", is_pretrained=True, source_sha256="")

    assert found.fingerprint == own
    assert own not in ("of another source", "of no source")


def test_a_job_that_trains_for_another_kind_of_machine_times_nothing_and_its_model_is_found(setting):
    """A node that only trains: the reference time is of another machine, where the second half of the job goes on."""
    recipe = Recipe({"train.epochs": 1, "train.lr_scale": 1.0})
    reference = replace(COST, machine="another kind")
    trained = run(replace(job("train", recipe, recipe.with_lowering("fp32", "onnxruntime")), reference=reference), setting)
    made = {event.stage for event in trained if isinstance(event, StageRan)}

    assert made == {"baseline", "train"}
    assert not any(isinstance(event, RecipeMeasured | RecipeFailed) for event in trained)
    (refused,) = [
        event for event in run(replace(job("measure", recipe), reference=reference), setting) if type(event) is WorkerFault
    ]
    assert "one kind of machine, another kind" in refused.message
    measured = run(job("measure", recipe), setting)
    assert {event.cached for event in measured if isinstance(event, StageRan) and event.stage in made} == {True}
    assert [event.recipe for event in measured if isinstance(event, RecipeMeasured)] == [recipe]
