"""Which of several offers to run: the one with the most expected hypervolume gain per predicted second.

An offer is a trained prefix with the lowerings that it would be measured with. Lowerings that are not worth their seconds (a
compiler that takes half a minute for what another mode gives as well) are left for later. What an offer costs is known or
interpolated; how accurate it will be is asked of a linear model and a forest on what it leaves, fitted to what the study has
measured, which give a number of guesses. The gain is the mean over those guesses, and stages that are in the cache take no
seconds: a cheap offer is run before a slightly better dear one.

References:
    Hutter et al. 2011, SMAC (forests over mixed and conditional settings), https://doi.org/10.1007/978-3-642-25566-3_40
    MacKay 1992, Bayesian interpolation (the linear model and its weights' uncertainty), https://doi.org/10.1162/neco.1992.4.3.415
    Nguyen et al. 2024, EEIPU (expected improvement per remaining second with memoized prefixes), https://arxiv.org/abs/2411.03731
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.linear_model import BayesianRidge
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from autocut.recipe import PARENT_RATIO, Recipe
from autocut.search.volume import Volume
from autocut.space import Space

FEWEST = 8
"""Measured graphs before the forest is asked."""
_TREES = 16
_MOST = 300
"""Measurements that the forest is grown on: the latest of a long search."""
_STALE = 1.02
"""The forest is grown anew when this many times what it was grown on is known."""
_FEWEST_OF_A_KIND = 4
"""Measurements of trained, or of only pruned, models before they get a model of their own."""

Graph = Callable[[Recipe], str]
Costs = Callable[[Recipe], Mapping[str, float]]
Offer = Sequence[Recipe]


class Forest:
    """Accuracy by recipe: guesses of `_TREES` trees on what a Bayesian linear model leaves, each with a draw of its weights.

    The linear model knows that settings add up, and that they matter more where more was pruned: a few trainings tell it what a
    learning rate or a teacher brings at every ratio. The trees know the rest. Models that were trained and models that were only
    pruned are two different things, each with a model of its own.
    """

    def __init__(self, space: Space, graph: Graph, seed: int) -> None:
        self._space = space
        self._graph = graph
        self._seed = seed
        self._rows: dict[tuple[Recipe, str], tuple[Recipe, float]] = {}
        self._graphs: dict[str, int] = {}
        self._models: dict[bool, _Model] = {}
        self._grown_on, self._grown_graphs = 0, 0

    def learn(self, recipe: Recipe, accuracy: float) -> None:
        """Take in a measured accuracy; recipes of one prefix and one quantized graph share it."""
        graph = self._graph(recipe)
        self._graphs.setdefault(graph, len(self._graphs))
        self._rows[recipe.prefix, graph] = recipe, accuracy

    def is_ready(self) -> bool:
        """Whether enough was measured to guess."""
        return len(self._rows) >= FEWEST

    def guesses(self, recipes: Sequence[Recipe]) -> NDArray[np.float64]:
        """Accuracies, shape (trees, recipes)."""
        self._grow()
        features = np.array([self._features(recipe) for recipe in recipes])
        is_trained = np.array([recipe.is_trained for recipe in recipes])
        guessed = np.empty((_TREES, len(recipes)))
        for trained in (False, True):
            if (chosen := is_trained == trained).any():
                guessed[:, chosen] = self._models[trained].guesses(features[chosen])
        return guessed

    def _grow(self) -> None:
        if len(self._rows) <= self._grown_on * _STALE and len(self._graphs) == self._grown_graphs:
            return
        rows = list(self._rows.values())[-_MOST:]
        for trained in (False, True):
            own = [row for row in rows if row[0].is_trained == trained]
            chosen = own if len(own) >= _FEWEST_OF_A_KIND else rows
            features = np.array([self._features(recipe) for recipe, _ in chosen])
            self._models[trained] = _Model(features, np.array([accuracy for _, accuracy in chosen]), self._seed)
        self._grown_on, self._grown_graphs = len(self._rows), len(self._graphs)

    def _features(self, recipe: Recipe) -> list[float]:
        """The ratio first, then every setting of the prefix, then the graph; choices by name are told one by one."""
        row: list[float] = [float(recipe.get("prune.ratio", 0.0)), float(recipe.get(PARENT_RATIO, -1.0))]
        for axis in self._space.axes:
            if axis.name in ("quantize.dtype", "compile.mode", "prune.ratio"):
                continue
            value = recipe.get(axis.name)
            if axis.choices and any(isinstance(choice, str) for choice in axis.choices):
                row += [float(value == choice) for choice in axis.choices]
            else:
                number = -1.0 if value is None else float(value)
                row.append(math.log(number) if axis.log and number > 0 else number)
        own = self._graph(recipe)
        return row + [float(own == graph) for graph in self._graphs]


class _Model:
    """Accuracies of one kind of models, from features whose first column is the prune ratio."""

    def __init__(self, features: NDArray[np.float64], accuracies: NDArray[np.float64], seed: int) -> None:
        self._scaler = StandardScaler().fit(_with_products(features))
        scaled = self._scaler.transform(_with_products(features))
        draws = np.random.default_rng(seed).standard_normal((_TREES, scaled.shape[1]))
        with threadpool_limits(1):  # the workers have the cores: threads that wait for one another take twenty times as long
            linear = BayesianRidge().fit(scaled, accuracies)
            values, vectors = np.linalg.eigh(linear.sigma_)
        self._weights = linear.coef_ + draws @ (vectors * np.sqrt(np.maximum(values, 0.0))).T
        self._intercept = float(linear.intercept_)
        rest = accuracies - linear.predict(scaled)
        forest = ExtraTreesRegressor(_TREES, bootstrap=True, min_samples_leaf=2, random_state=seed)
        self._trees = forest.fit(features.astype(np.float32), rest).estimators_

    def guesses(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Accuracies, shape (trees, recipes)."""
        scaled = self._scaler.transform(_with_products(features))
        rest = np.stack([tree.tree_.predict(features.astype(np.float32)).reshape(-1) for tree in self._trees])
        guessed: NDArray[np.float64] = self._weights @ scaled.T + self._intercept + rest
        return guessed


