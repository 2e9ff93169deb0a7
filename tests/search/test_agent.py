"""The agent against a simulated machine: what it decides, in which order, and when it stops."""

from dataclasses import replace

import pytest

from autocut.recipe import UNTOUCHED, Recipe
from autocut.score import Limit
from autocut.search.estimates import ExpectedCost
from autocut.search.finalists import finalists
from autocut.search.jobs import JobEnded, JobKind, RecipeFailed, RecipeFinalized, RecipeStarted, StageRan, WorkerUp
from autocut.search.lowerings import affordable_lowerings
from autocut.search.proposals import Proposer
from autocut.search.recall import EarlierTrial, recall_trial

from .conftest import GRAPHS

INT8 = ("int8_static", "onnxruntime")


def test_the_untouched_model_comes_first_and_every_cheap_lowering_of_it_next(start):
    """From then on there is a front, and something to compare with."""
    machine = start()
    machine.run(most_jobs=2)

    assert machine.jobs[0].kind == "baseline"
    assert machine.log[0] == ("measure", Recipe())
    assert {recipe.prefix for recipe in machine.jobs[1].recipes} == {Recipe()}
    assert INT8 in {recipe.lowering for recipe in machine.jobs[1].recipes}


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


def test_a_user_recipe_that_did_not_fit_is_run_when_time_comes_back(start):
    """Finalizing took less than was kept for it: what the user asked for comes before new ideas."""
    wanted = Recipe({"prune.method": "structured", "prune.ratio": 0.5, "train.epochs": 6, "train.lr_scale": 1.0}).with_lowering(
        *INT8
    )
    machine = start(budget_s=135.0, tries=[wanted])
    machine.world.finalize_s = 1.0
    machine.run()
    told = [line for line in machine.searcher.progress.lines if line.startswith("not run")]

    assert told
    assert wanted in machine.searcher.store.points


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


def test_time_that_is_left_finalizes_runners_up(start):
    """On the test split some of them may be ahead of the front; nothing is begun that cannot end."""
    machine = start(space_name="deploy-only")
    machine.run()
    front = {point.recipe for point in machine.searcher.store.front()}
    behind = set(machine.searcher.store.finals) - front - {Recipe(), Recipe().with_lowering("fp32", "onnxruntime")}

    assert front <= set(machine.searcher.store.finals)
    assert behind
    assert not [failure for failure in machine.searcher.store.failures if failure.outcome == "interrupted"]


def test_no_recipe_is_ever_run_twice(start):
    """Duplicates burn budget."""
    machine = start(budget_s=1200.0)
    machine.run()
    measured = [recipe for what, recipe in machine.log if what == "measure"]

    assert len(measured) == len(set(measured)) > 20


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


def test_user_recipes_are_tried_before_any_proposal(start):
    """`--try` is an order."""
    wanted = Recipe({"prune.method": "structured", "prune.ratio": 0.3, "train.epochs": 1, "train.lr_scale": 0.7}).with_lowering(
        *INT8
    )
    machine = start(tries=(wanted,))
    machine.run()
    trained = [recipe for what, recipe in machine.log if what == "measure" and recipe.is_trained]

    assert trained[0] == wanted


def test_an_asked_for_recipe_that_cannot_run_is_told(start):
    """It would otherwise vanish without a word."""
    wanted = Recipe({"quantize.dtype": "bf16", "compile.mode": "onnxruntime"})
    machine = start(tries=(wanted,))
    machine.run()

    assert [failure.reason for failure in machine.searcher.store.failures if failure.recipe == wanted] == [
        "bf16 with onnxruntime cannot run on this machine: autocut methods says why"
    ]


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


def test_a_budget_too_short_for_a_user_recipe_is_no_failure(start):
    """With a longer budget the same recipe can be asked for again."""
    wanted = Recipe({"quantize.dtype": "int8_static", "compile.mode": "aot_inductor"})
    short = start(budget_s=200.0, tries=(wanted,))
    short.run()

    assert wanted not in short.searcher.state.infeasible
    assert any(line.startswith("not run:") and "too long for this budget" in line for line in short.searcher.progress.lines)


