"""Scoring ends early only for models that are surely far off."""

import numpy as np
import pytest

from autocut.measure.accuracy import Scores, paired_interval
from autocut.measure.early_verdict import is_far_below, looks, paired
from autocut.task.kinds import kinds

CLASSIFICATION, REGRESSION = kinds["classification"](), kinds["regression"]()


def binary(rate, n, seed):
    """Scores of a model that is right with probability `rate`."""
    return Scores((np.random.default_rng(seed).random(n) < rate).astype(float), np.zeros(n, dtype=int))


def test_the_looks_double():
    """Few looks share the error, and none comes after the last example."""
    assert looks(32) == []
    assert looks(100) == [32, 64]
    assert looks(256) == [32, 64, 128]


def test_a_model_that_lost_everything_is_given_up_at_the_first_look():
    """Half of the examples are lost: 32 show it."""
    untouched = binary(0.95, 256, 0)
    assert is_far_below(binary(0.4, 32, 1), untouched, CLASSIFICATION, 0.05, number_of_looks=3)
    assert not is_far_below(paired(untouched, binary(0.4, 32, 1)), untouched, CLASSIFICATION, 0.05, number_of_looks=3)


def test_a_model_within_the_allowed_drop_is_hardly_ever_given_up():
    """At most in 2.5% of scorings, all looks together. Here the drop is just the one that is allowed."""
    given_up = 0
    for seed in range(200):
        untouched = binary(0.9, 256, seed)
        broken = np.random.default_rng(1000 + seed).random(256) < 0.05 / 0.9
        candidate = Scores(np.where(broken, 0.0, untouched.scores), untouched.targets)
        given_up += any(
            is_far_below(paired(candidate, Scores(np.zeros(n), np.zeros(n))), untouched, CLASSIFICATION, 0.05, 3)
            for n in looks(256)
        )
    assert given_up <= 10


def test_the_looks_share_the_error():
    """With more looks, each one needs a clearer difference."""
    assert paired_interval(0, 8, 64, z=2.6).high > paired_interval(0, 8, 64).high
    untouched = Scores(np.ones(64), np.zeros(64, dtype=int))
    candidate = Scores(np.r_[np.zeros(9), np.ones(55)], np.zeros(64, dtype=int))
    verdicts = [is_far_below(candidate, untouched, CLASSIFICATION, 0.05, number_of_looks=n) for n in (1, 1000)]
    assert verdicts == [True, False]


def test_easy_examples_do_not_let_a_model_that_is_far_off_count():
    """Its accuracy is that of the examples scored: 0.89 of the first 64, where the untouched model has 0.9 of all."""
    untouched = Scores(np.r_[np.ones(64), np.tile([1.0, 1.0, 1.0, 0.0], 16)], np.zeros(128, dtype=int))
    candidate = Scores(np.r_[np.zeros(9), np.ones(55)], np.zeros(64, dtype=int))
    assert not is_far_below(candidate, untouched, CLASSIFICATION, 0.05, number_of_looks=1)


@pytest.mark.parametrize(("noise", "is_far"), [(2.0, True), (0.1, False)])
def test_another_metric_is_compared_by_the_bootstrap(noise, is_far):
    """R2 of a regression: noise of twice the targets' spread makes it negative."""
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(64, 1))
    squares = [(rng.normal(size=64) * spread) ** 2 for spread in (0.1, noise)]
    untouched, candidate = (Scores(-scores, targets) for scores in squares)
    assert is_far_below(candidate, untouched, REGRESSION, 0.05, number_of_looks=2) is is_far


def test_longer_texts_at_the_end_do_not_keep_two_models_apart():
    """Targets are padded to the longest text of those that were scored."""
    untouched = Scores(np.arange(4.0), np.array([[1, 2, -100], [3, -100, -100], [4, 5, 6], [7, 8, 9]]))
    candidate = Scores(np.zeros(2), np.array([[1, 2], [3, -100]]))
    assert np.array_equal(paired(untouched, candidate).targets, candidate.targets)
    assert np.array_equal(paired(untouched, candidate).scores, [0.0, 1.0])
