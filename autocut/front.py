"""The front: the measurements that none other beats, their ties, their hypervolume, and their knee. No torch.

All values are turned into losses first, so lower is better on every objective. Points with a value that is not finite are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import moocore
import numpy as np
from numpy.typing import NDArray

from autocut.errors import NoResultError
from autocut.measurement import SIGNIFICANT, Interval, Measurement
from autocut.recipe import UNTOUCHED, Recipe

Objectives = Mapping[str, str]
"""Value name -> "maximize" or "minimize"."""

Losses = NDArray[np.float64]

PValues = Mapping[tuple[int, int], float]
"""Pair of trials, the smaller number first -> p-value of "neither is more accurate" (`autocut.paired`)."""

_MARGIN = 0.1
"""The reference point lies beyond the worst values by this share of the range, so that the ends of the front count too."""
_UNTESTED: PValues = MappingProxyType({})
_TEST = "test"
"""Name of the locked split in `Accuracy.split`."""


@dataclass(frozen=True)
class Final:
    """What finalization found of a trial: its numbers on the locked test split, its final timing, and its bundle.

    The bundle is `verified`, or refused for the reason in `refusal`. `bundle` is relative to the study's folder. A trial that was
    refused before its test has the numbers of the search here (see `is_tested`). Dollars in `values` are those of the whole machine
    where that was measured, else of one process: `charged_as` says which.
    """

    trial: int
    values: Mapping[str, float]
    measurement: Measurement
    bundle: str | None
    bundle_sha256: str | None
    verified: bool
    refusal: str | None

    @property
    def charged_as(self) -> str:
        """Whose dollars are in `values`: "on the whole machine" or "as one process". The two do not compare."""
        return self.measurement.charged_as

    @property
    def is_tested(self) -> bool:
        """Whether the numbers are of the locked test split."""
        return self.measurement.accuracy.split == _TEST


@dataclass(frozen=True)
class FrontPoint:
    """One completed trial.

    `values` and `measurement` are the numbers that the search chose by: of the validation split, timed during the search. Front,
    ties and knee go by them. `final` has the numbers to report, of the locked test split; None until the trial is finalized.
    `ties` are the trials whose measurements do not differ significantly from this one's, `accuracy_ties` those whose accuracies do
    not, whatever they cost. `bundle` is the folder of its verified bundle.
    """

    trial: int
    recipe: Recipe
    values: Mapping[str, float]
    measurement: Measurement
    is_baseline: bool
    bundle: str | None
    ties: tuple[int, ...] = ()
    final: Final | None = None
    accuracy_ties: tuple[int, ...] = ()

    @property
    def tested(self) -> Final | None:
        """The numbers on the locked test split; None where there are none."""
        return self.final if self.final is not None and self.final.is_tested else None

    @property
    def shrinkage(self) -> float | None:
        """Accuracy on the test split minus accuracy on the validation split; None before the test."""
        return None if self.tested is None else self.tested.values["accuracy"] - self.values["accuracy"]


def non_dominated(points: Sequence[FrontPoint], objectives: Objectives, p_values: PValues = _UNTESTED) -> list[FrontPoint]:
    """Return the points that none other beats, in the given order, with their ties (see `with_ties`).

    A point beats another if it is worse on no objective and better on at least one. Points with equal values are kept together.
    This ignores whether a difference is significant: `ties` says that.
    """
    return with_ties(unbeaten(points, objectives), objectives, p_values)


def unbeaten(points: Sequence[FrontPoint], objectives: Objectives) -> list[FrontPoint]:
    """Return what `non_dominated` returns, with the ties that the points have."""
    finite, losses = _finite(points, objectives)
    if not finite:
        return []
    keep = moocore.is_nondominated(losses, keep_weakly=True)
    return [point for point, kept in zip(finite, keep, strict=True) if kept]


def with_ties(points: Sequence[FrontPoint], objectives: Objectives, p_values: PValues = _UNTESTED) -> list[FrontPoint]:
    """Return the points with `ties` set: the trials of the other points that are tied with it on every objective.

    - Accuracy: two points are tied if `p_values` has more than 0.05 for them. A pair that is not in there is tied if the paired
      differences to the untouched model overlap; with the untouched model itself, if the recorded test gives p > 0.05.
    - Latency, money and speed-up: two points are tied if the intervals of their speed-ups overlap.
    - Values without an interval, such as sizes: two points are tied if they are equal.

    Numbers of different splits are never tied.
    """
    if len(points) < 2:
        return [replace(point, ties=(), accuracy_ties=()) for point in points]
    splits = np.array([point.measurement.accuracy.split for point in points])
    as_accurate = np.equal.outer(splits, splits) & _tied_accuracy(points, p_values)
    np.fill_diagonal(as_accurate, val=False)
    tied = as_accurate if "accuracy" in objectives else np.equal.outer(splits, splits) & ~np.eye(len(points), dtype=bool)
    for name in objectives:
        if name != "accuracy":
            spread = _INTERVALS.get(name, _exact(name))
            tied = tied & _overlaps([spread(point) for point in points])
    trials = np.array([point.trial for point in points])
    return [
        replace(point, ties=tuple(trials[row].tolist()), accuracy_ties=tuple(trials[accurate].tolist()))
        for point, row, accurate in zip(points, tied, as_accurate, strict=True)
    ]


def reference_point(points: Sequence[FrontPoint], objectives: Objectives) -> dict[str, float]:
    """Return a point a little worse than all of `points`, to count the hypervolume from.

    Raises:
        NoResultError: No point has finite values.
    """
    _, losses = _finite(points, objectives)
    if not len(losses):
        raise NoResultError("a reference needs at least one point, got none")
    best, worst = losses.min(axis=0), losses.max(axis=0)
    span = np.where(worst > best, worst - best, np.maximum(np.abs(worst), 1.0))
    return dict(zip(objectives, (objective_signs(objectives) * (worst + _MARGIN * span)).tolist(), strict=True))


def hypervolume(points: Sequence[FrontPoint], objectives: Objectives, reference: Mapping[str, float]) -> float:
    """Return the volume between `reference` and the front of `points`. Its unit is the product of the objectives' units.

    A point counts only where it is better than `reference` on every objective.
    """
    _, losses = _finite(points, objectives)
    corner = objective_signs(objectives) * np.array([reference[name] for name in objectives], dtype=np.float64)
    inside = losses[(losses < corner).all(axis=1)] if len(losses) else losses
    return float(moocore.hypervolume(inside, ref=corner)) if len(inside) else 0.0


def hypervolume_contributions(points: Sequence[FrontPoint], objectives: Objectives) -> dict[int, float]:
    """Return for each trial the share of the box around `points` that only this point covers.

    The box reaches from the best value on every objective to `reference_point`. Beaten points contribute 0. So do points with
    equal values.
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
    """Return the point of the front that is farthest from the line between its ends, on the better side.

    Every objective is scaled to its range on the front. With more than two objectives the line is a plane. Of points at equal
    distance, the one with the better first objective wins, then the earlier trial.

    Raises:
        NoResultError: No point has finite values.

    References:
        Das 1999, "On characterizing the knee of the Pareto curve".
    """
    front = unbeaten(points, objectives)
    if not front:
        raise NoResultError("a knee needs at least one point, got none")
    _, losses = _finite(front, objectives)
    best, worst = losses.min(axis=0), losses.max(axis=0)
    unit = (losses - best) / np.where(worst > best, worst - best, 1.0)
    # The plane through the ends is sum(unit) = 1: the smaller the sum, the farther the point. Without rounding, noise in the last
    # bit would decide.
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


