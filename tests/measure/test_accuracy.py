"""Accuracy: intervals and significance tests against independent formulas."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from autocut.errors import DivergedError, InputError
from autocut.measure.accuracy import Scores, mcnemar_p_value, paired_interval, score_model, to_accuracy, wilson_interval
from autocut.task.kinds import kinds as registered

kinds = {kind.name: kind.function() for kind in registered}
COUNTS = st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def binary(scores):
    """Scores of a classifier. All targets are equal."""
    return Scores(np.array(scores, dtype=float), np.zeros(len(scores), dtype=int))


@given(COUNTS)
def test_wilson_solves_its_own_equation(counts):
    """Oracle: the ends are the proportions p at which (share - p)^2 = z^2 p (1 - p) / n."""
    successes, n = counts
    share, z = successes / n, 1.959963984540054
    found = wilson_interval(successes, n)
    low, high = sorted(np.roots([1 + z**2 / n, -(2 * share + z**2 / n), share**2]).real)
    assert (found.low, found.value, found.high) == pytest.approx((low, share, high), abs=1e-7)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 2000))
@settings(deadline=None)
def test_the_paired_interval_is_a_mirror_and_holds_its_value(gained, lost, same):
    """Swapping the models turns the interval around; identical answers give plus and minus z^2 / (n + z^2)."""
    n = gained + lost + same
    assume(n > 0)
    here, there = paired_interval(gained, lost, n), paired_interval(lost, gained, n)
    assert -1 <= here.low <= here.value <= here.high <= 1
    assert (here.low, here.high) == pytest.approx((-there.high, -there.low), abs=1e-9)
    if gained == lost == 0:
        z2 = 1.959963984540054**2
        assert here.high == pytest.approx(z2 / (n + z2), abs=1e-6)


def test_the_paired_interval_holds_the_truth_about_as_often_as_it_says():
    """Coverage over 2,000 draws of 300 examples: 95% is promised."""
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(300, [0.03, 0.06, 0.91], 2000)
    intervals = [paired_interval(int(gained), int(lost), 300) for gained, lost, _ in drawn]
    coverage = np.mean([interval.low <= -0.03 <= interval.high for interval in intervals])
    assert 0.93 <= coverage <= 0.97


@given(st.integers(0, 200), st.integers(0, 200))
def test_mcnemar_is_twice_the_binomial_tail(gained, lost):
    """Oracle: under "no difference" each disagreement is a fair coin."""
    discordant = gained + lost
    expected = min(1.0, 2 * binom.cdf(min(gained, lost), discordant, 0.5)) if discordant else 1.0
    assert mcnemar_p_value(gained, lost) == pytest.approx(expected)


def test_a_classifier_is_compared_on_the_same_examples():
    """8 examples gained and 2 lost of 100: the difference is 0.06, and 10 fair coins give p = 0.109."""
    baseline = [1] * 80 + [1] * 2 + [0] * 8 + [0] * 10
    candidate = [1] * 80 + [0] * 2 + [1] * 8 + [0] * 10
    found = to_accuracy("test", binary(candidate), kinds["classification"], binary(baseline))
    assert (found.split, found.examples, found.metric.value) == ("test", 100, 0.88)
    assert found.difference.value == pytest.approx(0.06)
    assert found.p_value == pytest.approx(2 * (1 + 10 + 45) / 1024)


def test_other_examples_cannot_be_paired():
    """A difference between two data sets says nothing about two models."""
    with pytest.raises(ValueError, match="same examples"):
        to_accuracy("test", binary([1, 0, 1]), kinds["classification"], binary([1, 0]))
    other = Scores(np.ones(3), np.ones(3, dtype=int))
    with pytest.raises(ValueError, match="same examples"):
        to_accuracy("test", binary([1, 0, 1]), kinds["classification"], other)


def regression(errors, targets):
    """Scores of a regressor: minus the squared errors."""
    return Scores(-np.square(errors), targets)


def test_regression_gets_a_paired_bootstrap():
    """A model whose errors are 10% larger everywhere is worse beyond doubt, although the two intervals overlap."""
    rng = np.random.default_rng(0)
    targets, errors = rng.normal(size=200), 0.3 * rng.normal(size=200)
    found = to_accuracy("validation", regression(1.1 * errors, targets), kinds["regression"], regression(errors, targets))
    expected = 1 - np.sum(np.square(1.1 * errors)) / np.sum(np.square(targets - targets.mean()))
    assert found.metric.value == pytest.approx(expected)
    assert found.metric.low < expected < found.metric.high
    assert found.difference.high < 0
    assert found.p_value < 0.01
    alone = to_accuracy("validation", regression(errors, targets), kinds["regression"])
    assert alone.metric.low <= found.metric.high
    assert found.metric.low <= alone.metric.high
    assert (alone.difference, alone.p_value) == (None, None)


def test_the_bootstrap_of_a_mean_is_as_wide_as_the_central_limit_says():
    """Oracle: 1.96 standard errors."""
    rng = np.random.default_rng(0)
    scores = rng.uniform(size=400)
    found = to_accuracy("test", Scores(scores, np.zeros(400)), kinds["language_modeling"])
    half = 1.96 * scores.std() / 20
    assert (found.metric.high - found.metric.low) / 2 == pytest.approx(half, rel=0.15)


def test_a_model_does_not_differ_from_itself():
    """No difference and p = 1."""
    targets = np.random.default_rng(0).normal(size=50)
    same = regression(targets / 2, targets)
    found = to_accuracy("test", same, kinds["regression"], same)
    assert (found.difference.low, found.difference.value, found.difference.high, found.p_value) == (0, 0, 0, 1)


def test_a_summary_that_raises_on_some_resamples_keeps_its_interval_too():
    """Some metrics raise where others give NaN, and warn before that."""

    def summarize(scores, targets):
        if not targets.any():
            warnings.warn("no positive example", stacklevel=1)
            raise ValueError("only one class")
        return float(scores[:, 0].sum() / scores[:, 1].sum())

    kind = SimpleNamespace(name="ratio", is_binary=False, summarize=summarize)
    targets = np.zeros(20, dtype=int)
    targets[0] = 1
    scores = np.stack([np.linspace(0, 1, 20), np.ones(20)], axis=1)
    found = to_accuracy("test", Scores(scores, targets), kind, Scores(scores / [2, 1], targets))

    assert found.metric.value == pytest.approx(0.5)
    assert found.metric.low < 0.5 < found.metric.high
    assert found.difference.low > 0


def test_a_summary_that_raises_on_the_whole_split_ends_the_trial():
    """It is the user's function, so it is no bug of autocut."""
    kind = SimpleNamespace(name="auc", is_binary=False, summarize=lambda scores, targets: 1 // 0)

    with pytest.raises(DivergedError, match="auc must be defined on validation, got ZeroDivisionError"):
        to_accuracy("validation", Scores(np.ones(3), np.ones(3)), kind)


def test_several_scores_per_example_are_kept_and_resampled_together():
    """A mean IoU of counts per picture: its interval holds it, and a model does not differ from itself."""
    masks = torch.randint(0, 3, (40, 4, 4), generator=torch.Generator().manual_seed(0))
    outputs = torch.randn(40, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    batches = [(outputs[at : at + 7], masks[at : at + 7]) for at in range(0, 40, 7)]
    scores = score_model(lambda x: x, batches, kinds["segmentation"])
    found = to_accuracy("test", scores, kinds["segmentation"], scores)

    assert scores.scores.shape == (40, 6)
    assert found.examples == 40
    assert found.metric.low < found.metric.value < found.metric.high
    assert (found.difference.value, found.p_value) == (0, 1)


def test_targets_that_the_metric_does_not_read_are_kept_as_hashes():
    """Masks would fill the disk; a hash of each still tells other examples from the same."""
    first = score_model(lambda x: x, [(torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4).long())], kinds["segmentation"])
    other = score_model(lambda x: x, [(torch.zeros(2, 3, 4, 4), torch.ones(2, 4, 4).long())], kinds["segmentation"])

    assert (first.targets.shape, first.targets.dtype) == ((2,), np.uint64)
    with pytest.raises(ValueError, match="same examples"):
        to_accuracy("test", first, kinds["segmentation"], other)


def test_a_metric_that_some_resamples_do_not_have_keeps_its_interval():
    """Such as one that needs both classes: the resamples without it are left out."""
    kind = SimpleNamespace(
        is_binary=False, summarize=lambda scores, targets: float(scores.mean()) if targets.any() else float("nan")
    )
    targets = np.zeros(20, dtype=int)
    targets[0] = 1
    found = to_accuracy("test", Scores(np.linspace(0, 1, 20), targets), kind)
    assert found.metric.low < 0.5 < found.metric.high


def test_a_metric_that_is_no_number_ends_the_trial():
    """NaN on a front would beat everything."""
    kind = SimpleNamespace(is_binary=False, summarize=lambda scores, targets: float("nan"))
    with pytest.raises(DivergedError, match="metric must be finite"):
        to_accuracy("test", binary([1, 0]), kind)


def test_scores_come_in_the_order_of_the_examples():
    """Batches of any size, the last one shorter."""
    inputs, targets = torch.eye(5)[[0, 1, 2, 3, 4, 0, 1]], torch.tensor([0, 1, 2, 0, 4, 0, 2])
    batches = list(zip(inputs.split(3), targets.split(3), strict=True))
    found = score_model(lambda x: x.bfloat16(), batches, kinds["classification"])
    assert found.scores.tolist() == [1, 1, 1, 0, 1, 1, 0]
    assert found.targets.tolist() == targets.tolist()


def test_targets_of_different_length_are_padded_with_the_ignored_value():
    """Text comes in batches that are padded each to its own longest."""
    batches = [
        (torch.zeros(2, 3, 5), torch.ones(2, 3, dtype=torch.long)),
        (torch.zeros(1, 4, 5), torch.ones(1, 4, dtype=torch.long)),
    ]
    found = score_model(lambda x: x, batches, kinds["language_modeling"])
    assert found.targets.tolist() == [[1, 1, 1, -100], [1, 1, 1, -100], [1, 1, 1, 1]]


def test_outputs_that_are_no_numbers_end_the_trial():
    """An argmax over NaN is class 0: such a model would get an accuracy."""
    batches = [(torch.zeros(2, 3), torch.tensor([0, 1])), (torch.full((2, 3), torch.nan), torch.tensor([0, 1]))]
    with pytest.raises(DivergedError, match="NaN within examples 2 to 3"):
        score_model(lambda x: x, batches, kinds["classification"])


def test_infinite_scores_end_the_trial():
    """A squared error that overflows is no measurement."""
    with pytest.raises(DivergedError, match="scores must be finite"):
        score_model(lambda x: x, [(torch.full((2,), 1e38), torch.zeros(2))], kinds["regression"])


def test_a_masked_logit_may_be_infinite():
    """Minus infinity says "never", and is a usual answer."""
    outputs = torch.tensor([[0.0, -torch.inf], [1.0, -torch.inf]])
    assert score_model(lambda x: x, [(outputs, torch.tensor([0, 1]))], kinds["classification"]).scores.tolist() == [1, 0]


def test_an_empty_split_is_an_error():
    """Not a division by zero later."""
    with pytest.raises(InputError, match="split must have examples"):
        score_model(lambda x: x, [], kinds["classification"])
