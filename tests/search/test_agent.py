"""The agent against a simulated machine: what it decides, in which order, and when it stops."""

import itertools

import pytest

from autocut.recipe import Recipe
from autocut.search.estimates import ExpectedCost
from autocut.search.jobs import StageRan
from autocut.search.proposals import Proposer
from autocut.search.recall import EarlierTrial, recall_trial

INT8 = ("int8_static", "onnxruntime")


def test_the_untouched_model_comes_first_and_every_cheap_lowering_of_it_next(start):
    """From then on there is a front, and something to compare with."""
    machine = start()
    machine.run(most_jobs=8)
    of_untouched = list(itertools.takewhile(lambda job: all(recipe.prefix == Recipe() for recipe in job.recipes), machine.jobs))

    assert machine.jobs[0].kind == "baseline"
    assert machine.log[0] == ("measure", Recipe())
    assert INT8 in {recipe.lowering for job in of_untouched for recipe in job.recipes}
    assert len(of_untouched) < len(machine.jobs)


def test_what_training_costs_counts_the_untouched_models_own(start):
    """A recipe that starts from it pays for it too; one from scratch does not."""
    state = start(space_name="training-only").searcher.state
    expected_cost = ExpectedCost(state)
    state.planner.observe(StageRan("key", "train", "none/none", 2.0, False, "training", samples_seen=1000))
    values = {"accuracy": 0.9, "usd_per_million": 0.5, "size_bytes": 1e6, "speedup": 1.0}
    state.finish(Recipe(), {**values, "train_usd": 10.0})
    state.finish(Recipe({"train.epochs": 2}), {**values, "train_usd": 14.0})

    assert expected_cost(Recipe({"train.epochs": 4}))["train_usd"] == pytest.approx(18.0)
    assert expected_cost(Recipe({"train.epochs": 4, "train.start": "scratch"}))["train_usd"] == pytest.approx(8.0)


@pytest.mark.parametrize("name", ["default", "quick", "training-only"])
def test_every_shipped_space_that_trains_gets_to_train(start, name):
    """Also where the untouched model has the best accuracy seen, and training costs what the search minimizes."""
    machine = start(space_name=name)
    machine.run()

    assert any(recipe.is_trained for what, recipe in machine.log if what == "measure")


def test_a_model_that_lost_half_of_its_accuracy_is_not_on_the_front(start):
    """However cheap it is: it is no alternative to the untouched model."""
    machine = start()
    machine.run()

    assert all(point.values["accuracy"] >= 0.49 for point in machine.searcher.store.front())


def test_what_an_earlier_session_found_is_not_repeated(start):
    """The same command again goes on; a longer budget extends."""
    first = start(budget_s=300.0)
    first.run()
    second = start(budget_s=900.0, spent_s=first.searcher.budget.spent())
    second.searcher.state.reference, store = first.searcher.state.reference, second.searcher.store
    for what, recipe in first.log:
        if what == "measure":
            values = first.searcher.state.finished[recipe]
            state = second.searcher.state
            recall_trial(EarlierTrial(recipe, values), state, Proposer(state.settings.space, "random", 0))
            if recipe in first.searcher.store.finals:
                state.finish_finalization(recipe, is_refused=False)
            second.searcher.store.points[recipe] = first.searcher.store.points.get(recipe) or second.searcher.store.points.get(
                recipe
            )
    store.points = {recipe: point for recipe, point in store.points.items() if point}
    second.run()

    done = {recipe for what, recipe in first.log if what == "measure"}
    assert not done & {recipe for what, recipe in second.log if what == "measure"}
    assert len(second.log) > 0


def test_the_same_seed_decides_the_same(start):
    """A search can be reproduced, as far as the machine allows."""
    first, second = start(seed=3), start(seed=3)
    first.run()
    second.run()

    assert first.log == second.log


def test_a_fault_that_no_trial_would_survive_ends_the_search(start):
    """A full disk is reported once, and everything finished is kept."""
    from autocut.search.jobs import WorkerFault

    machine = start()
    machine.run(most_jobs=2)
    machine.searcher.on_event(machine.jobs[-1], WorkerFault("disk is full", "make room"))

    with pytest.raises(StopIteration):
        machine.searcher.next_job()
