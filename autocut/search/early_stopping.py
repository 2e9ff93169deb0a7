"""What cannot reach the front: a recipe is not run, or its training is stopped, where even an optimistic end would be beaten.

The cost of a recipe is known before it is trained. So the accuracy that it needs is known too: more than every finished recipe that
costs no more. The finished trainings of the study show how much a training can still gain. Both together give a floor for each
rung. The floors go with the job, so the worker decides alone.

Measured on a synthetic compression objective (FACTS section 7): a rule of this kind saves about a third of the epochs. A stop by
accuracy alone is worse than no stop, because it stops the cheap models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from autocut.recipe import Recipe
from autocut.search.state import SearchState

_RELAXED_GAIN = 0.01
"""Once the search is relaxed, a model may be this share more accurate than the best one so far."""
_IN_VAIN = 16
"""After so many stopped trainings in a row, the search stops no more of them."""

Floors = Mapping[Recipe, tuple[float, ...]]
"""By prefix: the metric that the training must show at each rung before the last to go on."""
StoppingRule = Callable[[SearchState, Sequence[Recipe]], Floors]


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


def floors(state: SearchState, recipes: Sequence[Recipe]) -> dict[Recipe, tuple[float, ...]]:
    """Return the floors of the trainings that `recipes` need; a prefix that is trained already has none.

    Nor has a student: it learns from nothing, and the other trainings do not show how late that may succeed. Nor has a training
    whose model is cut after it: what it is worth shows after the cut, and other cuts will need it too.
    """
    if not state.settings.tactics.early_stopping or state.is_relaxed:
        return {}
    siblings: dict[Recipe, list[Recipe]] = {}
    for recipe in recipes:
        if recipe.is_trained and recipe.student is None and recipe.prefix not in state.trained:
            siblings.setdefault(recipe.prefix, []).append(recipe)
    cut_later = {training for recipe in recipes for training in recipe.trainings if training != recipe.prefix}
    return {
        prefix: state.curves.floors(_needed_accuracy(state, of_prefix), int(prefix["train.epochs"]))
        for prefix, of_prefix in siblings.items()
        if prefix in of_prefix[0].trainings and prefix not in cut_later
    }


def are_in_vain(state: SearchState) -> bool:
    """Whether many trainings in a row were stopped: their first epochs do not show what is still better."""
    return state.stopped_in_a_row >= _IN_VAIN


def _needed_accuracy(state: SearchState, recipes: Sequence[Recipe]) -> float:
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
    return max([*no_dearer, state.least_accuracy])
