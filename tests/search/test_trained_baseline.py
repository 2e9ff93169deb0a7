"""The untouched model trained as long as the front's leading point: what training alone brings is no merit of a cut."""

import math
from dataclasses import replace

import pytest

from autocut.recipe import UNTOUCHED, Recipe, baseline_words
from autocut.search.jobs import Purpose
from autocut.search.opening import TrainedBaseline
from autocut.search.settings import EVERYTHING
from autocut.search.trial_store import is_baseline

TRAINING = {"train.epochs": 4, "train.lr_scale": 0.3}
CUT = Recipe({**TRAINING, "prune.method": "structured", "prune.ratio": 0.5, "compile.mode": "onnxruntime", "distill.loss": "kl"})
ALIKE = Recipe(TRAINING)


@pytest.fixture
def plan(start):
    """A function that asks for the baseline of ranked recipes after a share of 1000 seconds."""
    state = start(budget_s=1000.0).searcher.state

    def ask(*ranked, spent_s=700.0, left_s=300.0, train_s=20.0, tactics=EVERYTHING, settled=()):
        state.settings = replace(state.settings, tactics=tactics)
        state.planner.train_s = lambda recipe: train_s
        state.is_settled = lambda recipe: recipe in settled
        return TrainedBaseline(state, lambda: ranked).next(spent_s, left_s)

    return ask


def test_the_untouched_model_is_trained_as_long_as_the_first_finalist_that_trains(plan):
    """With the same epochs and learning rate and nothing else; it runs although it will be beaten."""
    planned = plan(
        UNTOUCHED, Recipe({"compile.mode": "onnxruntime"}), CUT, Recipe({"train.epochs": 8, "prune.method": "structured"})
    )

    assert planned.recipes == (ALIKE,)
    assert planned.purpose is Purpose.TRAINED_BASELINE
    assert not planned.may_skip
    assert "trained as long as structured 0.5 + 4 epochs" in planned.why


@pytest.mark.parametrize(
    "change",
    [
        {"spent_s": 500.0, "left_s": 500.0},  # the leading point may still change
        {"train_s": 101.0},  # more than a tenth of the budget
        {"left_s": 15.0},
        {"left_s": -5.0, "spent_s": math.inf},
        {"tactics": replace(EVERYTHING, trained_baseline=False)},
        {"settled": {ALIKE}},
    ],
)
def test_it_waits_for_its_time_and_never_takes_much_of_it(plan, change):
    """It is for people: the search learns little from it."""
    assert plan(CUT, **change) is None


@pytest.mark.parametrize("ranked", [(), (UNTOUCHED, Recipe({"prune.method": "structured", "prune.ratio": 0.5})), (ALIKE,)])
def test_a_front_that_does_not_train_a_cut_model_needs_none(plan, ranked):
    """Its points have the untouched model's training, or are such a baseline themselves."""
    assert plan(*ranked) is None


def test_a_search_with_nothing_else_to_do_does_not_wait(plan):
    """A small space is explored long before its time is over."""
    assert plan(CUT, spent_s=math.inf, left_s=900.0).recipes == (ALIKE,)


def test_a_search_runs_it_once(start):
    """Late, with a worker of its own, and the point counts as measured."""
    machine = start(budget_s=1500.0)
    whys, next_job = [], machine.searcher.next_job

    def watch():
        job = next_job()
        if job is not None and job.why.startswith("baselines: the untouched model trained"):
            whys.append((job, machine.searcher.budget.spent()))
        return job

    machine.searcher.next_job = watch
    machine.run()

    [(job, spent_s)] = whys
    assert spent_s > 500
    assert job.recipes[0] in machine.searcher.state.finished


def test_a_model_that_only_trains_on_is_a_baseline_and_says_so():
    """People would try it by hand. A curriculum is what the search has found."""
    assert is_baseline(ALIKE)
    assert baseline_words(ALIKE) == "baseline: untouched, trained 4 more epochs"
    assert (
        baseline_words(Recipe({"train.epochs": 1, "train.start": "scratch"})) == "baseline: untouched, trained 1 epoch from scratch"
    )
    assert baseline_words(UNTOUCHED) == "baseline"
    assert not is_baseline(Recipe({**TRAINING, "curriculum.schedule": "linear"}))
    assert not is_baseline(ALIKE.with_lowering("fp32", "onnxruntime"))
