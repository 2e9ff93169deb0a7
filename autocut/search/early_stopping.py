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

from autocut.measurement import Rung
from autocut.recipe import Recipe
from autocut.search.knowledge import Knowledge

FEWEST_CURVES = 8
"""Finished trainings that must be known before one is stopped."""
_IN_VAIN = 16
"""Trainings stopped in a row after which they are given more than their rungs promise."""
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


class Trainings:
    """The trainings of one search: their rungs, what they teach, and which ended early."""

    def __init__(self, known: Knowledge) -> None:
        self.stopped: set[Recipe] = set()
        self._in_vain = 0
        self._known = known
        self._rungs: dict[Recipe, dict[int, float]] = {}
        self._finished = LearningCurves()

    def reached(self, recipe: Recipe, rung: Rung) -> None:
        """Take in a rung of the prefix of `recipe`."""
        self._rungs.setdefault(recipe.prefix, {})[rung.epoch] = rung.metric

    def curve(self, recipe: Recipe) -> tuple[float, ...]:
        """Metric after each epoch; empty where a resumed training's first epochs were told to an earlier session."""
        rungs = self._rungs.get(recipe.prefix, {})
        return tuple(rungs[epoch] for epoch in sorted(rungs)) if 1 in rungs else ()

    def finished(self, recipe: Recipe, curve: Sequence[float]) -> None:
        """Take in that `recipe` was measured; the curve of a prefix counts once, and the untouched model's own is none of these."""
        if recipe.is_trained and not self._known.is_trained(recipe.prefix):
            self._finished.learn(curve)
            self._in_vain = 0

    def stop(self, recipe: Recipe) -> bool:
        """Take in that the training of `recipe` was stopped; False where its prefix was known to be."""
        if not self._known.is_hopeful:
            self._known.give_up(recipe)
        is_news = recipe.prefix not in self.stopped
        self.stopped.add(recipe.prefix)
        self._in_vain += is_news
        return is_news

    def recall_stopped(self, recipe: Recipe) -> None:
        """Take over from an earlier session that the training of `recipe` was stopped."""
        self._known.give_up(recipe)
        self.stopped.add(recipe.prefix)

    @property
    def are_in_vain(self) -> bool:
        """Whether one training after the other was stopped: what is still better is not found by looking at beginnings."""
        return self._in_vain >= _IN_VAIN

    def floors(self, recipes: Sequence[Recipe]) -> dict[Recipe, tuple[float, ...]]:
        """What each training must show at its rungs to go on, by prefix; nothing for what is trained already."""
        if not self._known.tactics.early_stopping or self._known.is_hopeful:
            return {}
        lowerings: dict[Recipe, list[Recipe]] = {}
        for recipe in recipes:
            if recipe.is_trained and not self._known.is_trained(recipe.prefix):
                lowerings.setdefault(recipe.prefix, []).append(recipe)
        return {
            prefix: self._finished.floors(self._known.needed_accuracy(siblings), int(prefix["train.epochs"]))
            for prefix, siblings in lowerings.items()
        }


def _at(curve: Sequence[float], progress: float) -> float:
    """The metric at a share of the training, between the rungs on a straight line."""
    rungs = [(epoch + 1) / len(curve) for epoch in range(len(curve))]
    return float(np.interp(progress, rungs, curve))
