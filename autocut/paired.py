"""Whether models are told apart by their scores on the same examples. Arithmetic only, no torch.

Two models answer the same examples, and only examples on which they differ say anything about which one is better. So a paired test
finds much smaller differences than two intervals that must not overlap.

The metric decides the test. It is recognized by its value, which was recorded beside the scores (`Scored.metric`):

- a mean of 0/1 scores: McNemar's exact test;
- a mean of other scores, or a function of the mean that rises with it (RMSE, R2): a paired t-test of the scores;
- perplexity and mean IoU, which are made of sums over all examples: a paired bootstrap.

Any other metric is the user's own function, which this module does not know: such pairs have no p-value.

References:
    McNemar 1947; Holm 1979, "A simple sequentially rejective multiple test procedure".
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import special

Numbers = NDArray[Any]
Name = TypeVar("Name", bound=Hashable)

_RESAMPLES = 400
"""They estimate a standard error only, so a few hundred are enough (Efron and Tibshirani 1993, chapter 6)."""
_RESAMPLED_NUMBERS = 4_000_000
_SAME_METRIC = 1e-6


@dataclass(frozen=True, eq=False)
class Scored:
    """One model's scores, shape (n,) or (n, k), the targets of the same examples, shape (n, ...), and the metric of all of them."""

    scores: Numbers
    targets: Numbers
    metric: float

    @cached_property
    def test(self) -> str | None:
        """Name of the test that fits the metric: "mcnemar", "t", or a metric made of sums. None if the metric is unknown."""
        if self.scores.ndim == 1:
            mean = float(np.mean(self.scores))
            if self._is(mean):
                return "mcnemar" if bool(np.isin(self.scores, (0, 1)).all()) else "t"
            return "t" if self._is(-math.sqrt(max(-mean, 0.0))) or self._is(_r2(mean, self.targets)) else None
        found = (name for name, metric in _OF_SUMS.items() if self._is(float(metric(self.scores.sum(axis=0)[None])[0])))
        return next(found, None) if self.scores.ndim == 2 and self.scores.shape[1] % 2 == 0 else None

    def _is(self, metric: float) -> bool:
        return math.isclose(metric, self.metric, rel_tol=_SAME_METRIC, abs_tol=_SAME_METRIC)


def compare_pair(one: Scored, other: Scored) -> float | None:
    """Return the two-sided p-value of "neither model is better"; None where the pair cannot be tested.

    Scoring may have ended early: then the first examples, which both models have answered, are compared.
    """
    n = min(len(one.scores), len(other.scores))
    if n < 2 or one.test is None or other.test is None or not _have_same_examples(one, other, n):
        return None
    first, second = one.scores[:n], other.scores[:n]
    if first.shape != second.shape:
        return None
    if np.array_equal(first, second):
        return 1.0
    if {one.test, other.test} == {"mcnemar"}:
        gained, lost = int(np.count_nonzero(first > second)), int(np.count_nonzero(first < second))
        return min(1.0, 2 * float(special.bdtr(min(gained, lost), gained + lost, 0.5)))
    if {one.test, other.test} <= {"mcnemar", "t"}:
        return _t_test(first - second)
    return _bootstrap(first, second, _OF_SUMS[one.test]) if one.test == other.test else None


def holm(p_values: Mapping[Name, float], others: int = 0) -> dict[Name, float]:
    """Return p-values that take the number of comparisons into account, by Holm's method.

    Of all comparisons in which there is no difference, one is called different with a probability of at most the level. `others` is
    the number of further comparisons that were possible, and from which these were chosen because they looked best.
    """
    adjusted: dict[Name, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) + others - rank) * p_values[name]))
        adjusted[name] = largest
    return adjusted


def pairs_of(names: Sequence[Name]) -> list[tuple[Name, Name]]:
    """Return every pair, in the order of `names`."""
    return list(itertools.combinations(names, 2))


def _have_same_examples(one: Scored, other: Scored, n: int) -> bool:
    """Texts are padded to the longest of a scoring, so targets are compared on the shape that both have."""
    if one.targets.ndim != other.targets.ndim:
        return False
    shape = (n, *(min(sizes) for sizes in zip(one.targets.shape[1:], other.targets.shape[1:], strict=True)))
    common = tuple(slice(0, size) for size in shape)
    is_inexact = bool(np.issubdtype(one.targets.dtype, np.inexact))
    return np.array_equal(one.targets[common], other.targets[common], equal_nan=is_inexact)


def _t_test(differences: Numbers) -> float:
    error = float(np.std(differences, ddof=1)) / math.sqrt(len(differences))
    if error == 0.0:
        return 0.0 if differences[0] else 1.0
    return float(2 * special.stdtr(len(differences) - 1, -abs(float(np.mean(differences))) / error))


def _bootstrap(first: Numbers, second: Numbers, metric: Callable[[Numbers], Numbers]) -> float:
    """Compare the difference of a metric of sums with its standard error over resamples of the examples."""
    n, rng = len(first), np.random.default_rng(0)
    rows = max(1, _RESAMPLED_NUMBERS // n)
    resampled = []
    for start in range(0, _RESAMPLES, rows):
        counts = rng.multinomial(n, np.full(n, 1 / n), size=min(rows, _RESAMPLES - start)).astype(np.float64)
        resampled.append(metric(counts @ first) - metric(counts @ second))
    differences = np.concatenate(resampled)
    spread = float(np.std(differences[np.isfinite(differences)], ddof=1))
    found = float((metric(first.sum(axis=0)[None]) - metric(second.sum(axis=0)[None]))[0])
    if spread == 0.0:
        return 0.0 if found else 1.0
    return float(2 * special.ndtr(-abs(found) / spread))


def _r2(mean: float, targets: Numbers) -> float:
    """R2 from the mean of minus the squared errors; NaN where it does not belong to these targets."""
    if not np.issubdtype(targets.dtype, np.floating):
        return math.nan
    total = float(np.square(targets - targets.mean(axis=0)).reshape(len(targets), -1).mean(axis=1).sum())
    return 1 + mean * len(targets) / total if total > 0 else math.nan


def _negative_perplexity(sums: Numbers) -> Numbers:
    """Of summed log-probabilities and numbers of tokens, shape (..., 2)."""
    if sums.shape[-1] != 2:
        return np.full(len(sums), np.nan)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.asarray(-np.exp(-sums[:, 0] / sums[:, 1]))


def _mean_iou(sums: Numbers) -> Numbers:
    """Of summed intersections and unions, shape (..., 2 * classes); a class that does not occur does not count."""
    intersections, unions = np.split(sums, 2, axis=-1)
    occurs = unions > 0
    shares = np.divide(intersections, unions, out=np.zeros_like(sums[:, : intersections.shape[-1]], dtype=np.float64), where=occurs)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(shares.sum(axis=-1) / occurs.sum(axis=-1))


_OF_SUMS: Mapping[str, Callable[[Numbers], Numbers]] = {"perplexity": _negative_perplexity, "mean_iou": _mean_iou}
"""Metrics made of the sums of each column of the scores: sums, shape (resamples, k) -> metrics, shape (resamples,)."""
