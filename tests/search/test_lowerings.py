"""Which lowerings are tried, and when the slow compilers have their turn."""

import pytest

from autocut.search.jobs import StageRan
from autocut.search.lowerings import affordable_lowerings


def test_a_trained_prefix_is_measured_with_several_lowerings(start):
    """Training takes minutes, a lowering seconds."""
    machine = start(budget_s=1200.0)
    machine.run()
    lowerings = {}
    for _, recipe in machine.log:
        if recipe.is_trained:
            lowerings.setdefault(recipe.prefix, set()).add(recipe.lowering)

    assert max(map(len, lowerings.values())) >= 2


def test_a_short_budget_leaves_out_slow_compilers(start):
    """A lowering of half a minute is not tried in five, and the plan says so."""
    short, long = start(budget_s=200.0), start(budget_s=3600.0)
    told = "\n".join(short.searcher.plan_lines())
    short.run()
    long.run(most_jobs=120)

    assert "left out" in told
    assert "aot_inductor" in told
    assert not [recipe for _, recipe in short.log if recipe.lowering[1] == "aot_inductor"]
    assert [recipe for _, recipe in long.log if recipe.lowering[1] == "aot_inductor"]


def test_slow_compilers_wait_for_their_turn(start):
    """Early in a search half a minute of a worker finds more elsewhere: all of them get a twentieth of the time so far."""
    machine, begun_s = start(budget_s=3600.0), []
    next_job = machine.searcher.next_job

    def watch():
        job = next_job()
        if job is not None and job.kind == "measure" and any(lowering.lowering[1] == "aot_inductor" for lowering in job.recipes):
            begun_s.append(machine.searcher.budget.spent())
        return job

    machine.searcher.next_job = watch
    machine.run(most_jobs=120)

    assert len(begun_s) >= 2
    assert begun_s[0] >= 30.0 / 0.05
    assert begun_s[1] >= 2 * 30.0 / 0.05


def test_slow_compilers_get_the_time_that_nothing_else_needs(start):
    """A space without trainings is soon explored but for them."""
    machine = start(budget_s=600.0, space_name="deploy-only")
    machine.run()
    slow = {recipe.lowering for _, recipe in machine.log if recipe.lowering[1] == "aot_inductor"}

    assert slow == {("fp32", "aot_inductor"), ("int8_static", "aot_inductor")}
    assert machine.searcher.budget.spent() < 300


@pytest.mark.parametrize("workers", [1, 2])
def test_what_looked_beaten_comes_before_compilers_without_a_proposal(start, workers):
    """A training that was given up takes seconds and may be on the front; each compiler has had its share of the time by then."""
    machine, was_relaxed = start(budget_s=600.0, space_name="deploy-only", workers=workers), []
    next_job = machine.searcher.next_job

    def watch():
        job = next_job()
        if job is not None and job.kind == "measure" and any(recipe.lowering[1] == "aot_inductor" for recipe in job.recipes):
            was_relaxed.append(machine.searcher.state.is_relaxed)
        return job

    machine.searcher.next_job = watch
    machine.run()

    assert was_relaxed == [True, True]


def test_a_slow_reference_does_not_make_every_lowering_look_slow(start):
    """The untouched model is timed several times; a lowering is timed once."""
    machine = start(budget_s=200.0)
    lowerings = affordable_lowerings(machine.searcher.state)
    machine.searcher.state.planner.observe(StageRan("key", "cost", "fp32/eager", 40.0, False, "measuring"))

    assert affordable_lowerings(machine.searcher.state) == lowerings
