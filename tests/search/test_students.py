"""Students in a search: priced first, trained in full, and judged by what students show."""

from __future__ import annotations

import math

import pytest

from autocut.measurement import Rung
from autocut.recipe import STUDENT, UNTOUCHED, Recipe
from autocut.search.cost_model import CostModel
from autocut.search.early_stopping import floors
from autocut.search.estimates import is_too_long, on_ladder
from autocut.search.jobs import JobKind, Purpose, RungReached, StageRan
from autocut.search.learning_curves import FEWEST_CURVES
from autocut.search.opening import students
from autocut.search.planner import Planner

from .conftest import MadeUp

EAGER = ("fp32", "eager")


def student(epochs=20, name="narrow", **settings):
    """A student that learns from the teacher."""
    return Recipe({STUDENT: name, "train.epochs": epochs, "distill.loss": "kl", **settings})


def observe_training(planner, recipe, seconds_a_sample):
    """Let `planner` see a training of 1000 samples."""
    planner.observe(StageRan("key", "train", "none/none", 1000 * seconds_a_sample, False, "training", 1000), recipe)


def test_a_search_without_students_has_none(start):
    """No job, no parameter: it is the search that it was."""
    state = start().searcher.state

    assert students(state) == []
    assert state.settings.space.axis(STUDENT) is None


def test_a_student_is_priced_before_it_is_trained_once_with_a_teacher(start):
    """The untrained student is no trial: its answers mean nothing."""
    machine = start(budget_s=1500.0, students=("narrow", "shallow"))
    machine.run()
    points = machine.searcher.store.points
    priced = [job for job in machine.jobs if job.kind == JobKind.PRICE]
    taught = [recipe for recipe in points if recipe.student and recipe["train.epochs"] == 20 and recipe["distill.loss"] == "kl"]

    assert [recipe.student for recipe in priced[0].recipes] == ["narrow"] * len(priced[0].recipes)
    assert {recipe.student for job in priced for recipe in job.recipes} == {"narrow", "shallow"}
    assert {recipe.student for recipe in taught} == {"narrow", "shallow"}
    assert all(recipe.is_trained for recipe in points if recipe.student)
    assert any(recipe.student for recipe in machine.searcher.store.finals)


def test_the_sampler_learns_from_students_and_from_the_others(start):
    """A recipe without a student is told to it as one with `none`."""
    proposer = start(students=("narrow",)).searcher.proposing._proposer
    full = {"train.lr_scale": 1.0, "distill.temperature": 4.0, "distill.alpha": 0.9, "curriculum.schedule": "none"}

    assert proposer.parameters(student(**full))[0][STUDENT] == "narrow"
    assert proposer.parameters(Recipe({"train.epochs": 2, "train.lr_scale": 1.0}))[0][STUDENT] == "none"
    assert STUDENT not in proposer.parameters(UNTOUCHED)[0]


def test_what_a_student_costs_says_nothing_of_others():
    """Nor does the untouched model's cost say what a student costs."""
    model = CostModel()
    model.learn(UNTOUCHED, {"usd_per_million": 8.0})
    assert model.predict(student()) is None
    assert not model.is_known(student())

    model.learn(Recipe({STUDENT: "narrow"}), {"usd_per_million": 2.0})
    assert model.predict(student()) == {"usd_per_million": 2.0}
    assert model.predict(student(name="shallow")) is None
    assert model.predict(UNTOUCHED) == {"usd_per_million": 8.0}


def test_two_students_of_one_cost_are_no_twins():
    """Twins are pruning methods that remove equally much at every ratio; a student has no ratio."""
    model = CostModel()
    for name in ("narrow", "shallow"):
        model.learn(Recipe({STUDENT: name}), {"usd_per_million": 2.0})

    assert model.twins(student().cut[0]) == frozenset()


def test_another_lowering_of_a_student_is_guessed_from_what_the_lowering_saves():
    """As if the student saved the same share with both."""
    model = CostModel()
    for recipe, usd in (
        (UNTOUCHED, 8.0),
        (UNTOUCHED.with_lowering("fp32", "onnxruntime"), 4.0),
        (Recipe({STUDENT: "narrow"}), 2.0),
    ):
        model.learn(recipe, {"usd_per_million": usd})

    assert model.scaled(student().with_lowering("fp32", "onnxruntime")) == {"usd_per_million": 1.0}


