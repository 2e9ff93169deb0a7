"""When the front is finalized, and what that gives back to the search."""

from dataclasses import replace

import pytest

from autocut.recipe import UNTOUCHED, Recipe
from autocut.score import Limit
from autocut.search.finalists import finalists
from autocut.search.jobs import TEST_SCORING, JobKind, Purpose, RecipeFailed, RecipeFinalized, RecipeStarted, StageStarted

INT8 = ("int8_static", "onnxruntime")


@pytest.mark.parametrize("budget_s", [60.0, 120.0, 300.0, 1200.0])
def test_every_budget_is_kept_and_ends_with_the_front_finalized(start, budget_s):
    """The reserve is planned from measured times: a spent budget leaves test numbers, not promises."""
    machine = start(budget_s=budget_s)
    machine.run()

    assert machine.searcher.budget.spent() <= budget_s + 1
    assert machine.searcher.store.finals
    if budget_s >= 300:
        front = {point.recipe for point in machine.searcher.store.front()}
        assert len(front & set(machine.searcher.store.finals)) >= min(len(front), 5)


def test_the_untouched_weights_are_finalized_in_their_cheapest_exact_form(start):
    """Beaten on the validation split or not: users who can give no accuracy away need it."""
    machine = start()
    machine.run()

    assert machine.searcher.store.finals.keys() >= {Recipe(), Recipe().with_lowering("fp32", "onnxruntime")}


def test_one_point_is_finalized_after_a_quarter_of_the_budget(start):
    """It tells how long a finalization takes here; before, the search learns the most, and finalizing holds the machine."""
    machine = start()
    next_job, finalized = machine.searcher.next_job, []

    def watch():
        job = next_job()
        if job is not None and job.kind == "finalize":
            finalized.append((machine.searcher.budget.spent() / machine.searcher.budget.total_s, job.recipes))
        return job

    machine.searcher.next_job = watch
    machine.run()
    at, recipes = finalized[0]

    assert recipes == (Recipe().with_lowering("fp32", "onnxruntime"),)
    assert 0.25 <= at < 0.5
    kinds = [job.kind for job in machine.jobs]
    assert "measure" in kinds[kinds.index("finalize") :]


def test_time_that_finalizing_did_not_need_goes_back_to_the_search(start):
    """A short budget keeps what a first guess says; once the front is finalized, the rest is searched, and finalized too."""
    machine = start(budget_s=150.0)
    machine.world.finalize_s = 2.0
    machine.run()
    kinds = [job.kind for job in machine.jobs]
    first = kinds.index("finalize")

    assert "measure" in kinds[first:]
    assert kinds[-1] == "finalize"
    assert machine.searcher.budget.left() < 20
    assert {point.recipe for point in machine.searcher.store.front()} <= set(machine.searcher.store.finals)


def test_a_slow_rehearsal_does_not_end_the_search_early(start):
    """Time was kept as if every point took what the first one took; the next ones take a quarter of it."""
    machine = start(budget_s=1200.0, seed=1)
    machine.world.finalize_s = 40.0
    next_job = machine.searcher.next_job

    def hurry_after_the_rehearsal():
        if machine.searcher.state.finalized:
            machine.world.finalize_s = 10.0
        return next_job()

    machine.searcher.next_job = hurry_after_the_rehearsal
    machine.run()
    kinds = [job.kind for job in machine.jobs]
    last_search = len(kinds) - kinds[::-1].index("measure")

    finalized = sum(len(job.recipes) for job in machine.jobs[:last_search] if job.kind == "finalize")
    assert finalized >= 3
    assert kinds[last_search:].count("finalize") >= 3
    assert machine.searcher.budget.left() < 30
    assert set(finalists(machine.searcher.state, machine.searcher.store)) <= set(machine.searcher.store.finals)


def test_a_limit_that_breaks_on_the_test_split_does_not_steer_the_search(start):
    """The bundle is refused; what is tried next depends on validation numbers alone."""
    machine = start(limits=(Limit("accuracy", ">=", 0.5),))
    machine.run(most_jobs=3)
    agent = machine.searcher
    recipe = UNTOUCHED.with_lowering(*INT8)
    front = list(agent.state.front.values)
    poor = machine.world.measured(Recipe({"prune.method": "structured", "prune.ratio": 0.9})).measurement
    finalizing = replace(machine.jobs[-1], kind=JobKind.FINALIZE)
    agent.on_event(finalizing, RecipeFinalized(recipe, poor, None, None, None))

    assert recipe in front
    assert list(agent.state.front.values) == front


def test_a_look_at_the_test_split_counts_though_its_bundle_fails(start):
    """The model was scored: what failed came later."""
    machine = start()
    machine.run(most_jobs=3)
    agent, recipe = machine.searcher, UNTOUCHED.with_lowering(*INT8)
    finalizing = replace(machine.jobs[-1], kind=JobKind.FINALIZE, recipes=(recipe,))
    agent.state.start(finalizing, Purpose.FINALIZATION, machine.clock.now)
    before = len(agent.store.looks)
    for event in (RecipeStarted(recipe), StageStarted(TEST_SCORING, ""), RecipeFailed(recipe, "failed", "the disk is full")):
        agent.on_event(finalizing, event)

    assert agent.store.looks[before:] == [recipe]


def test_time_that_is_left_finalizes_runners_up(start):
    """On the test split some of them may be ahead of the front; nothing is begun that cannot end."""
    machine = start(space_name="deploy-only")
    machine.run()
    front = {point.recipe for point in machine.searcher.store.front()}
    behind = set(machine.searcher.store.finals) - front - {Recipe(), Recipe().with_lowering("fp32", "onnxruntime")}

    assert front <= set(machine.searcher.store.finals)
    assert behind
    assert not [failure for failure in machine.searcher.store.failures if failure.outcome == "interrupted"]


def test_a_refused_model_beats_no_other_one_any_more(start):
    """What only it had beaten may be run, and what it had displaced is on the front again."""
    state = start().searcher.state
    good, better = Recipe().with_lowering("fp32", "onnxruntime"), Recipe().with_lowering("int8_static", "onnxruntime")
    state.finish(good, {"accuracy": 0.9, "usd_per_million": 0.5, "size_bytes": 1e6, "speedup": 2.0})
    state.finish(better, {"accuracy": 0.9, "usd_per_million": 0.3, "size_bytes": 1e5, "speedup": 3.0})
    assert list(state.front.values) == [better]

    state.refuse(better)
    assert list(state.front.values) == [good]
    assert state.is_settled(better)


def test_a_death_while_finalizing_costs_one_point(start):
    """The others of the same process are finalized by another one, and what was finished is kept."""
    rehearsed = start()
    rehearsed.run()
    packed = next(job for job in rehearsed.jobs if job.kind == "finalize" and len(job.recipes) > 1)
    dead = packed.recipes[1]
    machine = start()
    machine.world.deadly_to_finalize.add(dead)
    machine.run()

    assert packed.recipes in [job.recipes for job in machine.jobs]
    assert dead not in machine.searcher.store.finals
    assert set(packed.recipes) - {dead} <= set(machine.searcher.store.finals)


def test_a_bundle_can_name_the_accuracy_that_its_recipe_was_chosen_by(start):
    """The job that makes the bundle gets the validation accuracy of each of its recipes."""
    machine = start()
    machine.run()
    finalizing = [job for job in machine.jobs if job.kind == "finalize"]

    assert finalizing
    assert all(set(job.validation) == set(job.recipes) for job in finalizing)
    assert {accuracy.split for job in finalizing for accuracy in job.validation.values()} == {"validation"}
