"""Recipes that are trained first, then pruned: one training serves every cut, and only the first one pays for it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from simulation import Stage

from autocut.recipe import UNTOUCHED, Recipe
from autocut.search.accuracy_surrogate import AccuracySurrogate
from autocut.search.deaths import blamed
from autocut.search.early_stopping import floors
from autocut.search.estimates import is_worth_training_elsewhere, recipe_s, seconds_each, training_s
from autocut.search.jobs import Job, JobKind, Purpose, RungReached, StageRan
from autocut.search.learning_curves import FEWEST_CURVES
from autocut.search.proposals import Proposer
from autocut.search.recall import EarlierTrial, recall_trial
from autocut.search.stage_trainings import StageTrainings
from autocut.search.state import RunningJob

from .conftest import MadeUp, Rung, accuracy_of

TRAINING = Recipe({"train.epochs": 2, "train.lr_scale": 1.0})
FIRST = Recipe({**TRAINING, "prune.method": "structured", "prune.ratio": 0.5})
LAST = Recipe({**FIRST, "prune.when": "after_training"})
HARSHER = Recipe({**LAST, "prune.ratio": 0.8})
SPACE = """
schema_version = 1
[objectives]
accuracy = "maximize"
usd_per_million = "minimize"
[axes."prune.method"]
choices = ["none", "structured", "l1_unstructured"]
[axes."prune.ratio"]
range = [0.1, 0.8]
step = 0.05
when."prune.method" = ["structured", "l1_unstructured"]
[axes."train.epochs"]
choices = [0, 2, 4]
[axes."train.lr_scale"]
choices = [0.3, 1.0]
when."train.epochs" = [2, 4]
[axes."prune.when"]
choices = ["before_training", "after_training"]
when."prune.method" = ["structured", "l1_unstructured"]
when."train.epochs" = [2, 4]
[axes."quantize.dtype"]
choices = ["fp32", "int8_static"]
[axes."compile.mode"]
choices = ["eager", "onnxruntime"]
"""


@dataclass
class Ordered(MadeUp):
    """A world in which a cut after the training takes a moment, and loses nothing."""

    def prefix(self, recipe):
        """The training of the whole model, then the cut; or as in every world."""
        if not recipe.prunes_last:
            return super().prefix(recipe)
        training = super().prefix(recipe.parent)
        return Stage(f"prune {recipe.prefix.fingerprint}", "prune", "structured", 0.2, "training", parents=(training,))

    def measured(self, recipe):
        """No less accurate than the whole model, where it was trained as a whole."""
        measured = super().measured(recipe)
        if not recipe.prunes_last:
            return measured
        whole = accuracy_of(recipe.parent.with_lowering(*recipe.lowering))
        return replace(measured, measurement=replace(measured.measurement, accuracy=whole))


@pytest.fixture
def ordered(start, tmp_path):
    """Make a simulation of a space with both orders."""
    (tmp_path / "ordered.toml").write_text(SPACE)

    def make(**settings):
        machine = start(space_name=str(tmp_path / "ordered.toml"), **settings)
        machine.world = Ordered()
        return machine

    return make


@pytest.mark.parametrize("workers", [1, 2])
def test_cuts_share_the_training_before_them(ordered, workers, monkeypatch):
    """Where it pays, a search makes several models of one training, and no training is made twice, at the same time neither."""
    machine, trained = ordered(budget_s=900.0, workers=workers), []
    on_event = machine.searcher.on_event

    def note(job, event):
        if isinstance(event, StageRan) and event.stage == "train":
            trained.append(event.key)
        on_event(job, event)

    monkeypatch.setattr(machine.searcher, "on_event", note)
    machine.run()
    measured = [recipe for what, recipe in machine.log if what == "measure"]
    cuts = {recipe.prefix for recipe in measured if recipe.prunes_last}

    assert len(trained) == len(set(trained))
    assert len(measured) == len(set(measured))
    assert len(cuts) >= 3 * len({cut.parent for cut in cuts}) > 0
    assert {recipe.prefix for recipe in machine.searcher.state.front.values} & cuts


def test_only_the_first_cut_of_a_training_pays_for_it(start):
    """In a job, and after it was measured. The same cut in the other order has the same price."""
    state = start().searcher.state
    state.planner.observe(StageRan("key", "train", "none/none", 10.0, False, "training", samples_seen=1000))
    train_s, lower_s = state.planner.train_s(TRAINING), state.planner.lowering_s(LAST.lowering)
    assert train_s == pytest.approx(20.0)
    assert seconds_each(state, [LAST, HARSHER, FIRST]) == pytest.approx([train_s + lower_s, lower_s, train_s + lower_s])
    assert is_worth_training_elsewhere(state, Job(1, JobKind.MEASURE, (LAST, HARSHER), 0.0, "test"), is_free=True)

    values = {"accuracy": 0.9, "usd_per_million": 0.5, "latency_ms": 1.0, "size_bytes": 1e6, "speedup": 2.0, "train_usd": 0.0}
    state.finish(LAST, values)
    known_s = state.planner.lowering_s(FIRST.lowering, cost_is_known=True)
    assert training_s(state, HARSHER) == training_s(state, TRAINING) == 0.0
    assert recipe_s(state, FIRST) == pytest.approx(train_s + known_s)
    assert not is_worth_training_elsewhere(state, Job(1, JobKind.MEASURE, (HARSHER,), 0.0, "test"), is_free=False)


def test_a_resumed_search_knows_the_training_of_a_cut(start):
    """It is done for every other cut and for the whole model, and its curve counts once."""
    state = start().searcher.state
    values = {"accuracy": 0.9, "usd_per_million": 0.5, "latency_ms": 1.0, "size_bytes": 1e6, "speedup": 2.0, "train_usd": 0.0}
    proposer = Proposer(state.settings.space, "random", 0)
    for _ in range(FEWEST_CURVES - 1):
        state.curves.learn((0.5, 0.6))
    recall_trial(EarlierTrial(LAST, values, 5.0, curve=(0.5, 0.6)), state, proposer)

    assert training_s(state, HARSHER) == training_s(state, TRAINING) == 0.0 < training_s(state, FIRST)
    assert state.curves.optimistic_gain(0.5) == pytest.approx(0.1)
    recall_trial(EarlierTrial(HARSHER, values, 5.0, curve=(0.5, 0.9)), state, proposer)
    assert state.curves.optimistic_gain(0.5) == pytest.approx(0.1)


def test_another_cut_waits_for_the_training_that_runs(start):
    """It would train the same model beside it. The whole model waits too, the other order does not."""
    state = start().searcher.state
    state.start(Job(7, JobKind.MEASURE, (LAST,), 1e9, "test"), Purpose.PROPOSAL, 10.0)

    waits = [any(map(state.is_in_training, recipe.trainings)) for recipe in (HARSHER, TRAINING, FIRST)]
    assert waits == [True, True, False]


def test_seconds_and_rungs_belong_to_the_model_that_was_trained(start):
    """Not to the cut that came after it: a cut model trains faster."""
    state = start().searcher.state
    job = Job(7, JobKind.MEASURE, (LAST,), 1e9, "test")
    state.start(job, Purpose.PROPOSAL, 10.0)
    state.apply(job, RungReached(TRAINING, Rung(1, 2, 0.8)), 11.0)
    state.apply(job, StageRan("key", "train", "none/none", 10.0, False, "training", samples_seen=1000), 12.0)

    assert state.stage_trainings.on_disk == {TRAINING}
    assert state.planner.epochs_s(2) == pytest.approx(20.0)
    assert state.curve(LAST) == state.curve(TRAINING) == (0.8,)
    assert state.curve(FIRST) == ()


def test_a_parents_stage_is_the_parents():
    """Reported of its child, made now or found again; the child's own stage has another key."""
    trainings, child = StageTrainings(), Recipe({**FIRST, "prune.ratio": 0.7, "prune.parent_ratio": 0.5})
    stages = [
        StageRan(key, "train", "none/none", 1.0, cached, "training") for key, cached in (("a", True), ("b", False), ("a", True))
    ]

    assert [trainings.trained_by(stage, child) for stage in stages] == [FIRST, child, FIRST]
    assert trainings.trained_by(StageRan("c", "prune", "structured", 1.0, False, "training"), child) == child


