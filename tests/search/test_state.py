"""The search state: events change it, and nothing else does."""

from autocut.recipe import UNTOUCHED, Recipe
from autocut.search.cost_model import CostModel
from autocut.search.jobs import Job, JobKind, Purpose, RecipeFailed, RecipeStarted, WorkerUp
from autocut.search.state import OpenTrial

RECIPE = Recipe({"prune.method": "structured", "prune.ratio": 0.5, "train.epochs": 2, "train.lr_scale": 1.0})
JOB = Job(7, JobKind.MEASURE, (UNTOUCHED, RECIPE), 1e9, "test")


def test_a_running_job_is_known_by_its_purpose_and_its_recipes(start):
    """Policies wait for jobs of a purpose, and for trainings that run."""
    state = start().searcher.state
    state.start(JOB, Purpose.COST_FIRST, 10.0)

    assert state.runs(Purpose.COST_FIRST)
    assert not state.runs(Purpose.PROPOSAL)
    assert state.is_running(RECIPE)
    assert state.is_in_training(RECIPE.prefix)


def test_a_worker_that_begins_a_recipe_says_how_long_its_process_took(start):
    """Before that, its stages count for the first recipe."""
    state = start().searcher.state
    state.start(JOB, Purpose.COST_FIRST, 10.0)
    assert state.recipe_of(JOB) == UNTOUCHED

    state.apply(JOB, WorkerUp(), 11.0)
    state.apply(JOB, RecipeStarted(RECIPE), 12.5)
    assert state.running[JOB.number].is_up
    assert state.recipe_of(JOB) == RECIPE
    assert state.planner.process_s() == 2.5


def test_an_interrupted_recipe_is_open_no_more_but_may_run_again(start):
    """Only a failure settles it."""
    state = start().searcher.state
    state.open[RECIPE] = OpenTrial()
    state.apply(JOB, RecipeFailed(RECIPE, "interrupted", "time"), 1.0)
    assert not state.open
    assert not state.is_settled(RECIPE)

    state.apply(JOB, RecipeFailed(RECIPE, "failed", "NaN"), 2.0)
    assert RECIPE in state.infeasible
    assert state.is_settled(RECIPE)


def test_a_failed_finalization_refuses_a_recipe_without_marking_it_infeasible(start):
    """It was measured; it cannot be deployed."""
    state = start().searcher.state
    state.apply(Job(8, JobKind.FINALIZE, (RECIPE,), 1e9, "test"), RecipeFailed(RECIPE, "failed", "no export"), 1.0)

    assert RECIPE in state.refused & state.finalized
    assert RECIPE not in state.infeasible


def test_a_guess_from_another_lowering_takes_the_first_one_that_was_measured():
    """It must not depend on the hash seed of the process, or the same seed would not decide the same."""
    model = CostModel()
    modes = [f"mode{number}" for number in range(20)]
    for cost, mode in enumerate(modes, start=1):
        model.learn(UNTOUCHED.with_lowering("fp32", mode), {"usd_per_million": 1.0})
        if cost > 1:
            model.learn(RECIPE.with_lowering("fp32", mode), {"usd_per_million": 1.0 / cost})

    assert model.scaled(RECIPE.with_lowering("fp32", modes[0])) == {"usd_per_million": 1 / 2}


def test_a_disturbed_cost_says_nothing_of_other_recipes(start):
    """Its structure is timed again by whoever needs it. The untouched model's counts: every other cost refers to it."""
    state = start().searcher.state
    values = {"accuracy": 0.9, "usd_per_million": 0.5, "latency_ms": 1.0, "size_bytes": 1e6, "speedup": 2.0, "train_usd": 0.0}
    before = state.costs.is_known(RECIPE)
    state.finish(RECIPE, values, is_disturbed=True)
    assert not before
    assert not state.costs.is_known(RECIPE)
    assert RECIPE in state.finished

    state.finish(UNTOUCHED, values, is_disturbed=True)
    assert state.costs.is_known(UNTOUCHED)
    state.finish(RECIPE, values)
    assert state.costs.is_known(RECIPE)
