"""Learning curves of finished trainings: what the rest of a training can still gain."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

FEWEST_CURVES = 8
"""Finished trainings that must be known before a training is stopped."""
_OPTIMISM = 90.0
"""Percentile of the known gains from a rung to the end that a training is expected to reach."""


class LearningCurves:
    """Metrics by epoch of finished trainings."""

    def __init__(self) -> None:
        self._curves: list[tuple[float, ...]] = []

    def learn(self, curve: Sequence[float]) -> None:
        """Take in a finished training. A training of one epoch has no rung before its end and is left out."""
        if len(curve) > 1 and all(map(math.isfinite, curve)):
            self._curves.append(tuple(curve))

    def optimistic_gain(self, progress: float) -> float:
        """What a training may still gain after this share of its epochs; infinite while too few curves are known."""
        if len(self._curves) < FEWEST_CURVES:
            return math.inf
        return float(np.percentile([curve[-1] - _at(curve, progress) for curve in self._curves], _OPTIMISM))

    def floors(self, needed: float, epochs: int) -> tuple[float, ...]:
        """Metric that each rung before the last must show if the end is to reach `needed`."""
        return tuple(needed - max(0.0, self.optimistic_gain(epoch / epochs)) for epoch in range(1, epochs))


def _at(curve: Sequence[float], progress: float) -> float:
    """Return the metric at a share of the training; between two rungs it lies on a straight line."""
    rungs = [(epoch + 1) / len(curve) for epoch in range(len(curve))]
    return float(np.interp(progress, rungs, curve))