def test_a_training_that_is_cut_later_is_not_stopped_early(start):
    """Its accuracy before the cut is no promise, and other cuts will use it."""
    state = start().searcher.state
    for _ in range(FEWEST_CURVES):
        state.curves.learn((0.5, 0.6))

    assert floors(state, [TRAINING]) == {TRAINING: (-math.inf,)}
    assert floors(state, [LAST, HARSHER]) == floors(state, [TRAINING, LAST]) == {}


def test_a_training_that_kills_its_process_is_to_blame_for_all_of_its_cuts(start):
    """Until it is on disk: then only the cut is."""
    state = start().searcher.state
    ended = RunningJob(Job(7, JobKind.MEASURE, (LAST, HARSHER, FIRST), 1e9, "test"), Purpose.PROPOSAL, 0.0, recipe=LAST)
    assert blamed(state, ended, [LAST, HARSHER, FIRST]) == [LAST, HARSHER]

    state.stage_trainings.on_disk.add(TRAINING)
    assert blamed(state, ended, [LAST, HARSHER, FIRST]) == [LAST]


def test_a_cut_after_the_training_is_guessed_by_its_like(space):
    """It has not recovered from its cut: what others that have kept says nothing of it."""
    surrogate = AccuracySurrogate(space, lambda recipe: recipe.lowering[0], seed=0)
    ratios = [round(float(ratio), 2) for ratio in np.linspace(0.1, 0.9, 9)]
    for ratio in ratios:
        surrogate.learn(Recipe({**FIRST, "prune.ratio": ratio}), 0.9)
        surrogate.learn(Recipe({**LAST, "prune.ratio": ratio}), 0.9 - 0.8 * ratio)
    first, last = surrogate.guesses([FIRST, LAST]).mean(axis=0)

    assert first == pytest.approx(0.9, abs=0.02)
    assert last == pytest.approx(0.5, abs=0.1)


def test_the_untouched_model_has_no_training():
    """Its own is in every model, and no recipe's."""
    assert UNTOUCHED.trainings == Recipe({"prune.method": "structured", "prune.ratio": 0.5}).trainings == ()
