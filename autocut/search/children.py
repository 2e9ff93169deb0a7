"""Iteratively pruned children: recipes that start from the weights of a less pruned, trained parent."""

from __future__ import annotations

from autocut.recipe import PARENT_RATIO, Recipe
from autocut.search.state import SearchState, family


def child_of_known(state: SearchState, recipe: Recipe) -> Recipe | None:
    """Return `recipe` as a child of the most pruned prefix that is trained and differs only in its ratio; None without one."""
    inheritance = state.settings.tactics.inheritance
    if not inheritance or recipe.parent is not None or "prune.ratio" not in recipe or not recipe.is_trained:
        return None
    smaller = [ratio for ratio in state.trained_ratios.get(family(recipe.prefix), ()) if ratio < float(recipe["prune.ratio"])]
    return Recipe({**recipe, PARENT_RATIO: max(smaller)}) if smaller else None


def is_as_wide_as_its_parent(state: SearchState, recipe: Recipe) -> bool:
    """Whether a child has the structure of its parent, because ratios are rounded to whole channels."""
    if recipe.parent is None:
        return False
    pairs = [(recipe.with_lowering(*lowering), recipe.parent.with_lowering(*lowering)) for lowering in state.settings.graphs]
    return any(state.costs.is_known(own) and state.costs.predict(own) == state.costs.predict(parent) for own, parent in pairs)
