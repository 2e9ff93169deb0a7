"""Which offer is run: expected hypervolume gain per second."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocut.recipe import Recipe
from autocut.search.accuracy_surrogate import FEWEST, AccuracySurrogate
from autocut.search.acquisition import Acquisition, Choice, Growth
from autocut.search.volume import Volume

OBJECTIVES = {"accuracy": "maximize", "usd_per_million": "minimize"}
UNTOUCHED = {"accuracy": 0.9, "usd_per_million": 1.0}


def pruned(ratio, epochs=4):
    """A pruned and trained recipe."""
    return Recipe({"prune.method": "structured", "prune.ratio": ratio, "train.epochs": epochs, "train.lr_scale": 1.0})


@pytest.fixture
def surrogate(space):
    """A surrogate that has seen accuracy fall with the ratio."""
    fitted = AccuracySurrogate(space, lambda recipe: recipe.lowering[0], seed=0)
    for ratio in np.linspace(0.1, 0.95, 18):
        fitted.learn(pruned(round(float(ratio), 2)), 0.9 - 0.3 * ratio**2)
    return fitted


def test_guesses_follow_what_was_measured(surrogate):
    """A gentle cut keeps more than a harsh one."""
    gentle, harsh = surrogate.guesses([pruned(0.2), pruned(0.9)]).mean(axis=0)

    assert gentle > harsh


def test_a_surrogate_that_knows_too_little_takes_the_first_offer(space):
    """Nothing is known: the sampler's order stands."""
    surrogate = AccuracySurrogate(space, lambda recipe: recipe.lowering[0], seed=0)
    surrogate.learn(pruned(0.5), 0.9)
    acquisition = Acquisition(surrogate, lambda _: {"usd_per_million": 0.1})
    assert not surrogate.is_ready()
    choice = acquisition.best(
        [[pruned(0.2)], [pruned(0.4)]], [[1.0], [1.0]], [0.0, 0.0], Growth([UNTOUCHED], Volume(OBJECTIVES, UNTOUCHED))
    )

    assert choice == Choice(0, (pruned(0.2),), math.inf)


@pytest.mark.parametrize(("seconds", "chosen"), [((10.0, 10.0), 1), ((1.0, 100.0), 0)])
def test_gain_counts_by_the_second(surrogate, seconds, chosen):
    """The better offer wins, unless the other one costs so much less time."""
    costs = {pruned(0.2): {"usd_per_million": 0.8}, pruned(0.4): {"usd_per_million": 0.4}}
    acquisition = Acquisition(surrogate, costs.__getitem__)
    offers = [[recipe] for recipe in costs]
    choice = acquisition.best(offers, [[1.0], [1.0]], seconds, Growth([UNTOUCHED], Volume(OBJECTIVES, UNTOUCHED)))

    assert choice.offer == chosen


def test_a_lowering_that_is_not_worth_its_seconds_is_left_for_later(surrogate):
    """Half a minute of compiler for what another mode gives as well."""
    cheap, dear = pruned(0.5).with_lowering("fp32", "onnxruntime"), pruned(0.5).with_lowering("fp32", "aot_inductor")
    acquisition = Acquisition(surrogate, lambda recipe: {"usd_per_million": 0.4 if recipe == cheap else 0.39})
    choice = acquisition.best([[dear, cheap]], [[30.0, 2.0]], [10.0], Growth([UNTOUCHED], Volume(OBJECTIVES, UNTOUCHED)))

    assert choice.recipes == (cheap,)


def test_recipes_of_one_graph_are_one_measurement(space):
    """A mode that runs the same graph has the same accuracy: it tells nothing new."""
    surrogate = AccuracySurrogate(space, lambda recipe: recipe.lowering[0], seed=0)
    for mode in ("eager", "onnxruntime", "aot_inductor") * FEWEST:
        surrogate.learn(pruned(0.5).with_lowering("fp32", mode), 0.9)

    assert not surrogate.is_ready()


