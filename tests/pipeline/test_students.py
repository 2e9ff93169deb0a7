"""A student of the task in the pipeline: built, trained from the teacher's answers, and measured as any other model."""

from __future__ import annotations

import textwrap

import pytest

from autocut.errors import InfeasibleRecipeError
from autocut.measure.quiet import QuietLock
from autocut.pipeline.model_stages import untrained_stage
from autocut.pipeline.pipeline import Pipeline
from autocut.pipeline.stage_cache import StageCache
from autocut.pipeline.stage_runner import StageContext
from autocut.recipe import UNTOUCHED, Recipe
from autocut.search.jobs import StageRan
from autocut.task.loading import load_task
from tests.conftest import SMALL_TASK

EPOCHS = 16
STUDENTS = """
    def quick(parameters):
        return torch.optim.AdamW(parameters, lr=1e-2)


    def narrow():
        return nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


    def shallow():
        return nn.Sequential(nn.Linear(64, 10))
"""
TAUGHT = Recipe({"model.student": "narrow", "train.epochs": EPOCHS, "distill.loss": "kl", "distill.temperature": 4.0})


@pytest.fixture
def task_file(tmp_path):
    """The small task with two students."""
    source = textwrap.dedent(SMALL_TASK).replace("task = Task(", textwrap.dedent(STUDENTS) + "\n\ntask = Task(")
    path = tmp_path / "task.py"
    more = f'epochs={EPOCHS}, optimizer=quick, students={{"narrow": narrow, "shallow": shallow}}'
    path.write_text(source.replace("epochs=4", more))
    return path


@pytest.fixture
def make_pipeline(task_file, tmp_path):
    """Pipelines that share one cache, as workers do; `made` lists the stages that were not found."""

    def make(**settings):
        made = []
        context = StageContext(load_task(task_file), StageCache(tmp_path / "stages"), QuietLock(tmp_path / "locks"))

        def report(event):
            if isinstance(event, StageRan) and not event.cached:
                made.append(event.stage)

        return Pipeline(context, report, **settings), made

    return make


def test_a_student_learns_from_the_teacher_and_is_lowered(make_pipeline):
    """It is smaller than the untouched model, and its answers are right far more often than by chance."""
    pipeline, made = make_pipeline()
    measured = pipeline.measure(TAUGHT.with_lowering("int8_dynamic", "onnxruntime"))
    untouched = pipeline.measure(UNTOUCHED)

    assert made[:4] == ["student", "baseline", "teacher", "train"]
    assert measured.measurement.accuracy.metric.value > untouched.measurement.accuracy.metric.value - 0.1 > 0.8
    assert pipeline.measure(TAUGHT).measurement.cost.size_bytes < untouched.measurement.cost.size_bytes / 2
    assert measured.samples_seen == EPOCHS * 700
    assert measured.train_seconds > untouched.train_seconds  # its teacher was trained for it, too


def test_a_student_that_has_no_teacher_does_without_the_untouched_models_training(make_pipeline):
    """It starts from its own weights: labels are all that it needs."""
    pipeline, made = make_pipeline()
    model = pipeline.prefix(Recipe({"model.student": "narrow", "train.epochs": 1}))

    assert made == ["student", "train"]
    assert (len(model.lineage), model.samples_seen) == (2, 700)


def test_students_and_their_teachings_have_stages_of_their_own(make_pipeline):
    """A second worker finds each of them, and none is taken for another."""
    recipes = [TAUGHT, Recipe({**TAUGHT, "model.student": "shallow"}), Recipe({**TAUGHT, "distill.temperature": 2.0})]
    first, _ = make_pipeline()
    keys = [first.prefix(recipe).key for recipe in recipes]
    again, made = make_pipeline()

    assert [again.prefix(recipe).key for recipe in recipes] == keys
    assert len(set(keys)) == 3
    assert made == []


def test_a_student_is_timed_before_anything_is_trained(make_pipeline):
    """Its cost does not depend on its weights, nor on the teacher's: after the training it is found."""
    priced, made = make_pipeline(untouched=untrained_stage)
    cost = priced.price(Recipe({"model.student": "narrow"}))
    assert "train" not in made

    pipeline, _ = make_pipeline()
    assert pipeline.measure(TAUGHT).measurement.cost == cost


def test_a_student_that_the_task_does_not_have_is_infeasible(make_pipeline):
    """A recipe of another version of the task may name one."""
    pipeline, _ = make_pipeline()
    with pytest.raises(InfeasibleRecipeError, match=r"must be one of the task's narrow, shallow, got 'wide'"):
        pipeline.prefix(Recipe({"model.student": "wide", "train.epochs": 1}))
