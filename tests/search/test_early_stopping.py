"""When a training is not worth its rest."""

from __future__ import annotations

import math

import pytest

from autocut.recipe import Recipe
from autocut.search.early_stopping import are_in_vain
from autocut.search.jobs import Job, RecipeFailed
from autocut.search.learning_curves import FEWEST_CURVES, LearningCurves
from autocut.search.proposals import Proposer
from autocut.search.recall import EarlierTrial, recall_trial
from autocut.search.settings import Tactics

UNWEIGHED = Tactics(gain_per_second=False)
"""Proposals as the sampler makes them: weighed, those of this world are too good to be stopped."""


def curves_that_gain(*gains):
    """Finished trainings of two epochs that gained so much in the second one."""
    curves = LearningCurves()
    for gain in gains:
        curves.learn((0.5, 0.5 + gain))
    return curves


def test_nothing_is_stopped_while_little_is_known():
    """A few curves say nothing of what a training can still gain."""
    curves = curves_that_gain(*[0.1] * (FEWEST_CURVES - 1))

    assert curves.floors(0.9, 4) == (-math.inf,) * 3


def test_a_floor_is_what_is_needed_less_what_may_still_come():
    """Optimistic: the gain of the best tenth."""
    curves = curves_that_gain(*[0.1] * 9, 0.3)
    (floor,) = curves.floors(0.9, 2)

    assert floor == pytest.approx(0.9 - 0.12)  # the 90th percentile of ten gains lies a tenth of the way from 0.1 to 0.3


def test_a_rung_of_another_ladder_is_read_between_the_rungs():
    """Half of four epochs is half of two."""
    curves = curves_that_gain(*[0.2] * FEWEST_CURVES)
    floors = curves.floors(0.9, 4)

    assert floors[1] == pytest.approx(0.7)
    assert floors[0] <= floors[1] <= floors[2] < 0.9


def test_trainings_of_one_epoch_teach_nothing():
    """They have no rung before their end."""
    curves = LearningCurves()
    for _ in range(20):
        curves.learn((0.5,))

    assert curves.optimistic_gain(0.5) == math.inf


def stopped(recipe):
    """The event of a training that was stopped."""
    return RecipeFailed(recipe, "stopped", "simulated")


def stopped_prefixes(machine):
    """Prefixes of the trials that were stopped early, in their order."""
    return [failure.recipe.prefix for failure in machine.searcher.store.failures if failure.outcome == "stopped"]


def test_a_training_that_cannot_reach_the_front_ends_at_a_rung_and_is_told_once(start, monkeypatch):
    """It stays visible, with its reason, and what its lowerings would have cost is saved."""
    monkeypatch.setattr("autocut.search.early_stopping._IN_VAIN", 1000)
    machine = start(budget_s=3600.0, tactics=UNWEIGHED)
    machine.run()
    stopped = stopped_prefixes(machine)
    measured = {recipe.prefix for what, recipe in machine.log if what == "measure"}

    assert stopped
    assert len(stopped) == len(set(stopped))
    assert not measured & set(stopped)
    assert machine.searcher.progress.stopped == len(stopped)


def test_trainings_that_were_stopped_go_on_when_nothing_else_is_left(start, monkeypatch):
    """One after the other in vain: from then on each may go to its end, from the epoch where it was stopped."""
    monkeypatch.setattr("autocut.search.early_stopping._IN_VAIN", 1)
    machine = start(budget_s=3600.0, tactics=UNWEIGHED)
    machine.run()
    stopped = stopped_prefixes(machine)
    last = max(at for at, job in enumerate(machine.jobs) if job.floors)
    reached = machine.searcher.state.finished.keys() & {recipe for job in machine.jobs[last + 1 :] for recipe in job.recipes}

    assert stopped
    assert machine.searcher.state.is_relaxed
    assert not machine.searcher.state.given_up
    assert reached


def test_what_another_worker_stops_after_that_may_go_on_too(start):
    """Its job began with the old floors; the prefix is stopped once more at most, and not given up."""
    state = start(workers=2).searcher.state
    recipe = Recipe({"prune.method": "structured", "prune.ratio": 0.5, "train.epochs": 8, "train.lr_scale": 0.5})
    state.relax()

    state.fail(stopped(recipe))
    assert recipe.prefix in state.stopped
    assert not state.is_settled(recipe)
    state.fail(stopped(recipe))
    assert state.stopped_in_a_row == 1


def test_only_trainings_end_a_row_of_stopped_ones(start, monkeypatch):
    """A pruned model that was not trained says nothing of what trainings reach."""
    monkeypatch.setattr("autocut.search.early_stopping._IN_VAIN", 2)
    state = start().searcher.state
    values = {"accuracy": 0.9, "usd_per_million": 0.5, "size_bytes": 1e6, "speedup": 1.0}
    recipes = [Recipe({"train.epochs": 8, "train.lr_scale": scale}) for scale in (0.2, 0.3, 0.4)]
    state.fail(stopped(recipes[0]))
    state.finish(Recipe({"prune.method": "structured", "prune.ratio": 0.5}), values)
    state.fail(stopped(recipes[1]))
    assert are_in_vain(state)

    state.finish(recipes[2], values, curve=(0.1, 0.2))
    assert not are_in_vain(state)


def test_a_training_that_goes_on_pays_only_for_its_rest(start):
    """Epochs before the stop are in its checkpoint."""
    machine = start()
    recipe = Recipe({"prune.method": "structured", "prune.ratio": 0.5, "train.epochs": 8, "train.lr_scale": 0.5})
    stage = machine.world.prefix(recipe)
    strict = Job(1, "measure", (recipe,), math.inf, "", floors={recipe.prefix: (math.inf,) * 7})
    assert sum(step.seconds for step in machine._making(strict, recipe, stage)) == 2.0

    lenient = Job(2, "measure", (recipe,), math.inf, "")
    assert sum(step.seconds for step in machine._making(lenient, recipe, stage)) == 7 * 2.0


def test_what_an_earlier_session_stopped_may_go_on_in_this_one(start):
    """With more budget there may be nothing better to do."""
    machine = start()
    recipe = Recipe({"prune.method": "structured", "prune.ratio": 0.5, "train.epochs": 8, "train.lr_scale": 0.5})
    state = machine.searcher.state
    recall_trial(EarlierTrial(recipe, None, is_stopped=True), state, Proposer(state.settings.space, "random", 0))

    assert state.is_settled(recipe)
    state.relax()
    assert not state.is_settled(recipe)


def test_without_the_tactic_no_training_is_stopped(start):
    """The switch of the ablation."""
    machine = start(budget_s=600.0, tactics=Tactics(early_stopping=False, gain_per_second=False))
    machine.run()

    assert not [failure for failure in machine.searcher.store.failures if failure.outcome == "stopped"]


def test_what_the_user_asked_for_is_trained_to_its_end(start):
    """However bad it looks: `--try` is an order."""
    wanted = Recipe({"prune.method": "structured", "prune.ratio": 0.95, "train.epochs": 8, "train.lr_scale": 0.7})
    machine = start(tries=(wanted,))
    machine.run()
    job = next(job for job in machine.jobs if wanted in job.recipes)

    assert job.floors == {}
