"""Which recipes cannot reach the front at their known cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autocut.recipe import Recipe
from autocut.search.state import SearchState

_RELAXED_GAIN = 0.01
"""Once the search is relaxed, a model may be this share more accurate than the best one so far."""


def is_beaten(state: SearchState, recipe: Recipe) -> bool:
    """Whether `recipe` breaks a limit on cost, or the front beats it even in its best case."""
    settings, cost = state.settings, state.costs.predict(recipe)
    if not state.finished or cost is None or not settings.tactics.cost_first:
        return False
    if any(limit.name in cost and limit.violation(cost) > 0 for limit in settings.limits):
        return True
    if recipe.is_trained and "train_usd" in settings.objectives:
        return False  # such a search asks how accurate a cheap training can be
    return state.front.beats({**cost, **_best_case(state), "train_usd": 0.0})


def needed_accuracy(state: SearchState, recipes: Sequence[Recipe]) -> float:
    """Return the lowest accuracy with which one of `recipes` reaches the front at its known cost; -inf where that is unknown."""
    if "train_usd" in state.settings.objectives:
        return -math.inf
    return min((_needed(state, recipe) for recipe in recipes), default=-math.inf)


def _best_case(state: SearchState) -> dict[str, float]:
    best = dict(state.best_seen)
    if "accuracy" in best and state.is_relaxed:
        best["accuracy"] += _RELAXED_GAIN * abs(best["accuracy"])
    return best


def _needed(state: SearchState, recipe: Recipe) -> float:
    cost = state.costs.predict(recipe)
    if cost is None:
        return -math.inf
    no_dearer = [
        values["accuracy"]
        for values in state.front.values.values()
        if all(values[name] <= cost[name] for name in state.settings.cost_metrics)
    ]
    bounds = [limit.bound for limit in state.settings.limits if limit.name == "accuracy"]
    return max([*no_dearer, *bounds], default=-math.inf)