def _tied_accuracy(points: Sequence[FrontPoint], p_values: PValues) -> NDArray[np.bool_]:
    accuracies = [point.measurement.accuracy for point in points]
    paired = all(accuracy.difference is not None for accuracy in accuracies)
    tied = _overlaps([accuracy.difference if paired and accuracy.difference else accuracy.metric for accuracy in accuracies])
    for at, point in enumerate(points):
        if point.recipe == UNTOUCHED:
            for other, accuracy in enumerate(accuracies):
                if accuracy.p_value is not None:
                    tied[at, other] = tied[other, at] = accuracy.p_value > SIGNIFICANT
    places = {point.trial: at for at, point in enumerate(points)}
    for (one, other), p_value in p_values.items():
        if one in places and other in places:
            at, beside = places[one], places[other]
            tied[at, beside] = tied[beside, at] = p_value > SIGNIFICANT
    return tied


def _overlaps(intervals: Sequence[Interval]) -> NDArray[np.bool_]:
    low = np.array([interval.low for interval in intervals])
    high = np.array([interval.high for interval in intervals])
    return np.asarray((low[:, None] <= high[None, :]) & (low[None, :] <= high[:, None]))


def _exact(name: str) -> Callable[[FrontPoint], Interval]:
    return lambda point: Interval(point.values[name], point.values[name], point.values[name])


_INTERVALS: Mapping[str, Callable[[FrontPoint], Interval]] = {
    "latency_ms": lambda point: point.measurement.cost.latencies[0].speedup,
    "usd_per_million": lambda point: point.measurement.cost.busiest.speedup,
    "speedup": lambda point: point.measurement.cost.busiest.speedup,
}
"""The interval that decides a tie. These values are computed from this speed-up and the study's reference."""
