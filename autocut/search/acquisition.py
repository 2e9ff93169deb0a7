"""Which of several offers to run: the one with the most expected hypervolume gain per predicted second.

An offer is a trained prefix with the tails that it would be measured with. What it costs is known or interpolated; how accurate it
will be is asked of a forest, grown on what the study has measured, each tree of which gives one guess. The gain is the mean over
those guesses, and stages that are in the cache take no seconds: so a cheap offer is run before a slightly better dear one.

References:
    Hutter et al. 2011, SMAC (forests over mixed and conditional settings), https://doi.org/10.1007/978-3-642-25566-3_40
    Nguyen et al. 2024, EEIPU (expected improvement per remaining second with memoized prefixes), https://arxiv.org/abs/2411.03731
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autocut.recipe import Recipe
from autocut.search.volume import Volume
from autocut.space import Space

FEWEST = 8
"""Measured graphs before the forest is asked."""
_TREES = 24
_MOST = 600
"""Measurements that the forest is grown on: the latest of a long search."""

Graph = Callable[[Recipe], str]
Costs = Callable[[Recipe], Mapping[str, float] | None]
Offer = Sequence[Recipe]


class Forest:
    """Accuracy by recipe: guesses of `_TREES` trees, each grown on another sample of what was measured."""

    def __init__(self, space: Space, graph: Graph, seed: int) -> None:
        self._space = space
        self._graph = graph
        self._seed = seed
        self._rows: dict[tuple[Recipe, str], tuple[list[float], float]] = {}
        self._graphs: dict[str, int] = {}
        self._trees: list[Any] = []
        self._grown_on = 0

    def learn(self, recipe: Recipe, accuracy: float) -> None:
        """Take in a measured accuracy; recipes of one prefix and one quantized graph share it."""
        self._rows[recipe.prefix, self._graph(recipe)] = self._features(recipe), accuracy

    def is_ready(self) -> bool:
        """Whether enough was measured to guess."""
        return len(self._rows) >= FEWEST

    def guesses(self, recipes: Sequence[Recipe]) -> NDArray[np.float64]:
        """Accuracies, shape (trees, recipes)."""
        self._grow()
        features = np.array([self._features(recipe) for recipe in recipes], dtype=np.float32)
        return np.stack([tree.tree_.predict(features).reshape(-1) for tree in self._trees])

    def _grow(self) -> None:
        if self._grown_on == len(self._rows):
            return
        from sklearn.ensemble import ExtraTreesRegressor  # takes most of a second to import: not before it is needed

        rows = list(self._rows.values())[-_MOST:]
        features, accuracies = np.array([row[0] for row in rows], dtype=np.float32), np.array([row[1] for row in rows])
        forest = ExtraTreesRegressor(_TREES, bootstrap=True, min_samples_leaf=2, random_state=self._seed)
        self._trees = forest.fit(features, accuracies).estimators_
        self._grown_on = len(self._rows)

    def _features(self, recipe: Recipe) -> list[float]:
        row: list[float] = []
        for axis in self._space.axes:
            if axis.name in ("quantize.dtype", "compile.mode"):
                continue
            value = recipe.get(axis.name)
            if axis.choices and any(isinstance(choice, str) for choice in axis.choices):
                row += [float(value == choice) for choice in axis.choices]
            else:
                number = -1.0 if value is None else float(value)
                row.append(math.log(number) if axis.log and number > 0 else number)
        graph = self._graphs.setdefault(self._graph(recipe), len(self._graphs))
        return [*row, float(graph)]


class Acquisition:
    """Ranks offers by expected hypervolume gain per predicted second."""

    def __init__(self, forest: Forest, costs: Costs) -> None:
        self._forest = forest
        self._costs = costs

    def best(self, offers: Sequence[Offer], seconds: Sequence[float], front: Sequence[Mapping[str, float]], volume: Volume) -> int:
        """Return the number of the best offer; the first one while too little is known.

        Args:
            offers: Recipes of each.
            seconds: Predicted seconds of each.
            front: Values of the finished points that none other beats.
            volume: What is to grow.
        """
        if len(offers) < 2 or not self._forest.is_ready():
            return 0
        guesses = np.split(
            self._forest.guesses([recipe for offer in offers for recipe in offer]),
            np.cumsum([len(offer) for offer in offers])[:-1],
            axis=1,
        )
        known = np.array([volume.losses(values) for values in front])
        before = volume.of(known)
        gains = [self._gain(offer, guess, known, before, volume) for offer, guess in zip(offers, guesses, strict=True)]
        return int(np.argmax([gain / max(second, 1e-3) for gain, second in zip(gains, seconds, strict=True)]))

    def _gain(self, offer: Offer, guesses: NDArray[np.float64], known: NDArray[np.float64], before: float, volume: Volume) -> float:
        """Mean growth of the hypervolume over the trees' guesses; nothing known of the cost counts as the untouched model's."""
        costs = [self._costs(recipe) for recipe in offer]
        grown = 0.0
        for guess in guesses:
            points = [volume.losses({**cost, "accuracy": value}) for cost, value in zip(costs, guess, strict=True) if cost]
            grown += volume.of(np.vstack([known, points])) - before if points else 0.0
        return grown / len(guesses)
