"""The hypervolume that a search enlarges: kept accuracy times saved costs, on scales that people read.

Costs count by their logarithm: from 1 to 1/2 is worth as much as from 1/5 to 1/10, because users want "five times cheaper".
Accuracy counts from a tenth below the untouched model on, or from the largest drop on that is allowed. The corner is this accuracy
and the untouched model's cost. So a point that costs more than the untouched model, or loses more, adds nothing. Where the
untouched model costs nothing (the training of a model that came with its weights), every point costs more. Then the corner lies
beyond the largest cost seen, and costs count as shares of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import moocore
import numpy as np

from autocut.front import Losses, Objectives, objective_signs

ACCURACY_RANGE = 0.1
"""A model that loses this share of the untouched model's metric adds nothing."""
_LEAST_RANGE = 0.001
"""Where no drop is allowed, what gains accuracy still counts: this share of the metric is then the unit."""

_BEYOND = 1.5
"""Where the untouched model costs nothing, the corner is the largest cost seen times this."""


def accuracy_unit(untouched: float, drop: float | None) -> float:
    """Return what counts as 1 of a metric that the untouched model has `untouched` of, where at most `drop` of it may be lost."""
    usual = ACCURACY_RANGE * abs(untouched) or 1.0
    return usual if drop is None else min(usual, max(drop, _LEAST_RANGE * abs(untouched) or 1.0))


class Volume:
    """Hypervolume relative to the untouched model; in units of (the accuracy from the corner on) x (factors of e in each cost).

    `seen` are values of known points: where the untouched model costs nothing, the largest cost among them sets the corner.
    `drop` is what a point may lose of the metric; None: a tenth of it.
    """

    def __init__(
        self,
        objectives: Objectives,
        untouched: Mapping[str, float],
        seen: Iterable[Mapping[str, float]] = (),
        drop: float | None = None,
    ) -> None:
        self._signs = dict(zip(objectives, objective_signs(objectives).tolist(), strict=True))
        self._untouched = dict(untouched)
        self._drop = drop
        self._covered = moocore.Hypervolume(ref=np.zeros(len(objectives)))
        free = [name for name, sign in self._signs.items() if sign > 0 and untouched[name] == 0]
        self._dearest = {name: _BEYOND * max([values[name] for values in seen], default=0.0) for name in free}

    def losses(self, values: Mapping[str, float]) -> list[float]:
        """Return the position of a point: each objective is minimized, and the corner is 0."""
        return [self._loss(name, values[name]) for name in self._signs]

    def losses_of(self, points: Sequence[Mapping[str, float]]) -> Losses:
        """Return the positions of several points, shape (points, objectives)."""
        return np.array([self.losses(values) for values in points], dtype=np.float64).reshape(-1, len(self._signs))

    def losses_by_accuracy(self, costs: Sequence[Mapping[str, float]], accuracies: Losses) -> Losses:
        """Return the losses of points of known `costs` for several guesses of their accuracies.

        Args:
            costs: Of each point.
            accuracies: Shape (guesses, points).

        Returns:
            Shape (guesses, points, objectives).
        """
        losses = np.empty((*accuracies.shape, len(self._signs)))
        for column, name in enumerate(self._signs):
            if name == "accuracy":
                corner, scale = self._corner(name)
                losses[:, :, column] = (corner - accuracies) / scale
            else:
                losses[:, :, column] = [self._loss(name, cost[name]) for cost in costs]
        return losses

    def of(self, losses: Sequence[Sequence[float]] | Losses) -> float:
        """Return the hypervolume of points given by `losses`, shape (points, objectives)."""
        return self.of_inside(self.inside(losses))

    def inside(self, losses: Sequence[Sequence[float]] | Losses) -> Losses:
        """Return the points that lie inside the corner, shape (points, objectives)."""
        points = np.asarray(losses, dtype=np.float64).reshape(-1, len(self._signs))
        inside: Losses = points[(points < 0).all(axis=1)]
        return inside

    def of_inside(self, losses: Losses) -> float:
        """Return the hypervolume of points that all lie inside the corner."""
        return float(self._covered(losses)) if len(losses) else 0.0

    def contributions(self, losses: Sequence[Sequence[float]]) -> list[float]:
        """Return what would be lost without each point; 0 where it adds nothing."""
        points = np.minimum(np.asarray(losses, dtype=np.float64).reshape(-1, len(self._signs)), 0.0)
        alone = moocore.hv_contributions(points, ref=np.zeros(points.shape[1]), ignore_dominated=False)
        return [float(share) for share in alone]

    def _corner(self, name: str) -> tuple[float, float]:
        """Where a maximized objective begins to count, and what counts as 1."""
        start = self._untouched[name]
        unit = accuracy_unit(start, self._drop)
        return start - unit, unit

    def _loss(self, name: str, value: float) -> float:
        start = self._untouched[name]
        if self._signs[name] < 0:
            corner, scale = self._corner(name)
            return (corner - value) / scale
        if name in self._dearest:
            return value / self._dearest[name] - 1 if self._dearest[name] > 0 else 0.0
        return math.log(value / start) if value > 0 and start > 0 else value - start