def _with_products(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """The features, the square of the ratio, and everything times the ratio."""
    return np.hstack([features, features * features[:, :1]])


@dataclass(frozen=True)
class Choice:
    """The best offer by its number, and those of its recipes that are worth their seconds.

    `rate` is the hypervolume per second that is expected of them; infinite where nothing is known.
    """

    offer: int
    recipes: tuple[Recipe, ...]
    rate: float = 0.0


class Acquisition:
    """Picks the offer, and of its lowerings those, that promise most hypervolume per predicted second."""

    def __init__(self, forest: Forest, costs: Costs) -> None:
        self._forest = forest
        self._costs = costs

    def best(
        self,
        offers: Sequence[Offer],
        seconds: Sequence[Sequence[float]],
        shared_s: Sequence[float],
        front: Sequence[Mapping[str, float]],
        volume: Volume,
    ) -> Choice:
        """Return the best offer; the first one, whole, while too little is known, or nothing is expected of any.

        Args:
            offers: Recipes of each.
            seconds: Predicted seconds of each recipe of each offer.
            shared_s: Seconds of each offer besides, however many of its recipes are run: its training.
            front: Values of the finished points that none other beats.
            volume: What is to grow.
        """
        if not self._forest.is_ready():
            return Choice(0, tuple(offers[0]), math.inf)
        every = self._points([recipe for offer in offers for recipe in offer], volume)
        points = np.split(every, np.cumsum([len(offer) for offer in offers])[:-1], axis=1)
        growth = Growth(front, volume)
        most = [growth.at_most(offer) for offer in points]
        ranked = [_by_rate(*offer) for offer in zip(most, seconds, strict=True)]
        best, choice = 0.0, Choice(0, tuple(offers[0]))
        for number in sorted(range(len(offers)), key=lambda number: -ranked[number][0][1] if ranked[number] else 0.0):
            lowerings: list[int] = []
            for lowering, at_most in ranked[number]:
                if at_most <= best:
                    break  # neither this lowering nor a later one can lift the rate of those before it above the best
                lowerings.append(lowering)
                gain = growth.mean(points[number][:, lowerings], most[number][:, lowerings] > 0)
                rate = gain / (shared_s[number] + math.fsum(seconds[number][lowering] for lowering in lowerings))
                if rate > best:
                    best, choice = rate, Choice(number, tuple(offers[number][lowering] for lowering in lowerings), rate)
        return choice

    def most_promising(
        self,
        recipes: Sequence[Recipe],
        seconds: Sequence[float],
        count: int,
        front: Sequence[Mapping[str, float]],
        volume: Volume,
    ) -> list[int]:
        """Places of the `count` of `recipes` that promise most hypervolume per second; fewer where of fewer any is expected."""
        points, growth = self._points(recipes, volume), Growth(front, volume)
        most = growth.at_most(points)
        promised, rates = most.mean(axis=0) / seconds, dict[int, float]()
        for at in np.argsort(-promised).tolist():
            if promised[at] <= 0 or (len(rates) >= count and promised[at] <= heapq.nlargest(count, rates.values())[-1]):
                break
            rates[at] = growth.mean(points[:, [at]], most[:, [at]] > 0) / seconds[at]
        return heapq.nlargest(count, (at for at, rate in rates.items() if rate > 0), key=lambda at: rates[at])

    def _points(self, recipes: Sequence[Recipe], volume: Volume) -> NDArray[np.float64]:
        """Losses by tree and recipe, shape (trees, recipes, objectives)."""
        return volume.losses_by_accuracy([self._costs(recipe) for recipe in recipes], self._forest.guesses(recipes))


class Growth:
    """By how much guessed points would enlarge the hypervolume of a front."""

    def __init__(self, front: Sequence[Mapping[str, float]], volume: Volume) -> None:
        self._volume = volume
        self._known = volume.inside(volume.losses_of(front))
        self._before = volume.of_inside(self._known)

    def at_most(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """What each guess adds at most: its box, less what it shares with the known point that shares most; shape (trees, recipes).

        0 where it lies outside the corner, or a known point is nowhere worse.
        """
        own = np.prod(np.maximum(-points, 0.0), axis=2)
        shared = np.prod(np.maximum(-np.maximum(points[:, :, np.newaxis, :], self._known), 0.0), axis=3)
        left: NDArray[np.float64] = own - shared.max(axis=2, initial=0.0)
        return left

    def mean(self, points: NDArray[np.float64], adds: NDArray[np.bool_]) -> float:
        """Growth by all recipes together, of each guess those that add something; the mean over the trees."""
        return math.fsum(self._grown(guess[new]) for guess, new in zip(points, adds, strict=True)) / len(points)

    def _grown(self, added: NDArray[np.float64]) -> float:
        return self._volume.of_inside(np.concatenate([self._known, added])) - self._before if len(added) else 0.0


def _by_rate(most: NDArray[np.float64], seconds: Sequence[float]) -> list[tuple[int, float]]:
    """Recipes that may add something, with what each can add at most per second of its own: the most first."""
    rates = most.mean(axis=0) / np.maximum(seconds, 1e-3)
    return [(int(lowering), float(rates[lowering])) for lowering in np.argsort(-rates) if rates[lowering] > 0]
