"""`--max-accuracy-drop`: trials and finalizations go where a user would look."""

from dataclasses import replace

import numpy as np
import pytest

from autocut.front import Final
from autocut.measurement import Interval
from autocut.recipe import UNTOUCHED, Recipe
from autocut.score import parse_limit
from autocut.search.finalists import drop_line
from autocut.search.jobs import JobKind, Purpose, RecipeFinalized
from autocut.search.proposals import Proposer
from autocut.search.recall import EarlierTrial, recall_final, recall_trial

INT8 = ("int8_static", "onnxruntime")
VALUES = {"accuracy": 0.9, "usd_per_million": 0.5, "size_bytes": 1e6, "speedup": 2.0}


@pytest.fixture
def strict(start):
    """A search in which a point may lose five points of 0.98."""
    return lambda **settings: start(max_drop=0.05, **settings)


def test_what_loses_more_is_measured_but_is_no_point_of_the_front(strict):
    """It stays a trial with its numbers, as what breaks any other limit."""
    machine = strict()
    machine.run()
    store = machine.searcher.store
    measured = {point.values["accuracy"] for point in store.points.values()}

    assert min(measured) < 0.93
    assert all(point.values["accuracy"] >= 0.93 for point in store.front())
    assert all(values["accuracy"] >= 0.93 for values in machine.searcher.state.front.values.values())


def test_what_loses_more_is_not_finalized(strict):
    """Every finalization is a look at the locked test split."""
    machine = strict()
    machine.run()

    assert machine.searcher.store.finals
    assert all(values["accuracy"] >= 0.93 for values in machine.searcher.store.finals.values())


def test_what_is_expected_to_lose_more_is_not_offered(strict, monkeypatch):
    """Not even by the most hopeful guess of its accuracy."""
    proposing = strict().searcher.proposing
    proposing._state.set_baseline(Interval(0.98, 0.98, 0.98))
    monkeypatch.setattr(proposing._surrogate, "is_ready", lambda: True)
    guesses = {"poor": [[0.90], [0.92]], "hopeful": [[0.90], [0.94]]}
    for name, expected in (("poor", True), ("hopeful", False)):
        monkeypatch.setattr(proposing._surrogate, "guesses", lambda _, name=name: np.array(guesses[name]))
        assert proposing._is_useless(Recipe()) is expected


def test_a_search_without_the_limit_offers_everything(start):
    """A study of an older version goes on as it began."""
    machine = start()
    machine.run(most_jobs=3)

    assert machine.searcher.state.allowed_drop is None
    assert not machine.searcher.proposing._is_useless(Recipe({"prune.method": "structured", "prune.ratio": 0.9}))


def _finalized(machine, on_test, difference):
    """Finalize the untouched weights in int8 with these numbers of the test split; return what is told."""
    machine.run(most_jobs=3)
    recipe, agent = UNTOUCHED.with_lowering(*INT8), machine.searcher
    found = machine.world.measured(recipe).measurement
    gap = Interval(difference, difference - 0.01, difference + 0.01)
    accuracy = replace(found.accuracy, split="test", metric=Interval(on_test, on_test, on_test), difference=gap)
    event = RecipeFinalized(recipe, replace(found, accuracy=accuracy), "bundle", "0" * 64, None)
    job = replace(machine.jobs[-1], kind=JobKind.FINALIZE)
    agent.state.start(job, Purpose.FINALIZATION, machine.clock.now)
    agent.on_event(job, event)
    return agent.progress.lines[-1]


def test_on_a_harder_test_split_the_loss_counts_not_the_metric(strict):
    """The untouched model has 0.90 there and 0.98 on validation: a point with 0.89 has lost one point."""
    machine = strict()

    assert "verified" in _finalized(machine, 0.89, -0.01)
    assert UNTOUCHED.with_lowering(*INT8) in machine.searcher.state.verified


