"""The front of a running search, kept up to date with every finished recipe."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from autocut.front import Losses, Objectives, objective_signs
from autocut.recipe import Recipe
from autocut.score import Limit


class LiveFront:
    """Finished recipes within the limits that no other one beats, with their values."""

    def __init__(self, objectives: Objectives, limits: Sequence[Limit]) -> None:
        self.values: dict[Recipe, dict[str, float]] = {}
        self._objectives = tuple(objectives)
        self._signs = objective_signs(objectives)
        self._limits = tuple(limits)
        self._losses = np.empty((0, len(self._objectives)))

    def add(self, recipe: Recipe, values: dict[str, float]) -> None:
        """Take in a finished recipe; it removes the recipes that it beats."""
        losses = self._losses_of(values)
        if any(limit.violation(values) > 0 for limit in self._limits) or self._beats(losses):
            return
        beaten = np.all(losses <= self._losses, axis=1) & np.any(losses < self._losses, axis=1)
        for other in itertools.compress(list(self.values), beaten):
            del self.values[other]
        self.values[recipe] = values
        self._losses = np.vstack([self._losses[~beaten], losses])

    def beats(self, values: Mapping[str, float]) -> bool:
        """Whether a recipe of the front is nowhere worse than `values` and somewhere better."""
        return self._beats(self._losses_of(values))

    def _beats(self, losses: Losses) -> bool:
        no_worse, better = np.all(self._losses <= losses, axis=1), np.any(self._losses < losses, axis=1)
        return bool(np.any(no_worse & better))

    def _losses_of(self, values: Mapping[str, float]) -> Losses:
        return self._signs * np.array([values[name] for name in self._objectives], dtype=np.float64)
