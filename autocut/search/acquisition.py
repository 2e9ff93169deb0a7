"""Which of several offers to run: the one with the most expected hypervolume gain per predicted second.

An offer is a trained prefix with the tails that it would be measured with. Tails that are not worth their seconds (a compiler that
takes half a minute for what another mode gives as well) are left for later. What an offer costs is known or interpolated; how
accurate it will be is asked of a forest, grown on what the study has measured, each tree of which gives one guess. The gain is the
mean over those guesses, and stages that are in the cache take no seconds: a cheap offer is run before a slightly better dear one.

References:
    Hutter et al. 2011, SMAC (forests over mixed and conditional settings), https://doi.org/10.1007/978-3-642-25566-3_40
    Nguyen et al. 2024, EEIPU (expected improvement per remaining second with memoized prefixes), https://arxiv.org/abs/2411.03731
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesRegressor

from autocut.recipe import PARENT_RATIO, Recipe
from autocut.search.volume import Volume
from autocut.space import Space

FEWEST = 8
"""Measured graphs before the forest is asked."""
_TREES = 16
_SHORTLIST = 10
"""Offers whose growth of the hypervolume is computed, out of all."""
_MOST = 600
"""Measurements that the forest is grown on: the latest of a long search."""

Graph = Callable[[Recipe], str]
Costs = Callable[[Recipe], Mapping[str, float]]
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
        return [*row, float(recipe.get(PARENT_RATIO, -1.0)), float(graph)]


@dataclass(frozen=True)
class Choice:
    """The best offer by its number, and those of its recipes that are worth their seconds."""

    offer: int
    recipes: tuple[Recipe, ...]


class Acquisition:
    """Picks the offer, and of its tails those, that promise most hypervolume per predicted second."""

    def __init__(self, forest: Forest, costs: Costs) -> None:
        self._forest = forest
        self._costs = costs

    def best(
        self,
        offers: Sequence[Offer],
        seconds: Sequence[Sequence[float]],
        front: Sequence[Mapping[str, float]],
        volume: Volume,
        fixed_s: float = 0.0,
    ) -> Choice:
        """Return the best offer; the first one, whole, while too little is known, or nothing is expected of any.

        Args:
            offers: Recipes of each; the first of an offer cannot be left out.
            seconds: Predicted seconds of each recipe of each offer; the first pays for what they share.
            front: Values of the finished points that none other beats.
            volume: What is to grow.
            fixed_s: Seconds that every offer takes besides.
        """
        if not self._forest.is_ready():
            return Choice(0, tuple(offers[0]))
        guesses = self._forest.guesses([recipe for offer in offers for recipe in offer])
        ends = np.cumsum([len(offer) for offer in offers])
        points = [self._points(offer, guesses[:, end - len(offer) : end], volume) for offer, end in zip(offers, ends, strict=True)]
        known = np.array([volume.losses(values) for values in front]).reshape(-1, points[0].shape[2])
        before = volume.of(known)
        best, choice = 0.0, Choice(0, tuple(offers[0]))
        for number in _shortlist(points, seconds, fixed_s):
            adds = _adds(points[number], known)
            for tails in _nested(points[number], seconds[number]):
                additions = [guess[tails][new[tails]] for guess, new in zip(points[number], adds, strict=True)]
                gains = [volume.of(np.vstack([known, added])) - before if len(added) else 0.0 for added in additions]
                rate = math.fsum(gains) / len(gains) / (fixed_s + math.fsum(seconds[number][tail] for tail in tails))
                if rate > best:
                    best, choice = rate, Choice(number, tuple(offers[number][tail] for tail in tails))
        return choice

    def _points(self, offer: Offer, guesses: NDArray[np.float64], volume: Volume) -> NDArray[np.float64]:
        """Losses by tree and recipe, shape (trees, recipes, objectives)."""
        columns = [volume.losses_by_accuracy(self._costs(recipe), guesses[:, at]) for at, recipe in enumerate(offer)]
        return np.stack(columns, axis=1)


def _adds(points: NDArray[np.float64], known: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which guesses add something: inside the corner, and no known point is nowhere worse; shape (trees, recipes)."""
    behind = np.any(np.all(known <= points[:, :, np.newaxis, :], axis=3), axis=2)
    adds: NDArray[np.bool_] = np.all(points < 0, axis=2) & ~behind
    return adds


def _boxes(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each recipe would cover were it alone, the mean over the trees, shape (recipes,)."""
    covered: NDArray[np.float64] = np.prod(np.maximum(-points, 0.0), axis=2).mean(axis=0)
    return covered


def _shortlist(points: Sequence[NDArray[np.float64]], seconds: Sequence[Sequence[float]], fixed_s: float) -> list[int]:
    """The offers whose growth is computed: half of them by what they would cover per second, half by what they would cover."""
    covered = [float(_boxes(offer).max()) for offer in points]
    by_rate = sorted(range(len(points)), key=lambda at: -covered[at] / (fixed_s + seconds[at][0]))
    by_size = sorted(range(len(points)), key=lambda at: -covered[at])
    return list(dict.fromkeys([*by_rate[: _SHORTLIST // 2], *by_size[: _SHORTLIST // 2]]))


def _nested(points: NDArray[np.float64], seconds: Sequence[float]) -> list[list[int]]:
    """The first recipe, then one more at a time, by how large a box it covers alone per second."""
    alone = _boxes(points) / np.maximum(seconds, 1e-3)
    order = [0, *sorted(range(1, len(seconds)), key=lambda tail: -alone[tail])]
    return [order[: count + 1] for count in range(len(order))]