def test_a_loss_on_the_test_split_above_the_limit_is_told_and_chooses_nothing(strict):
    """The bundle stands, and neither the front nor the next recipe depends on the test split."""
    machine = strict()
    told = _finalized(machine, 0.84, -0.06)

    assert ": verified, on the locked test split: accuracy 0.8400" in told
    assert told.endswith("; accuracy>=0.85 does not hold there")
    assert UNTOUCHED.with_lowering(*INT8) not in machine.searcher.state.refused
    assert UNTOUCHED.with_lowering(*INT8) in machine.searcher.state.verified


def test_a_limit_on_costs_that_the_final_measurement_breaks_refuses_the_bundle(strict):
    """No split has a say in that. Nor does it steer the search: its timing was within the limit there."""
    machine = strict(limits=(parse_limit("size_bytes<=200000"),))

    assert "refused: size_bytes<=200000 does not hold in the final measurement" in _finalized(machine, 0.89, -0.01)
    assert UNTOUCHED.with_lowering(*INT8) not in machine.searcher.state.refused | machine.searcher.state.verified


def test_a_resumed_search_knows_what_was_refused_for_the_limit(strict):
    """Its bundle is gone, but it beats others on validation as before."""
    machine, recipe = strict(), UNTOUCHED.with_lowering(*INT8)
    state, found = machine.searcher.state, machine.world.measured(recipe).measurement
    state.set_baseline(Interval(0.98, 0.98, 0.98))
    gap, on_test = Interval(-0.06, -0.07, -0.05), Interval(0.84, 0.84, 0.84)
    tested = replace(found, accuracy=replace(found.accuracy, split="test", metric=on_test, difference=gap))
    refused = Final(3, {**VALUES, "accuracy": 0.84}, tested, None, None, verified=False, refusal="accuracy>=0.85 does not hold")
    recall_trial(EarlierTrial(recipe, {**VALUES, "accuracy": 0.95}), state, Proposer(state.settings.space, "random", 0))
    recall_final(recipe, refused, state)

    assert recipe in state.finalized
    assert recipe not in state.refused | state.verified

    recall_final(recipe, replace(refused, refusal="predictions differ"), state)
    assert recipe in state.refused, "that its accuracy is low on the test split too is no reason to keep it"


def test_a_training_must_reach_what_counts(strict):
    """A rung from which it cannot ends it, whatever it costs."""
    from autocut.search.early_stopping import floors

    state = strict().searcher.state
    state.set_baseline(Interval(0.98, 0.98, 0.98))
    for _ in range(8):
        state.curves.learn([0.5, 0.6])
    trained = Recipe({"prune.method": "structured", "prune.ratio": 0.5, "train.epochs": 2, "train.lr_scale": 1.0})
    state.costs.learn(trained, VALUES)

    assert floors(state, [trained])[trained.prefix] == (pytest.approx(0.83),)


def test_a_loss_of_one_point_is_told_in_the_singular(start):
    """A plan does not say "1 points"."""
    (line,) = [line for line in start(max_drop=0.01).searcher.plan_lines() if "loses at most" in line]

    assert "loses at most 1 point, or 1% of a metric" in line


def test_the_plan_tells_which_points_count(strict, start):
    """Before the untouched model is measured as a loss, then as a metric."""
    machine = strict()
    before = machine.searcher.plan_lines()[-1]
    machine.run(most_jobs=1)

    loss = "5 points, or 5% of a metric that is not between 0 and 1"
    assert before == f"accuracy: a point counts if it loses at most {loss} (--max-accuracy-drop 5%)"
    assert "a point counts from 0.93 on" in drop_line(machine.searcher.state)
    assert "as this study was begun" in start().searcher.plan_lines()[-1]


@pytest.mark.parametrize(
    ("drop", "half", "noise"), [(0.05, 0.0098, 0.005), (0.05, 0.3, 0.01), (None, 0.3, 0.018), (0.0, 0.3, 0.00018)]
)
def test_the_noise_of_few_examples_does_not_swallow_every_gain(start, drop, half, noise):
    """A standard error counts up to a fifth of what counts as 1: of the drop that is allowed, else of a tenth of the metric."""
    state = start(max_drop=drop).searcher.state
    state.set_baseline(Interval(0.9, 0.9 - half, 0.9 + half))

    assert state.metric_noise == pytest.approx(noise)
