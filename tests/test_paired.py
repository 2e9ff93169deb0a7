"""Paired tests against scipy, Holm against closed testing by brute force, and how often chance alone is called a win."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from autocut.paired import Scored, compare_pair, holm, pairs_of
from autocut.task.kinds import mean_score
from autocut.task.kinds.perplexity import negative_perplexity
from autocut.task.kinds.regression import r2
from autocut.task.kinds.rmse import negative_rmse
from autocut.task.kinds.segmentation import mean_iou

N = 400


def scored(scores, metric=mean_score, targets=None):
    """Scores with the metric that a task's own summary gives of them."""
    targets = np.arange(len(scores), dtype=float) if targets is None else targets
    return Scored(scores, targets, metric(scores, targets))


def answers(rng, share, n=N):
    """Right and wrong answers."""
    return (rng.uniform(size=n) < share).astype(float)


def test_right_and_wrong_answers_get_mcnemars_exact_test():
    """Oracle: the binomial test of the examples on which the two disagree."""
    rng = np.random.default_rng(0)
    one, other = answers(rng, 0.9), answers(rng, 0.8)
    gained, lost = int(np.sum(one > other)), int(np.sum(one < other))

    assert compare_pair(scored(one), scored(other)) == pytest.approx(stats.binomtest(gained, gained + lost).pvalue)


@pytest.mark.parametrize("metric", [mean_score, negative_rmse, r2])
def test_a_metric_that_rises_with_the_mean_gets_the_paired_t_test(metric):
    """RMSE and R2 are better exactly where the mean squared error is: its test is theirs."""
    rng = np.random.default_rng(1)
    errors = rng.gamma(2.0, size=N)
    one, other = -errors, -(errors * rng.uniform(0.7, 1.2, N))

    assert compare_pair(scored(one, metric), scored(other, metric)) == pytest.approx(stats.ttest_rel(one, other).pvalue)


@pytest.mark.parametrize("metric", [negative_perplexity, mean_iou])
def test_a_metric_of_sums_is_bootstrapped_in_pairs(metric):
    """A model that is a little worse on every example is told apart, though the examples differ by much more."""
    rng = np.random.default_rng(2)
    tokens = rng.integers(1, 50, N).astype(float)
    first = -tokens * rng.uniform(1, 4, N) if metric is negative_perplexity else tokens * rng.uniform(0, 1, N)
    better, same = np.stack([first, tokens], 1), np.stack([first + rng.normal(0, 0.1, N), tokens], 1)
    worse = np.stack([first - 0.05 * tokens, tokens], 1)

    assert compare_pair(scored(better, metric), scored(worse, metric)) < 1e-6
    assert compare_pair(scored(better, metric), scored(same, metric)) > 0.05


def test_an_unknown_metric_and_other_examples_have_no_p_value():
    """The user's own summary cannot be computed here, and other examples are not pairs."""
    rng = np.random.default_rng(3)
    one, other = answers(rng, 0.9), answers(rng, 0.8)

    assert compare_pair(Scored(one, np.arange(N), 0.123), scored(other)) is None
    assert compare_pair(scored(one), scored(other, targets=np.arange(N) + 1.0)) is None


def test_a_scoring_that_ended_early_is_compared_on_the_examples_of_both():
    """It has the first examples; its targets may be padded to fewer columns."""
    rng = np.random.default_rng(4)
    whole, part = answers(rng, 0.9), answers(rng, 0.5, 100)
    targets = np.ones((N, 7))

    found = compare_pair(scored(whole, targets=targets), scored(part, targets=targets[:100, :5]))

    assert found == compare_pair(scored(whole[:100]), scored(part))
    assert found < 0.001


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
@settings(deadline=None)
def test_holm_is_closed_testing_with_bonferroni(p_values):
    """Oracle: a difference holds if every set of hypotheses that contains it is rejected by Bonferroni."""
    named = dict(enumerate(p_values))
    sets = [chosen for size in range(1, len(named) + 1) for chosen in itertools.combinations(named, size)]
    expected = {
        name: max(min(1.0, len(chosen) * min(named[one] for one in chosen)) for chosen in sets if name in chosen) for name in named
    }

    assert holm(named) == pytest.approx(expected)
    assert holm(named, others=2) == pytest.approx({name: holm({**named, -1: 1.0, -2: 1.0})[name] for name in named})


def test_among_equal_models_hardly_ever_two_are_told_apart():
    """12 models, 66 pairs, 200 repeats: without Holm, two would be told apart in most of them. McNemar's exact test is cautious."""
    rng = np.random.default_rng(5)
    alarms = raw = 0
    for _ in range(200):
        models = [scored(answers(rng, 0.9, 300)) for _ in range(12)]
        found = {pair: compare_pair(models[pair[0]], models[pair[1]]) for pair in pairs_of(range(12))}
        raw += min(found.values()) <= 0.05
        alarms += min(holm(found).values()) <= 0.05

    assert raw > 60
    assert alarms <= 10
