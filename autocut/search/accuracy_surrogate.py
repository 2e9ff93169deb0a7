"""The accuracy surrogate: guesses of how accurate a recipe will be, from what the study has measured.

References:
    Hutter et al. 2011, SMAC (forests over mixed and conditional settings), https://doi.org/10.1007/978-3-642-25566-3_40
    MacKay 1992, Bayesian interpolation (the linear model and the uncertainty of its weights), https://doi.org/10.1162/neco.1992.4.3.415
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.linear_model import BayesianRidge
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from autocut.recipe import LOWERING_STAGES, PARENT_RATIO, Recipe
from autocut.space import Space

FEWEST = 8
"""Measured graphs before the surrogate guesses."""
_TREES = 16
_MOST = 300
"""Measurements that the models are fitted to: the latest of a long search."""
_STALE = 1.02
"""The models are fitted anew when the known measurements are this many times those of the last fit."""
_FEWEST_OF_A_KIND = 4
"""Measurements of a kind of models before they get a model of their own."""
_Kind = tuple[bool, bool]
"""Whether a model was trained, and whether it was cut after that."""


class AccuracySurrogate:
    """Accuracy by recipe: a Bayesian linear model, and `_TREES` trees on what it leaves, each with a draw of its weights.

    The linear model knows that settings add up, and that they matter more where more was pruned. A few trainings tell it what a
    learning rate or a teacher brings at every ratio. The trees learn the rest. Models that a training ends, only pruned models and
    those that are pruned after their training behave differently, so each kind has a model of its own.
    """

    def __init__(self, space: Space, graph: Callable[[Recipe], str], seed: int) -> None:
        self._space = space
        self._graph = graph
        self._seed = seed
        self._rows: dict[tuple[Recipe, str], tuple[Recipe, float]] = {}
        self._graphs: dict[str, int] = {}
        self._models: dict[_Kind, _Model] = {}
        self._fitted: list[tuple[Recipe, float]] = []
        self._of_rows, self._of_graphs = 0, 0

    def learn(self, recipe: Recipe, accuracy: float) -> None:
        """Take in a measured accuracy; recipes of one prefix and one quantized graph share it."""
        graph = self._graph(recipe)
        self._graphs.setdefault(graph, len(self._graphs))
        self._rows[recipe.prefix, graph] = recipe, accuracy

    def is_ready(self) -> bool:
        """Whether enough was measured to guess."""
        return len(self._rows) >= FEWEST

    def guesses(self, recipes: Sequence[Recipe]) -> NDArray[np.float64]:
        """Return accuracies, shape (trees, recipes)."""
        self._forget_stale()
        features = np.array([self._features(recipe) for recipe in recipes])
        kinds = [_kind(recipe) for recipe in recipes]
        guessed = np.empty((_TREES, len(recipes)))
        for kind in dict.fromkeys(kinds):
            chosen = [at for at, one in enumerate(kinds) if one == kind]
            guessed[:, chosen] = self._model(kind).guesses(features[chosen])
        return guessed

    def _forget_stale(self) -> None:
        if len(self._rows) <= self._of_rows * _STALE and len(self._graphs) == self._of_graphs:
            return
        self._models.clear()
        self._fitted = list(self._rows.values())[-_MOST:]
        self._of_rows, self._of_graphs = len(self._rows), len(self._graphs)

    def _model(self, kind: _Kind) -> _Model:
        if kind not in self._models:
            own = [row for row in self._fitted if _kind(row[0]) == kind]
            chosen = own if len(own) >= _FEWEST_OF_A_KIND else self._fitted
            features = np.array([self._features(recipe) for recipe, _ in chosen])
            self._models[kind] = _Model(features, np.array([accuracy for _, accuracy in chosen]), self._seed)
        return self._models[kind]

    def _features(self, recipe: Recipe) -> list[float]:
        """The ratio first, then every setting of the prefix, then the graph; named choices have one column each."""
        row: list[float] = [float(recipe.get("prune.ratio", 0.0)), float(recipe.get(PARENT_RATIO, -1.0))]
        for axis in self._space.axes:
            if axis.name.partition(".")[0] in LOWERING_STAGES or axis.name == "prune.ratio":
                continue
            value = recipe.get(axis.name)
            if axis.choices and any(isinstance(choice, str) for choice in axis.choices):
                row += [float(value == choice) for choice in axis.choices]
            else:
                number = -1.0 if value is None else float(value)
                row.append(math.log(number) if axis.log and number > 0 else number)
        own = self._graph(recipe)
        return row + [float(own == graph) for graph in self._graphs]


def _kind(recipe: Recipe) -> _Kind:
    return recipe.is_trained, recipe.prunes_last


class _Model:
    """Accuracies of one kind of models, from features whose first column is the prune ratio."""

    def __init__(self, features: NDArray[np.float64], accuracies: NDArray[np.float64], seed: int) -> None:
        self._scaler = StandardScaler().fit(_with_products(features))
        scaled = self._scaler.transform(_with_products(features))
        draws = np.random.default_rng(seed).standard_normal((_TREES, scaled.shape[1]))
        with threadpool_limits(1):  # the workers use the cores: threads that wait for one another take twenty times as long
            linear = BayesianRidge().fit(scaled, accuracies)
            values, vectors = np.linalg.eigh(linear.sigma_)
        self._weights = linear.coef_ + draws @ (vectors * np.sqrt(np.maximum(values, 0.0))).T
        self._intercept = float(linear.intercept_)
        rest = accuracies - linear.predict(scaled)
        forest = ExtraTreesRegressor(_TREES, bootstrap=True, min_samples_leaf=2, random_state=seed)
        self._trees = forest.fit(features.astype(np.float32), rest).estimators_

    def guesses(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return accuracies, shape (trees, recipes)."""
        scaled = self._scaler.transform(_with_products(features))
        rest = np.stack([tree.tree_.predict(features.astype(np.float32)).reshape(-1) for tree in self._trees])
        guessed: NDArray[np.float64] = self._weights @ scaled.T + self._intercept + rest
        return guessed


def _with_products(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """The features, and each of them times the ratio."""
    return np.hstack([features, features * features[:, :1]])
