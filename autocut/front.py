"""The front: measurements that none other beats, which of them are ties, how much they cover, and where the knee is. No torch.

Everything is turned into losses first, so that lower is better on every objective. Points with a value that is not finite are
left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import moocore
import numpy as np
from numpy.typing import NDArray

from autocut.errors import NoResultError
from autocut.measurement import Interval, Latency, Measurement
from autocut.recipe import UNTOUCHED, Recipe

Objectives = Mapping[str, str]
"""Value names with "maximize" or "minimize"."""

Losses = NDArray[np.float64]

_MARGIN = 0.1
"""The reference point lies this share of the front's range beyond its worst values, so that the ends of the front count too."""
_SIGNIFICANT = 0.05


@dataclass(frozen=True)
class FrontPoint:
    """One completed trial. `ties` are the trials that it cannot be told apart from, `bundle` the folder of its verified bundle."""

    trial: int
    recipe: Recipe
    values: Mapping[str, float]
    measurement: Measurement
    is_baseline: bool
    bundle: str | None
    ties: tuple[int, ...] = ()


def non_dominated(points: Sequence[FrontPoint], objectives: Objectives) -> list[FrontPoint]:
    """Return the points that none other beats, in the given order, with their ties.

    A point beats another if it is nowhere worse and somewhere better. Points with equal values stay together. Whether a
    difference is significant plays no part here: `ties` says which points of the result cannot be told apart.
    """
    finite, losses = _finite(points, objectives)
    if not finite:
        return []
    keep = moocore.is_nondominated(losses, keep_weakly=True)
    return with_ties([point for point, kept in zip(finite, keep, strict=True) if kept], objectives)


def with_ties(points: Sequence[FrontPoint], objectives: Objectives) -> list[FrontPoint]:
    """Return the points with `ties` set: for each the other trials of `points` that are tied with it on every objective.

    Accuracy: two points are tied where their paired differences to the untouched model overlap; against the untouched model
    itself, where the paired test gives p > 0.05. Latency, money and speed-up: where the intervals of their speed-ups overlap.
    Values without an interval, such as sizes: where they are equal. Numbers of different splits are never tied.
    """
    if len(points) < 2:
        return [replace(point, ties=()) for point in points]
    splits = np.array([point.measurement.accuracy.split for point in points])
    tied = np.equal.outer(splits, splits)
    for name in objectives:
        spread = _INTERVALS.get(name, _exact(name))
        tied &= _tied_accuracy(points) if name == "accuracy" else _overlaps([spread(point) for point in points])
    np.fill_diagonal(tied, val=False)
    trials = [point.trial for point in points]
    return [
        replace(point, ties=tuple(trials[other] for other in np.flatnonzero(row))) for point, row in zip(points, tied, strict=True)
    ]


def reference_point(points: Sequence[FrontPoint], objectives: Objectives) -> dict[str, float]:
    """Return a point a little worse than all of `points`, from which to count the hypervolume.

    Raises:
        NoResultError: there is no point with finite values.
    """
    _, losses = _finite(points, objectives)
    if not len(losses):
        raise NoResultError("a reference needs at least one point, got none")
    best, worst = losses.min(axis=0), losses.max(axis=0)
    span = np.where(worst > best, worst - best, np.maximum(np.abs(worst), 1.0))
    return dict(zip(objectives, (objective_signs(objectives) * (worst + _MARGIN * span)).tolist(), strict=True))


def hypervolume(points: Sequence[FrontPoint], objectives: Objectives, reference: Mapping[str, float]) -> float:
    """Return the volume between `reference` and the front of `points`, in the product of the objectives' units.

    Points that are not better than `reference` on every objective add nothing.
    """
    _, losses = _finite(points, objectives)
    corner = objective_signs(objectives) * np.array([reference[name] for name in objectives], dtype=np.float64)
    inside = losses[(losses < corner).all(axis=1)] if len(losses) else losses
    return float(moocore.hypervolume(inside, ref=corner)) if len(inside) else 0.0


