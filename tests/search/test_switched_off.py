"""A method that fails again and again for the same reason is switched off."""

from autocut.recipe import Recipe
from autocut.search.jobs import Job, JobKind, PlannedJob, Purpose, RecipeFailed
from autocut.search.switched_off import SwitchedOff


def pruned(ratio, method="structured", lowering=("fp32", "eager")):
    """A recipe with a pruner."""
    return Recipe({"prune.method": method, "prune.ratio": ratio}).with_lowering(*lowering)


def begun():
    """A study in which the untouched model runs."""
    off = SwitchedOff()
    off.learn_success(Recipe())
    return off


def test_the_third_failure_for_the_same_reason_switches_a_method_off():
    """It says so once. Numbers in the reason do not make it another one."""
    off = begun()
    for ratio in (0.2, 0.4):
        off.learn_failure(pruned(ratio), f"no room for {ratio} of it")
    assert not off.covers(pruned(0.6))
    off.learn_failure(pruned(0.6), "no room for 0.6 of it")
    off.learn_failure(pruned(0.7), "no room for 0.7 of it")

    assert off.covers(pruned(0.8))
    assert not off.covers(pruned(0.8, "l1_unstructured"))
    (told,) = off.take_news()
    assert told == "switched off for this study: prune.method structured failed 3 times and never worked: no room for 0.6 of it"
    assert off.take_news() == []


def test_what_worked_once_is_not_to_blame():
    """The three have something else in common."""
    off = begun()
    off.learn_success(pruned(0.1))
    for ratio in (0.2, 0.4, 0.6):
        off.learn_failure(pruned(ratio, lowering=("int8_static", "onnxruntime")), "it crashed")

    assert not off.covers(pruned(0.8))
    assert off.covers(pruned(0.8, lowering=("int8_static", "onnxruntime")))


def test_other_reasons_do_not_add_up():
    """Three bad days are no bad method."""
    off = begun()
    for ratio, reason in ((0.2, "it crashed"), (0.4, "it hung"), (0.6, "out of memory")):
        off.learn_failure(pruned(ratio), reason)

    assert not off.covers(pruned(0.2))


def test_lowerings_that_fail_with_their_training_count_once():
    """They share it."""
    off = begun()
    for mode in ("eager", "onnxruntime", "aot_inductor"):
        off.learn_failure(pruned(0.2, lowering=("fp32", mode)), "it crashed")

    assert not off.covers(pruned(0.4))


def test_a_combination_is_switched_off_though_both_of_its_parts_work():
    """Each with another partner."""
    off = begun()
    off.learn_success(pruned(0.1, lowering=("int8_static", "eager")))
    off.learn_success(pruned(0.1, lowering=("fp32", "onnxruntime")))
    for ratio in (0.2, 0.4, 0.6):
        off.learn_failure(pruned(ratio, lowering=("int8_static", "onnxruntime")), "it crashed")

    assert off.covers(pruned(0.8, lowering=("int8_static", "onnxruntime")))
    assert not off.covers(pruned(0.8, lowering=("int8_static", "eager")))
    assert not off.covers(pruned(0.8, lowering=("fp32", "onnxruntime")))


def test_what_a_method_needs_and_the_model_lacks_switches_it_off_at_once():
    """No ratio gives a model blocks; but a ratio that removes nothing is no fault of the method."""
    off = begun()
    off.learn_infeasible(pruned(0.1), "prune.ratio 0.1 removes no channel after rounding")
    assert not off.covers(pruned(0.5))
    off.learn_infeasible(pruned(0.5, "depth"), "prune.method 'depth' needs at least two blocks, got 0")

    assert off.covers(pruned(0.9, "depth"))
    assert not off.covers(pruned(0.9))
    assert off.take_news() == ["switched off for this study: prune.method 'depth' needs at least two blocks, got 0"]


NO_BLOCKS = "prune.method 'structured_taylor' needs gradients, got none"


def fail(agent, *ratios):
    """Let a worker with one recipe for each ratio report that none of them can run; return what the user is told."""
    recipes = tuple(pruned(ratio, "structured_taylor") for ratio in ratios)
    job = Job(99, JobKind.MEASURE, recipes, 1e9, "test")
    agent.state.start(job, Purpose.COST_FIRST, agent.budget.clock())
    told = len(agent.progress.lines)
    for recipe in recipes:
        agent.on_event(job, RecipeFailed(recipe, "infeasible", NO_BLOCKS))
    agent.on_job_end(job, None)
    return list(agent.progress.lines)[told:]


def test_what_a_worker_had_before_a_method_was_switched_off_is_told_as_that(start):
    """A reader would wonder why the search goes on trying what it has just given up."""
    machine = start()
    machine.run(most_jobs=2)
    first, off, *late = fail(machine.searcher, 0.2, 0.4, 0.6)

    assert first.endswith(NO_BLOCKS)
    assert off.startswith("switched off for this study")
    assert len(late) == 2
    assert all(line.endswith("; a worker had it before prune.method structured_taylor was switched off") for line in late)


def test_one_trial_tells_that_a_cut_is_impossible_however_many_lowerings_the_job_has(start):
    """The study would list the same sentence once for each lowering. What the user asked for has its own trial in any case."""
    asked = pruned(0.5, "structured_taylor").with_lowering("bf16", "eager")
    machine = start(tries=(asked,))
    machine.run(most_jobs=1)
    agent = machine.searcher
    recipes = tuple(asked.with_lowering(*lowering) for lowering in [("fp32", "eager"), ("fp32", "onnxruntime"), asked.lowering])
    job = Job(99, JobKind.MEASURE, recipes, 1e9, "test")
    agent.state.start(job, Purpose.COST_FIRST, agent.budget.clock())
    for recipe in recipes:
        agent.on_event(job, RecipeFailed(recipe, "infeasible", NO_BLOCKS))
    agent.on_job_end(job, None)

    assert [failure.recipe for failure in agent.store.failures] == [recipes[0], asked]
    assert agent.state.infeasible >= set(recipes)


def test_what_waits_in_the_queue_is_dropped_when_its_method_is_switched_off(start):
    """Nothing is learned from it."""
    machine = start(budget_s=1200.0)
    machine.run(most_jobs=2)
    agent = machine.searcher
    waiting = [pruned(ratio, "structured_taylor") for ratio in (0.3, 0.5, 0.7)]
    agent._queue.extend(PlannedJob((recipe,), Purpose.COST_FIRST, "test", may_skip=False) for recipe in waiting)
    fail(agent, 0.2)
    machine.run(most_jobs=40)

    assert machine.searcher.state.finished
    assert not any(recipe["prune.method"] == "structured_taylor" for job in machine.jobs[2:] for recipe in job.recipes)


def test_a_recipe_that_the_user_asked_for_is_told_when_its_method_is_switched_off(start):
    """It would otherwise vanish without a word; with a later version it can be asked for again."""
    wanted = pruned(0.5, "structured_taylor")
    machine = start(budget_s=1200.0, tries=(wanted,))
    machine.run(most_jobs=1)
    fail(machine.searcher, 0.2)
    machine.run(most_jobs=40)
    told = [line for line in machine.searcher.progress.lines if line.startswith("not run")]

    assert told == [
        f"not run: {wanted.describe()}: prune.method structured_taylor is switched off, because it never worked in this study"
    ]
    assert wanted not in machine.searcher.state.infeasible
