"""What runs beside a long training of the untouched model: structures are timed, and "cost first" finds nothing left to do."""

from dataclasses import replace

import pytest

from autocut.recipe import UNTOUCHED, Recipe
from autocut.search.first_guesses import FirstGuesses, MethodEffect, own_family
from autocut.search.jobs import (
    BaselineReady,
    JobKind,
    Purpose,
    RecipeFailed,
    RecipeMeasured,
    RecipePriced,
    StageRan,
    TrainingPaced,
    TrainingPlanned,
)
from autocut.search.progress import training_line

from .conftest import GRAPHS, MadeUp, cost_of


@pytest.fixture
def agent(start):
    """An agent with two workers and ten minutes, that has started the untouched model."""
    agent = start(workers=2).searcher
    assert agent.next_job().kind is JobKind.BASELINE
    return agent


@pytest.fixture
def price_all(agent):
    """Run every job that the agent plans beside the training; return the recipes in their order."""
    return lambda: price_all_of(agent)


def price_all_of(agent):
    """Run every job that `agent` plans beside the training; return the recipes in their order."""
    priced = []
    while (job := agent.next_job()) is not None:
        assert job.kind is JobKind.PRICE
        for recipe in job.recipes:
            priced.append(recipe)
            agent.on_event(job, RecipePriced(recipe, cost_of(recipe)))
        agent.on_job_end(job, None)
    return priced


def baseline_of(agent):
    """The job that trains the untouched model."""
    return next(running.job for running in agent.state.running.values() if running.purpose is Purpose.BASELINE)


def finish_baseline(agent):
    """The untouched model is trained and measured."""
    job, world = baseline_of(agent), MadeUp()
    measured = world.measured(UNTOUCHED)
    agent.on_event(job, BaselineReady(measured.measurement.cost, measured.measurement.accuracy, {}, 100.0, 1000, 5))
    agent.on_event(job, RecipeMeasured(UNTOUCHED, measured))
    agent.on_job_end(job, None)


def test_nothing_runs_beside_a_short_training(agent):
    """A short training tells no pace: the second worker waits, as before."""
    assert agent.next_job() is None


def test_structures_are_timed_beside_a_long_training(agent, price_all):
    """The untouched model first, because every cost refers to it; then its lowerings, then pruned structures."""
    agent.on_event(baseline_of(agent), TrainingPaced(500.0))
    priced = price_all()

    assert priced[0] == UNTOUCHED
    assert {recipe.lowering for recipe in priced if recipe.prefix == UNTOUCHED} >= {("fp32", "onnxruntime"), ("bf16", "eager")}
    assert {recipe["prune.method"] for recipe in priced} >= {"structured", "l1_unstructured"}
    assert len(set(priced)) == len(priced)
    assert not agent.store.points
    assert not agent.store.failures


def test_the_most_promising_lowering_is_timed_before_the_quickest(start):
    """While the untouched model trains there is no time for all of them. Layers that stay float wait for accuracies."""
    kept = ("int8_static:4", "onnxruntime")
    agent = start(workers=2, graphs={**GRAPHS, kept: "int8 with float"}).searcher
    agent.next_job()
    guesses = {"bf16/eager": MethodEffect(0.9, 0.9, 0.5, 1.0, 1.0), "int8_static/onnxruntime": MethodEffect(4, 4, 0.25, 1.0, 4.0)}
    guesses |= {name: MethodEffect(1.1, 1.1, 1.0, 1.0, 4.0) for name in ("fp32/onnxruntime", "fp32/aot_inductor")}
    families = FirstGuesses().with_family(own_family(guesses, {}))
    agent.state.settings = replace(agent.state.settings, first_guesses=families)
    agent.on_event(baseline_of(agent), TrainingPaced(500.0))
    priced = [recipe.lowering for recipe in price_all_of(agent) if recipe.prefix == UNTOUCHED]

    assert priced[:2] == [UNTOUCHED.lowering, ("int8_static", "onnxruntime")]
    assert kept not in priced[: len(GRAPHS) - 2]


def test_cost_first_need_not_run_again(agent, price_all):
    """The next jobs are the untouched model's lowerings, of which only the accuracy is missing; then trainings."""
    agent.on_event(baseline_of(agent), TrainingPaced(500.0))
    priced = price_all()
    finish_baseline(agent)
    jobs = [agent.next_job() for _ in range(3)]
    purposes = {running.purpose for running in agent.state.running.values()}

    assert all(agent.state.costs.is_known(recipe) for recipe in priced)
    assert Purpose.QUICK_LOWERINGS in purposes
    assert Purpose.COST_FIRST not in purposes
    assert {recipe.prefix for recipe in jobs[0].recipes} == {UNTOUCHED}
    assert jobs[0].untouched_epochs == 5


def test_timing_that_is_long_beside_the_training_is_left_out(agent):
    """It would keep the training waiting, and the training needs the cores."""
    agent.on_event(baseline_of(agent), TrainingPaced(4.0))
    assert agent.next_job() is None


def test_a_training_of_minutes_waits_for_the_lowerings_of_the_untouched_model_alone(agent, price_all):
    """They are timed in any search; pruned structures would keep the training waiting for more than a share of it."""
    agent.on_event(baseline_of(agent), TrainingPaced(100.0))
    agent.state.planner.observe(StageRan("key", "cost", "fp32/onnxruntime", 8.0, False, "measuring"))

    assert {recipe.prefix for recipe in price_all()} == {UNTOUCHED}


def test_one_worker_of_four_prices_at_a_time(agent):
    """The training borrows the cores of the others."""
    agent.on_event(baseline_of(agent), TrainingPaced(500.0))
    assert agent.next_job().recipes == (UNTOUCHED,)
    assert agent.next_job() is None


def test_a_price_that_fails_is_no_verdict(agent):
    """The recipe is tried with the trained weights; where a worker dies of it, too."""
    agent.on_event(baseline_of(agent), TrainingPaced(500.0))
    job = agent.next_job()
    agent.on_event(job, RecipePriced(UNTOUCHED, cost_of(UNTOUCHED)))
    agent.on_job_end(job, None)
    job = agent.next_job()
    agent.on_event(job, RecipeFailed(job.recipes[0], "failed", "no kernel"))
    agent.on_job_end(job, "killed")

    assert not agent.state.is_settled(job.recipes[0])
    assert not agent.store.failures
    assert agent.fault is None


def test_a_recipe_that_is_only_timed_may_be_measured_meanwhile(agent):
    """Where the training ends before the timing, the recipe's own trial does not wait for it."""
    agent.on_event(baseline_of(agent), TrainingPaced(500.0))
    first = agent.next_job()
    agent.on_event(first, RecipePriced(UNTOUCHED, cost_of(UNTOUCHED)))
    agent.on_job_end(first, None)
    job = agent.next_job()

    assert not agent.state.is_running(job.recipes[0])
    assert not agent.state.is_in_training(Recipe({"prune.method": "structured", "prune.ratio": 0.5}))


@pytest.mark.parametrize(("epochs", "words"), [(8, "takes about 4m10s"), (5, "5 of its 8 epochs, about 4m10s")])
def test_the_plan_says_how_long_the_training_takes(epochs, words):
    """Where the budget is too short for all epochs, it also says what to type."""
    line = training_line(TrainingPlanned(epochs, 8, 250.0, 400.0))

    assert words in line
    assert ("--budget 16m" in line) == (epochs < 8)