def test_a_graph_that_is_new_late_in_a_search_is_learned_at_once(space):
    """It has a feature of its own: what was fitted without it cannot be asked about it."""
    surrogate = AccuracySurrogate(space, lambda recipe: recipe.lowering[0], seed=0)
    for step in range(200):
        surrogate.learn(pruned(round(0.1 + 0.004 * step, 3)), 0.9)
    surrogate.guesses([pruned(0.5)])
    surrogate.learn(pruned(0.5).with_lowering("int8_static", "onnxruntime"), 0.7)

    assert surrogate.guesses([pruned(0.51), pruned(0.51).with_lowering("int8_static", "onnxruntime")]).shape[1] == 2


def test_a_setting_that_helped_at_some_ratios_is_expected_to_help_at_another(space):
    """Settings add up: a few trainings with and without say what one brings where it was never tried."""
    surrogate = AccuracySurrogate(space, lambda recipe: recipe.lowering[0], seed=0)

    def trained(ratio, loss):
        return Recipe({"prune.method": "structured", "prune.ratio": ratio, "train.epochs": 2, "distill.loss": loss})

    for ratio in (0.1, 0.2, 0.3, 0.4):
        surrogate.learn(trained(ratio, "none"), 0.95 - 0.1 * ratio)
        surrogate.learn(trained(ratio, "kl"), 0.95 - 0.1 * ratio + 0.02)
    plain, taught = surrogate.guesses([trained(0.6, "none"), trained(0.6, "kl")]).mean(axis=0)

    assert taught - plain == pytest.approx(0.02, abs=0.01)
    assert plain == pytest.approx(0.89, abs=0.02)


def test_of_many_variations_only_those_that_promise_something_are_judged(surrogate):
    """The most hypervolume per second first; what lies behind the front is left out."""
    costs = {pruned(0.2): {"usd_per_million": 0.8}, pruned(0.3): {"usd_per_million": 0.4}, pruned(0.4): {"usd_per_million": 3.0}}
    acquisition = Acquisition(surrogate, costs.__getitem__)
    growth = Growth([UNTOUCHED], Volume(OBJECTIVES, UNTOUCHED))

    assert acquisition.most_promising(list(costs), [10.0, 10.0, 1.0], 8, growth) == [1, 0]
    assert acquisition.most_promising(list(costs), [10.0, 10.0, 1.0], 1, growth) == [1]


@pytest.mark.parametrize(("noise", "chosen"), [(0.0, 0), (0.02, 1)])
def test_what_cannot_be_told_from_luck_is_no_gain(space, noise, chosen):
    """A point a little more accurate than one of the front, in a second, against one that is cheaper than all, in ten."""
    surrogate = AccuracySurrogate(space, lambda recipe: recipe.lowering[0], seed=0)
    for at in range(FEWEST):
        surrogate.learn(pruned(0.5, epochs=1 + at), 0.89)
    costs = {pruned(0.2): {"usd_per_million": 0.2}, pruned(0.8): {"usd_per_million": 0.17}}
    known = {"accuracy": 0.885, "usd_per_million": 0.2}
    growth = Growth([UNTOUCHED, known], Volume(OBJECTIVES, UNTOUCHED), noise)
    choice = Acquisition(surrogate, costs.__getitem__).best([[recipe] for recipe in costs], [[1.0], [10.0]], [0.0, 0.0], growth)

    assert choice.offer == chosen


@given(
    losses=st.lists(st.tuples(*[st.floats(-3, 1)] * 3), min_size=1, max_size=6),
    front=st.lists(st.tuples(*[st.floats(-3, 1)] * 3), max_size=6),
)
def test_what_a_guess_adds_at_most_is_never_less_than_what_it_adds(losses, front):
    """Offers are left out by the bound alone; where it is 0, nothing is added."""
    objectives = {"a": "minimize", "b": "minimize", "c": "minimize"}
    volume = Volume(objectives, dict.fromkeys(objectives, 1.0))
    growth = Growth([{name: math.exp(loss) for name, loss in zip(objectives, point, strict=True)} for point in front], volume)
    points = np.array(losses)[np.newaxis]
    for at, most in enumerate(growth.at_most(points)[0]):
        added = growth.mean(points[:, [at]], np.array([[all(loss < 0 for loss in losses[at])]]))
        assert -1e-9 < added <= most + 1e-9
