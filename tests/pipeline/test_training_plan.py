"""How long the untouched model is trained: as long as its share of the budget allows, at a speed that is made up here."""

import pytest

from autocut.errors import DeadlineError, InputError
from autocut.measure.quiet import QuietLock
from autocut.pipeline import training_plan
from autocut.pipeline.model_stages import untouched_key, untouched_stage
from autocut.pipeline.stage_cache import StageCache
from autocut.pipeline.stage_runner import StageContext, StageRunner
from autocut.pipeline.training_plan import TrainingPlan, plan_untouched
from autocut.task.loading import load_task


@pytest.fixture
def runner(small_task_file, tmp_path):
    """Makes stages of a task of 700 examples and 4 epochs; `runner(untouched_epochs=...)`."""

    def make(**options):
        context = StageContext(
            load_task(small_task_file), StageCache(tmp_path / "stages"), QuietLock(tmp_path / "locks"), **options
        )
        return StageRunner(context)

    return make


@pytest.fixture(autouse=True)
def a_second_a_sample(monkeypatch):
    """Each sample takes a second, so an epoch takes 700."""
    monkeypatch.setattr(training_plan, "sample_seconds", lambda *_, **__: 1.0)


def test_all_epochs_are_trained_where_they_fit(runner):
    """Half of the time left is enough for 2,800 seconds."""
    assert plan_untouched(runner(), 5600.0) == TrainingPlan(4, 2800.0, 2800.0)


def test_a_short_budget_gets_a_shorter_schedule(runner):
    """Two whole epochs with their own cosine are better than four that end early."""
    assert plan_untouched(runner(), 3000.0) == TrainingPlan(2, 1400.0, 2800.0)


def test_a_budget_too_short_for_one_epoch_is_refused(runner):
    """The message has both numbers, the hint says what to type."""
    with pytest.raises(InputError) as refused:
        plan_untouched(runner(), 600.0)

    assert "one epoch" in refused.value.message
    assert "5m" in refused.value.message
    assert "--budget 27m" in refused.value.hint
    assert "pretrained=True" in refused.value.hint


def test_what_is_trained_already_needs_no_plan(runner):
    """A study keeps its epochs, and a model in the cache costs nothing."""
    assert plan_untouched(runner(untouched_epochs=2), 1.0) is None
    made = runner()
    made.run(untouched_stage(made))
    assert plan_untouched(made, 1.0) is None


def test_a_shorter_training_that_is_in_the_cache_is_used(runner):
    """A search that was interrupted after its training goes on with it."""
    short = runner(untouched_epochs=2)
    short.run(untouched_stage(short))

    assert plan_untouched(runner(), 1200.0) == TrainingPlan(2, 0.0, 2800.0)


def test_an_interrupted_training_goes_on_where_the_rest_of_it_fits(runner):
    """Two of four epochs are done: the last two fit, though four do not."""
    asked = iter([False] * 25 + [True] * 99)
    interrupted = runner(stop=lambda: next(asked))
    with pytest.raises(DeadlineError):
        interrupted.run(untouched_stage(interrupted))

    assert plan_untouched(runner(), 2800.0) == TrainingPlan(4, 1400.0, 1400.0)


def test_other_epochs_are_another_model(runner):
    """A study with a longer budget must not find the shorter training under its key."""
    assert untouched_key(runner(), 4) != untouched_key(runner(), 2)