def test_a_user_recipe_that_does_not_fit_is_told(start):
    """Nothing that the user asked for vanishes without a word."""
    wanted = Recipe({"train.epochs": 8, "train.lr_scale": 0.5}).with_lowering("fp32", "onnxruntime")
    machine = start(budget_s=60.0, tries=(wanted,))
    machine.run()
    told = [line for line in machine.searcher.progress.lines if wanted.describe() in line]

    assert len(told) == 1
    assert "is left" in told[0] or "too long for this budget" in told[0]


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


def test_two_workers_never_train_the_same_prefix(start):
    """The second one would wait for the first, doing nothing."""
    machine = start(budget_s=1800.0, workers=2)
    doubles, side_by_side = [], 0
    run = machine.searcher.next_job

    def next_job():
        nonlocal side_by_side
        job = run()
        if job is not None and job.kind == "measure":
            trained = {recipe.prefix for recipe in job.recipes if recipe.is_trained} - machine.searcher.state.trained
            others = {recipe.prefix for other in machine._running for recipe in other.job.recipes}
            doubles.extend(trained & others)
            side_by_side += bool(trained) and any(prefix.is_trained for prefix in others)
        return job

    machine.searcher.next_job = next_job
    machine.run()
    assert not doubles
    assert side_by_side > 5


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


def test_a_limit_keeps_points_off_the_front(start):
    """Limits steer and filter."""
    machine = start(limits=(Limit("accuracy", ">=", 0.97),))
    machine.run()

    assert machine.searcher.store.front()
    assert all(point.values["accuracy"] >= 0.97 for point in machine.searcher.store.front())


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


def test_a_slow_reference_does_not_make_every_lowering_look_slow(start):
    """The untouched model is timed several times; a lowering is timed once."""
    machine = start(budget_s=200.0)
    lowerings = affordable_lowerings(machine.searcher.state)
    machine.searcher.state.planner.observe(StageRan("key", "cost", "fp32/eager", 40.0, False, "measuring"))

    assert affordable_lowerings(machine.searcher.state) == lowerings


def test_with_time_left_it_expects_more_than_the_best_accuracy_seen(start):
    """A space that counts as explored is looked at once more, before the search ends early."""
    machine = start(budget_s=100_000.0, space_name="deploy-only")
    machine.run()

    assert machine.searcher.state.is_relaxed
    assert machine.searcher.budget.left() > 1000
    assert [line for line in machine.searcher.progress.lines if "counts as explored" in line and "of its time left" in line]


def test_a_space_is_not_explored_where_anything_worth_running_only_lacks_the_time(start, monkeypatch):
    """However many other ideas are beaten: the search goes on with it when finalizing gives time back."""
    machine = start()
    machine.run(most_jobs=30)
    agent, fan_out = machine.searcher, machine.searcher.choice.fan_out
    monkeypatch.setattr(agent.choice, "fan_out", lambda recipe: fan_out(recipe) if int(recipe.fingerprint, 16) % 5 == 0 else ())

    assert agent.proposing.next_job(0.5) is None
    assert agent.proposing.is_dry
    assert agent.proposing.is_short_of_time
    assert agent.proposing.next_job(600.0) is not None
    assert not agent.proposing.is_dry


def test_a_search_whose_time_is_up_does_not_say_that_the_space_is_explored(start):
    """That nothing fits any more says nothing of what is left."""
    machine = start(budget_s=300.0)
    machine.run()

    assert not machine.searcher.state.is_relaxed
    assert not [line for line in machine.searcher.progress.lines if "explored" in line]


def test_a_bundle_can_name_the_accuracy_that_its_recipe_was_chosen_by(start):
    """The job that makes the bundle gets the validation accuracy of each of its recipes."""
    machine = start()
    machine.run()
    finalizing = [job for job in machine.jobs if job.kind == "finalize"]

    assert finalizing
    assert all(set(job.validation) == set(job.recipes) for job in finalizing)
    assert {accuracy.split for job in finalizing for accuracy in job.validation.values()} == {"validation"}


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


def test_a_percentage_as_the_limit_of_a_share_ends_the_search(start):
    """No model has an accuracy of 95 where the untouched one has 0.98."""
    machine = start(limits=(Limit("accuracy", ">=", 95.0),))
    machine.run()

    assert machine.searcher.fault.message == "limit on accuracy must be at most 1, as a share is, got 'accuracy>=95'"
    assert machine.searcher.fault.hint == "did you mean 'accuracy>=0.95'?"
    assert [job.kind for job in machine.jobs] == [JobKind.BASELINE]
