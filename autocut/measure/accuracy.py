"""Accuracy with its uncertainty, and the paired difference to the untouched model.

Both models score the same examples, and only examples on which they disagree count for the difference. So the paired difference
detects much smaller changes than two separate intervals would.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import binomtest

from autocut.errors import DivergedError, InputError
from autocut.measurement import Accuracy, Interval
from autocut.stages.lowering import Predict
from autocut.task.batches import Batch
from autocut.task.kinds import Kind, join_targets

Array = NDArray[Any]

_Z = 1.959963984540054
"""97.5% quantile of the normal distribution."""
_MOST_RESAMPLES = 999
_FEWEST_RESAMPLES = 199
_RESAMPLED_NUMBERS = 5_000_000
"""A bootstrap draws about this many scores in total, within the two bounds above."""


@dataclass(frozen=True, eq=False)
class Scores:
    """One model's scores, shape (n,) or (n, k), and the targets of the same examples, shape (n, ...).

    Where the metric does not read the targets (`Kind.reads_targets`), `targets` has a hash of each, shape (n,).
    """

    scores: Array
    targets: Array


def score_model(predict: Predict, loader: Iterable[Batch], kind: Kind) -> Scores:
    """Score every example of `loader`.

    The metric itself is not computed here: it may be undefined on few examples.

    Raises:
        DivergedError: an output is NaN, or a score is not finite.
        InputError: `loader` has no example.
    """
    scores: list[Array] = []
    targets: list[Array] = []
    seen = 0
    for inputs, expected in loader:
        with torch.no_grad():
            outputs = predict(inputs)
            # A masked logit may be infinite on purpose. NaN is always a fault.
            if bool(torch.isnan(outputs).any()):
                raise DivergedError(f"outputs must be numbers, got NaN within examples {seen} to {seen + len(expected) - 1}")
            batch = kind.scores(outputs, expected.to(outputs.device)).detach().double().cpu().numpy()
        if not np.isfinite(batch).all():
            raise DivergedError(
                f"scores must be finite, got {batch[~np.isfinite(batch)][0]} within examples {seen} to {seen + len(batch) - 1}"
            )
        scores.append(batch)
        wanted = expected.detach().cpu().numpy()
        targets.append(wanted if kind.reads_targets else _hashes(wanted))
        seen += len(expected)
    if not seen:
        raise InputError("a split must have examples, got none", "give the task a larger split")
    return Scores(np.concatenate(scores), join_targets(targets))


def to_accuracy(split: str, scores: Scores, kind: Kind, baseline: Scores | None = None, *, seed: int = 0) -> Accuracy:
    """Summarize `scores` as the metric with its interval, and compare them with those of `baseline` where it is given.

    A mean of 0/1 scores gets Wilson's interval. Its difference gets Tango's score interval and McNemar's exact test. Every other
    metric gets a paired bootstrap over the examples.

    Args:
        split: Name of the split, for the record.
        scores: Scores of the candidate.
        kind: How the task summarizes scores.
        baseline: Scores of the untouched model on the same examples in the same order.
        seed: Seed of the bootstrap.

    Raises:
        DivergedError: the metric is not finite, or the task's own `summarize` fails.
        ValueError: the scores of `baseline` belong to other examples.

    References:
        Wilson 1927; Tango 1998, Statistics in Medicine 17; McNemar 1947.
    """
    n = len(scores.scores)
    if baseline is not None and (
        len(baseline.scores) != n
        or not np.array_equal(baseline.targets, scores.targets, equal_nan=bool(np.issubdtype(scores.targets.dtype, np.inexact)))
    ):
        raise ValueError(f"a paired comparison needs the same examples, got {n} and {len(baseline.scores)}, or other targets")
    metric = summarize(kind, scores, split)
    if kind.is_binary and math.isclose(metric, float(np.mean(scores.scores)), abs_tol=1e-12):
        interval = wilson_interval(round(float(np.sum(scores.scores))), n)
        return Accuracy(split, n, interval, *(_paired_binary(scores.scores, baseline.scores) if baseline else (None, None)))
    return _bootstrapped(split, metric, scores, kind, baseline, np.random.default_rng(seed))


def summarize(kind: Kind, scores: Scores, split: str) -> float:
    """Return the metric of a whole split.

    Raises:
        DivergedError: it is not finite, or the task's own function fails.
    """
    try:
        metric = float(kind.summarize(scores.scores, scores.targets))
    except Exception as error:
        # A user's function may raise anything on scores that `autocut check` has not seen.
        raise DivergedError(f"{kind.name} must be defined on {split}, got {type(error).__name__}: {error}") from error
    if not math.isfinite(metric):
        raise DivergedError(f"the metric must be finite, got {metric}")
    return metric


def wilson_interval(successes: int, n: int) -> Interval:
    """Wilson's score interval of a proportion at 95%."""
    bounds = binomtest(successes, n).proportion_ci(method="wilson")
    return Interval(successes / n, float(bounds.low), float(bounds.high))


