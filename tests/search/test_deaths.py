"""A recipe that fails, a worker that dies or hangs: what is blamed, and what runs again."""

from dataclasses import replace

import pytest

from autocut.recipe import Recipe
from autocut.search.jobs import JobEnded, RecipeFailed, RecipeStarted, WorkerUp

from .conftest import GRAPHS

INT8 = ("int8_static", "onnxruntime")


def test_a_failed_recipe_ends_alone_and_is_not_tried_again(start):
    """NaN, a compiler's refusal, an infeasible pair: the reason is recorded, the search goes on."""
    bad = Recipe().with_lowering(*INT8)
    machine = start()
    machine.world.broken[bad] = "infeasible"
    machine.run()

    assert [failure.recipe for failure in machine.searcher.store.failures].count(bad) == 1
    assert bad not in [recipe for _, recipe in machine.log]
    assert machine.searcher.store.finals


def test_a_dead_worker_costs_one_recipe_and_the_others_are_run_again(start):
    """The recipe that was being worked on is blamed; the rest of the job is queued again."""
    deadly = Recipe().with_lowering(*INT8)
    machine = start()
    machine.world.deadly.add(deadly)
    machine.run(most_jobs=6)

    assert [failure.recipe for failure in machine.searcher.store.failures] == [deadly]
    assert {recipe.lowering for _, recipe in machine.log} >= {("fp32", "onnxruntime"), ("bf16", "eager")}


def test_a_training_that_kills_its_process_is_tried_once(start):
    """Not once for each of its lowerings: they share it."""
    deadly = Recipe({"prune.method": "structured", "prune.ratio": 0.5, "train.epochs": 4, "train.lr_scale": 1.0})
    machine = start(budget_s=1200.0, tries=[deadly.with_lowering(*INT8)])
    machine.world.deadly |= {deadly.with_lowering(*lowering) for lowering in GRAPHS}
    machine.run(most_jobs=12)
    blamed = [failure.recipe for failure in machine.searcher.store.failures if failure.recipe.prefix == deadly]

    assert len(blamed) > 1
    assert sum(any(recipe.prefix == deadly for recipe in job.recipes) for job in machine.jobs) == 1


def test_an_untouched_model_that_kills_its_process_is_told(start):
    """Trying again would kill it again."""
    machine = start()
    job = machine.searcher.next_job()
    machine.searcher.on_event(job, WorkerUp())
    machine.searcher.on_job_end(job, "killed by SIGKILL, as when memory runs out")

    assert "untouched model" in machine.searcher.fault.message
    with pytest.raises(StopIteration):
        machine.searcher.next_job()


@pytest.mark.parametrize(("too_long_s", "hangs"), [(1.0, True), (-2.0, True), (-30.0, False)])
def test_a_recipe_that_hangs_is_called_hanging(start, too_long_s, hangs):
    """Killed by the clock, not by memory. The worker's clock may be some seconds ahead: its start is heard of late."""
    machine = start()
    machine.run(most_jobs=2)
    job = machine.searcher.next_job()
    machine.searcher.on_event(job, RecipeStarted(job.recipes[0]))
    machine.clock.now += job.patience_s + too_long_s
    machine.searcher.budget = replace(machine.searcher.budget, total_s=1e6)
    machine.searcher.on_job_end(replace(job, deadline=1e9), "the worker process died")

    assert machine.searcher.store.failures[-1].reason.startswith("it hung" if hangs else "the worker process died")


def test_what_a_harmed_process_leaves_runs_in_another_one(start):
    """Nobody is blamed or interrupted: the rest of the job is the next one, whatever was proposed or asked for meanwhile."""
    machine = start()
    machine.run(most_jobs=1)
    agent = machine.searcher
    job = agent.next_job()
    first, *rest = job.recipes
    agent.on_event(job, WorkerUp())
    agent.on_event(job, RecipeFailed(first, "failed", "the task's own code failed: OSError: its file is gone (task.py, line 7)"))
    agent.on_event(job, JobEnded(0.0, 1.0, leaves_rest=True))
    agent.on_job_end(job, None)

    assert rest
    assert agent.next_job().recipes == tuple(rest)
    assert [failure.recipe for failure in agent.store.failures] == [first]


def test_a_worker_that_was_killed_from_outside_is_no_fault_of_its_recipe(start):
    """It runs again, before everything else. Lost three times, it is blamed: what kills it may be what it does."""
    machine = start()
    machine.run(most_jobs=2)
    agent = machine.searcher
    lost = agent.next_job()
    for _ in range(2):
        agent.on_event(lost, RecipeStarted(lost.recipes[0]))
        agent.on_job_end(lost, "the worker process was killed (SIGKILL)", is_blameless=True)
        again = agent.next_job()
        assert again.recipes == lost.recipes
        lost = again
    assert not agent.store.failures
    agent.on_event(lost, RecipeStarted(lost.recipes[0]))
    agent.on_job_end(lost, "the worker process was killed (SIGKILL)", is_blameless=True)

    assert [failure.recipe for failure in agent.store.failures] == [lost.recipes[0]]


def test_an_untouched_model_that_was_killed_from_outside_is_tried_again(start):
    """The search does not end for it."""
    machine = start()
    agent = machine.searcher
    job = agent.next_job()
    agent.on_event(job, WorkerUp())
    agent.on_job_end(job, "the process that workers are forked from died", is_blameless=True)

    assert agent.fault is None
    assert agent.next_job().kind == job.kind