def hypervolume_contributions(points: Sequence[FrontPoint], objectives: Objectives) -> dict[int, float]:
    """Return by trial what share of the box around `points` is covered by that point alone: what is lost without it.

    The box reaches from the best value on every objective to `reference_point`. Beaten points, and points that have an equal,
    contribute 0.
    """
    finite, losses = _finite(points, objectives)
    contributions = {point.trial: 0.0 for point in points}
    if finite:
        reference = objective_signs(objectives) * np.array(list(reference_point(finite, objectives).values()))
        best = losses.min(axis=0)
        unit = (losses - best) / (reference - best)
        alone = moocore.hv_contributions(unit, ref=np.ones(len(objectives)), ignore_dominated=False)
        contributions |= {point.trial: float(share) for point, share in zip(finite, alone, strict=True)}
    return contributions


def knee(points: Sequence[FrontPoint], objectives: Objectives) -> FrontPoint:
    """Return the point of the front that is farthest from the line between its ends, on the side of the ideal.

    Every objective is scaled to its range on the front; with more than two objectives the line is a plane. Equal distances are
    settled by the first objective, then by the earlier trial.

    Raises:
        NoResultError: there is no point with finite values.

    References:
        Das 1999, "On characterizing the knee of the Pareto curve".
    """
    front = non_dominated(points, objectives)
    if not front:
        raise NoResultError("a knee needs at least one point, got none")
    _, losses = _finite(front, objectives)
    best, worst = losses.min(axis=0), losses.max(axis=0)
    unit = (losses - best) / np.where(worst > best, worst - best, 1.0)
    # The plane through the ends is sum(unit) = 1, so the distance to it falls with the sum. Rounded, or noise in the last bit
    # would decide.
    heights = np.round(unit.sum(axis=1), 12)
    order = sorted(range(len(front)), key=lambda at: (heights[at], losses[at, 0], front[at].trial))
    return front[order[0]]


def objective_signs(objectives: Objectives) -> Losses:
    """Return what turns the value of each objective into a loss: -1 where it is maximized, 1 where it is minimized."""
    return np.array([-1.0 if direction == "maximize" else 1.0 for direction in objectives.values()])


def _finite(points: Sequence[FrontPoint], objectives: Objectives) -> tuple[list[FrontPoint], Losses]:
    values = np.array([[point.values[name] for name in objectives] for point in points], dtype=np.float64).reshape(
        len(points), len(objectives)
    )
    usable = np.asarray(np.isfinite(values).all(axis=1))
    return [point for point, kept in zip(points, usable, strict=True) if kept], values[usable] * objective_signs(objectives)


def _tied_accuracy(points: Sequence[FrontPoint]) -> NDArray[np.bool_]:
    accuracies = [point.measurement.accuracy for point in points]
    paired = all(accuracy.difference is not None for accuracy in accuracies)
    tied = _overlaps([accuracy.difference if paired and accuracy.difference else accuracy.metric for accuracy in accuracies])
    for at, point in enumerate(points):
        if point.recipe == UNTOUCHED:
            for other, accuracy in enumerate(accuracies):
                if accuracy.p_value is not None:
                    tied[at, other] = tied[other, at] = accuracy.p_value > _SIGNIFICANT
    return tied


def _overlaps(intervals: Sequence[Interval]) -> NDArray[np.bool_]:
    low = np.array([interval.low for interval in intervals])
    high = np.array([interval.high for interval in intervals])
    return np.asarray((low[:, None] <= high[None, :]) & (low[None, :] <= high[:, None]))


def _first(point: FrontPoint) -> Latency:
    return point.measurement.cost.latencies[0]


def _busiest(point: FrontPoint) -> Latency:
    return max(point.measurement.cost.latencies, key=lambda latency: latency.batch_size)


def _exact(name: str) -> Callable[[FrontPoint], Interval]:
    return lambda point: Interval(point.values[name], point.values[name], point.values[name])


_INTERVALS: Mapping[str, Callable[[FrontPoint], Interval]] = {
    "latency_ms": lambda point: _first(point).speedup,
    "usd_per_million": lambda point: _busiest(point).speedup,
    "speedup": lambda point: _busiest(point).speedup,
}
"""Whose interval decides a tie: the values follow from these speed-ups and one reference of the study."""