def paired_interval(gained: int, lost: int, n: int, z: float = _Z) -> Interval:
    """Tango's score interval at 95% of the difference of two proportions on the same `n` examples.

    Args:
        gained: Number of examples that only the candidate gets right.
        lost: Number of examples that only the baseline gets right.
        n: Number of all examples.
        z: Quantile of the normal distribution that belongs to the interval's level; the default is that of 95%.
    """
    value = (gained - lost) / n

    def statistic(difference: float) -> float:
        b = -gained - lost + (2 * n - gained + lost) * difference
        root = max(b**2 + 8 * n * lost * difference * (1 - difference), 0.0)
        q = (math.sqrt(root) - b) / (4 * n)
        variance = n * (2 * q + difference * (1 - difference))
        return (gained - lost - n * difference) / math.sqrt(variance) if variance > 0 else 0.0

    # The statistic falls as the difference grows. It crosses z below the value and -z above it, unless the value is at the edge.
    edge = 1 - 1e-9
    low = brentq(lambda d: statistic(d) - z, -edge, value) if statistic(-edge) > z and value > -edge else -1.0
    high = brentq(lambda d: statistic(d) + z, value, edge) if statistic(edge) < -z and value < edge else 1.0
    return Interval(value, min(float(low), value), max(float(high), value))


def mcnemar_p_value(gained: int, lost: int) -> float:
    """Exact two-sided p-value of "neither model is better", from the examples on which the models disagree."""
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def _paired_binary(candidate: Array, baseline: Array) -> tuple[Interval, float]:
    gained = int(np.sum(candidate > baseline))
    lost = int(np.sum(candidate < baseline))
    return paired_interval(gained, lost, len(candidate)), mcnemar_p_value(gained, lost)


def _bootstrapped(
    split: str, metric: float, scores: Scores, kind: Kind, baseline: Scores | None, rng: np.random.Generator
) -> Accuracy:
    n = len(scores.scores)
    resamples = min(max(_RESAMPLED_NUMBERS // scores.scores.size, _FEWEST_RESAMPLES), _MOST_RESAMPLES)
    metrics, differences = np.empty(resamples), np.empty(resamples)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a metric that is undefined on a resample
        for index in range(resamples):
            drawn = rng.integers(0, n, n)
            targets = scores.targets[drawn]
            metrics[index] = metric_or_nan(kind, scores.scores[drawn], targets)
            if baseline is not None:
                differences[index] = metrics[index] - metric_or_nan(kind, baseline.scores[drawn], targets)
    interval = _interval(metric, metrics)
    if baseline is None:
        return Accuracy(split, n, interval)
    difference = metric - summarize(kind, baseline, split)
    return Accuracy(split, n, interval, _interval(difference, differences), _bootstrap_p_value(differences))


def metric_or_nan(kind: Kind, scores: Array, targets: Array) -> float:
    """Return the metric of some examples, NaN where it is not defined: a resample or a part of a split may hold one class."""
    try:
        return float(kind.summarize(scores, targets))
    except Exception:
        # A user's function may raise anything. It has worked on the whole split.
        return math.nan


def _interval(value: float, resampled: Array) -> Interval:
    low, high = np.percentile(resampled[np.isfinite(resampled)], [2.5, 97.5]) if np.isfinite(resampled).any() else (value, value)
    return Interval(value, min(float(low), value), max(float(high), value))


def _bootstrap_p_value(differences: Array) -> float:
    finite = differences[np.isfinite(differences)]
    beyond = min(int(np.sum(finite <= 0)), int(np.sum(finite >= 0)))
    return min(1.0, 2 * (beyond + 1) / (len(finite) + 1))


def _hashes(targets: Array) -> Array:
    """Eight bytes of BLAKE2 over each target, shape (n,)."""
    rows = [hashlib.blake2b(np.ascontiguousarray(row).tobytes(), digest_size=8).digest() for row in targets]
    return np.frombuffer(b"".join(rows), dtype=np.uint64)
