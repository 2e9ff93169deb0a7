"""The space's anchors, as they suit models like this one: another pruner where similar models fared better, the best first.

A shipped space has the same anchors for every model. What pruners did to similar models (`first_guesses`) says which of them is
worth the first trainings: channels of a convolutional network, heads and neurons of a transformer.
"""

from __future__ import annotations

import math

from autocut.recipe import UNTOUCHED, Recipe
from autocut.search.estimates import ExpectedCost, recipe_s
from autocut.search.state import SearchState

_CLEARLY_BETTER = 1.25
"""A pruner takes the place of another one if its guessed gain is this many times as large: the guesses are of other models."""
_USUAL_RATIO = 0.5
"""The ratio at which pruners were compared."""
_UNKNOWN_KEPT = 0.7
"""What is kept of the accuracy, where nothing is known of the pruner."""


def suited_anchors(state: SearchState) -> list[Recipe]:
    """Return the anchors of the space. Those without a training keep their place, and so do students.

    Where nothing is known of similar models, they are as the space has them.
    """
    if state.first_guesses.nearest() is None:
        return list(state.settings.space.anchors)
    anchors = [_with_best_pruner(state, anchor) for anchor in state.settings.space.anchors]
    cost = ExpectedCost(state)
    movable = [anchor for anchor in anchors if anchor.is_trained and anchor.student is None]
    ranked = iter(sorted(movable, key=lambda anchor: -_promise(state, cost, anchor)))
    return [next(ranked) if anchor in movable else anchor for anchor in anchors]


def _with_best_pruner(state: SearchState, anchor: Recipe) -> Recipe:
    """Return `anchor` with the pruner that brought the most to the most similar model, if that is clearly more.

    No guess knows what zeros save in an archive: where that is an objective, the anchor stays.
    """
    own, guesses = str(anchor["prune.method"]), state.first_guesses
    nearest = guesses.nearest()
    if nearest is None or not anchor.changes("prune.method") or "compressed_size_bytes" in state.settings.objectives:
        return anchor
    gains = {
        method: guess.gain
        for method in nearest.effects.get("recover", {})
        if (guess := guesses.of("recover", method)) is not None and _is_possible(state, anchor, method)
    }
    best = max(gains, key=lambda method: gains[method], default=own)
    if own not in gains or gains[best] <= _CLEARLY_BETTER * max(gains[own], 0.0):
        return anchor
    return Recipe({**anchor, "prune.method": best})


def _is_possible(state: SearchState, anchor: Recipe, method: str) -> bool:
    """Whether the space has the anchor with this pruner, and the pruner has not failed here whenever it was tried."""
    tried = [recipe for recipe in (*state.finished, *state.infeasible) if recipe["prune.method"] == method]
    has_failed = bool(tried) and all(recipe in state.infeasible for recipe in tried)
    return not has_failed and state.settings.space.contains(Recipe({**anchor, "prune.method": method}))


def _promise(state: SearchState, cost: ExpectedCost, anchor: Recipe) -> float:
    """How many times cheaper `anchor` is expected to be, as a logarithm, times what it will keep, per second of its training."""
    untouched, expected = state.finished.get(UNTOUCHED, {}), cost(anchor)
    saved = [
        math.log(untouched[name] / expected[name])
        for name in state.settings.cost_metrics
        if expected.get(name) and untouched.get(name)
    ]
    return _kept(state, anchor) * math.fsum(saved) / max(recipe_s(state, anchor), 1.0)


def _kept(state: SearchState, anchor: Recipe) -> float:
    """What similar models kept of their accuracy; a loss grows with the square of the ratio."""
    guess = state.first_guesses.of("recover", str(anchor["prune.method"]))
    lost = 1 - (_UNKNOWN_KEPT if guess is None else guess.kept)
    return max(1 - lost * (float(anchor.get("prune.ratio", 0.0)) / _USUAL_RATIO) ** 2, 0.0)
