"""When a training is not worth its rest: at its known cost, even an optimistic end would not reach the front.

What a recipe costs is known before it is trained, so what it must reach in accuracy is known as well: more than every finished
trial that is nowhere dearer. How much a training can still gain follows from the study's own finished ones. Both together are one
number for each rung, its floor, which goes with the job: the worker that trains needs to ask nobody.

Measured on a synthetic compression objective (FACTS section 7): a rule of this kind saves about a third of the epochs, and a stop
by accuracy alone is worse than none, because it stops what is cheap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

FEWEST_CURVES = 8
"""Finished trainings that must be known before one is stopped."""
_OPTIMISM = 90.0
"""Percentile of the gains from a rung to the end that a training is given."""


class LearningCurves:
    """Metrics by epoch of finished trainings."""

    def __init__(self) -> None:
        self._curves: list[tuple[float, ...]] = []

    def learn(self, curve: Sequence[float]) -> None:
        """Take in a finished training; one of a single epoch has no rung before its end."""
        if len(curve) > 1 and all(map(math.isfinite, curve)):
            self._curves.append(tuple(curve))

    def optimistic_gain(self, progress: float) -> float:
        """What a training may still gain after this share of its epochs; infinite where too little is known."""
        if len(self._curves) < FEWEST_CURVES:
            return math.inf
        return float(np.percentile([curve[-1] - _at(curve, progress) for curve in self._curves], _OPTIMISM))

    def floors(self, needed: float, epochs: int) -> tuple[float, ...]:
        """What each rung before the last must show if the end is to be at least `needed`."""
        return tuple(needed - max(0.0, self.optimistic_gain(epoch / epochs)) for epoch in range(1, epochs))


def _at(curve: Sequence[float], progress: float) -> float:
    """The metric at a share of the training, between the rungs on a straight line."""
    rungs = [(epoch + 1) / len(curve) for epoch in range(len(curve))]
    return float(np.interp(progress, rungs, curve))
