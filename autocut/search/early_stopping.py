"""When to stop a training: at its known cost, even an optimistic end would not reach the front.

The cost of a recipe is known before it is trained. So the accuracy that it needs is known too: more than every finished recipe that
costs no more. The finished trainings of the study show how much a training can still gain. Both together give a floor for each
rung. The floors go with the job, so the worker decides alone.

Measured on a synthetic compression objective (FACTS section 7): a rule of this kind saves about a third of the epochs. A stop by
accuracy alone is worse than no stop, because it stops the cheap models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from autocut.recipe import Recipe
from autocut.search.dominance import needed_accuracy
from autocut.search.state import SearchState

_IN_VAIN = 16
"""After so many stopped trainings in a row, the search stops no more of them."""

Floors = Mapping[Recipe, tuple[float, ...]]
"""By prefix: the metric that the training must show at each rung before the last to go on."""
StoppingRule = Callable[[SearchState, Sequence[Recipe]], Floors]


def floors(state: SearchState, recipes: Sequence[Recipe]) -> dict[Recipe, tuple[float, ...]]:
    """Return the floors of the trainings that `recipes` need; a prefix that is trained already has none."""
    if not state.settings.tactics.early_stopping or state.is_relaxed:
        return {}
    siblings: dict[Recipe, list[Recipe]] = {}
    for recipe in recipes:
        if recipe.is_trained and recipe.prefix not in state.trained:
            siblings.setdefault(recipe.prefix, []).append(recipe)
    return {
        prefix: state.curves.floors(needed_accuracy(state, of_prefix), int(prefix["train.epochs"]))
        for prefix, of_prefix in siblings.items()
    }


def are_in_vain(state: SearchState) -> bool:
    """Whether many trainings in a row were stopped: their first epochs do not show what is still better."""
    return state.stopped_in_a_row >= _IN_VAIN