def test_the_seconds_of_a_student_are_those_of_the_untouched_model_until_it_is_trained():
    """It is smaller, so that is an upper bound. Afterwards its own pace counts, and changes no other's."""
    planner = Planner(1000, {EAGER: 1.0})
    observe_training(planner, UNTOUCHED, 0.01)
    assert planner.train_s(student(epochs=2)) == pytest.approx(20.0)

    observe_training(planner, student(), 0.002)
    assert planner.train_s(student(epochs=2)) == pytest.approx(4.0)
    assert planner.train_s(student(epochs=2, name="shallow")) == pytest.approx(20.0)
    assert planner.train_s(Recipe({"train.epochs": 2})) == pytest.approx(20.0)


def test_a_student_may_train_as_long_as_the_untouched_model_did(start):
    """It learns from nothing. Any other model has a share of the budget, which is shorter here."""
    state = start(budget_s=600.0, students=("narrow",)).searcher.state
    observe_training(state.planner, UNTOUCHED, 0.01)  # 10 s an epoch, and 50 s for one training
    assert is_too_long(state, student())
    assert on_ladder(state, student())["train.epochs"] == 4

    state.untouched_epochs = 20
    assert not is_too_long(state, student())
    assert on_ladder(state, student()) == student()
    assert on_ladder(state, Recipe({"train.epochs": 20})) == Recipe({"train.epochs": 4})


def test_where_the_untouched_model_had_fewer_epochs_a_student_has_no_more(start):
    """The largest number of the space that is not above them."""
    state = start(budget_s=600.0, students=("narrow",)).searcher.state
    observe_training(state.planner, UNTOUCHED, 0.01)
    state.untouched_epochs = 15

    assert on_ladder(state, student())["train.epochs"] == 8


def test_a_student_is_not_stopped_by_what_others_gain(start):
    """A model that has been trained before gains little after its first epoch; a student gains all that it has."""
    machine = start(students=("narrow",))
    state = machine.searcher.state
    for _ in range(FEWEST_CURVES):
        state.curves.learn((0.97, 0.98))
    pruned = Recipe({"prune.method": "structured", "prune.ratio": 0.5, "train.epochs": 2})

    assert set(floors(state, [student(), pruned])) == {pruned.prefix}


def test_what_a_student_gains_does_not_keep_others_running(start):
    """Its curve is not learned."""
    machine = start(students=("narrow",))
    state, world = machine.searcher.state, MadeUp()
    measured = world.measured(student())
    state.set_reference(world.measured(UNTOUCHED).measurement.cost)
    job = machine.searcher.next_job()
    for epoch in (1, 2):
        state.apply(job, RungReached(student(), Rung(epoch, 2, 0.4 * epoch)), 0.0)
    assert state.curve(student()) == (0.4, 0.8)

    state.finish(student(), state.values(measured.measurement, 1.0), 1.0, state.curve(student()))
    assert state.curves.optimistic_gain(0.5) == math.inf
    assert not state.curves._curves


def test_the_trained_baseline_follows_a_point_that_trains_the_untouched_model_on(start):
    """A student has learned from nothing: the untouched model as it is stands beside it."""
    machine = start(budget_s=1500.0, students=("narrow",))
    machine.run()
    purposes = [job.recipes[0] for job in machine.jobs if job.why.startswith("baselines: the untouched model trained")]

    assert all(recipe.only_trains_on and recipe.student is None for recipe in purposes)
    assert all(running.purpose is not Purpose.PRICING for running in machine.searcher.state.running.values())


def test_a_student_that_was_timed_is_expected_to_train_faster_before_it_was_trained():
    """Not by all that a call is faster: a part of each step does not depend on the size of the model."""
    planner, quick, narrow = Planner(1000, {}), student(name="quick"), student(name="narrow")
    observe_training(planner, UNTOUCHED, 0.01)
    before = planner.train_s(quick)
    planner.observe_structure(quick.cut, 0.5)
    planner.observe_structure(narrow.cut, 0.01)

    assert planner.train_s(quick) == pytest.approx(0.5 * before)
    assert planner.train_s(narrow) == pytest.approx(0.2 * before)
    observe_training(planner, quick, 0.009)
    assert planner.train_s(quick) == pytest.approx(0.9 * before)
    assert planner.train_s(UNTOUCHED.untouched_trained_alike) == 0


def test_pricing_a_student_tells_how_long_its_training_takes(start):
    """So a short budget does not postpone it as if it were the untouched model."""
    machine = start(budget_s=1500.0, students=("narrow",))
    expected = []

    def watch(run=machine.searcher.on_event):
        def on_event(job, event):
            run(job, event)
            if job.kind == JobKind.PRICE:
                expected.append(machine.searcher.state.planner.train_s(student()))

        return on_event

    untouched_s = machine.searcher.state.planner.train_s(student())
    machine.searcher.on_event = watch()
    machine.run()

    assert min(expected) < 0.5 * max(untouched_s, max(expected))
