"""Which numbers of epochs fit the budget."""

from __future__ import annotations

from autocut.recipe import Recipe
from autocut.search.state import SearchState
from autocut.space import axis_values


def ladder(state: SearchState) -> tuple[int, ...]:
    """Return the space's numbers of epochs that fit the budget."""
    return state.planner.ladder(_of_space(state), state.settings.budget_s, state.settings.workers)


def too_long(state: SearchState) -> tuple[int, ...]:
    """Return the space's numbers of epochs that do not fit the budget."""
    fitting = ladder(state)
    return tuple(epochs for epochs in _of_space(state) if epochs > 0 and epochs not in fitting)


def on_ladder(state: SearchState, recipe: Recipe) -> Recipe:
    """Return `recipe`; if its training is too long, with the most epochs that fit."""
    if int(recipe["train.epochs"]) not in too_long(state):
        return recipe
    return Recipe({**recipe, "train.epochs": max(ladder(state))})


def _of_space(state: SearchState) -> tuple[int, ...]:
    axis = state.settings.space.axis("train.epochs")
    return tuple(sorted(int(value) for value in axis_values(axis))) if axis else ()
