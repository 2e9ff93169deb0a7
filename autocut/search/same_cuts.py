"""Prune ratios that give the same model, because a cut removes whole blocks, heads or channels.

Of four blocks, `depth` removes three for every ratio from 0.63 to 0.95. What was measured for one of them need not be measured for
another: it would be the same point again, train the same model again, and take a look at the test split again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict

from autocut.recipe import PARENT_RATIO, RATIO, RATIO_TOLD_APART, Recipe

_Pruner = tuple[str, Recipe | None, bool]
"""A pruning method, and the weights that it cuts: of a trained parent, or of the untouched model, trained or as they are built."""


class SameCuts:
    """Learns the structures that ratios give: which shapes the weights have, and which hundredths of them are zero."""

    def __init__(self) -> None:
        self._structures: defaultdict[_Pruner, dict[float, str]] = defaultdict(dict)
        self._ratios: dict[_Pruner, list[float]] = {}

    def learn(self, recipe: Recipe, structure: str) -> None:
        """Take in the structure of a measured recipe. An empty one is not known; a recipe without a ratio tells nothing."""
        if RATIO in recipe and structure:
            self._structures[_pruner(recipe)][float(recipe[RATIO])] = structure
            self._ratios.pop(_pruner(recipe), None)

    def measured_twins(self, recipe: Recipe, structure: str) -> list[Recipe]:
        """Return `recipe` with each other ratio for which this `structure` was measured."""
        if RATIO not in recipe:
            return []
        known = self._structures.get(_pruner(recipe), {})
        own = float(recipe[RATIO])
        alike = (ratio for ratio, of_ratio in known.items() if of_ratio == structure and abs(ratio - own) > RATIO_TOLD_APART)
        return [Recipe({**recipe, RATIO: ratio}) for ratio in alike]

    def twins(self, recipe: Recipe) -> list[Recipe]:
        """Return `recipe` with each other ratio that is known to give the same cut.

        A ratio between two that give one structure gives it too: a larger ratio never removes less.
        """
        if RATIO not in recipe:
            return []
        structure = self._structure(_pruner(recipe), float(recipe[RATIO]))
        return self.measured_twins(recipe, structure) if structure else []

    def is_as_cut_as_its_parent(self, recipe: Recipe) -> bool:
        """Whether an iteratively pruned child is known to lose nothing more: at once, both ratios give the same cut."""
        if PARENT_RATIO not in recipe:
            return False
        at_once = (str(recipe["prune.method"]), None, recipe.starts_trained)
        own, before = (self._structure(at_once, float(recipe[name])) for name in (RATIO, PARENT_RATIO))
        return bool(own) and own == before

    def _structure(self, pruner: _Pruner, ratio: float) -> str:
        """The structure of a ratio, measured or between two that have the same one; empty where it is not known."""
        known = self._structures.get(pruner, {})
        if ratio in known:
            return known[ratio]
        ratios = self._ratios.setdefault(pruner, sorted(known))
        at = bisect_left(ratios, ratio)
        if not 0 < at < len(ratios):
            return ""
        below, above = ratios[at - 1], ratios[at]
        return known[below] if known[below] == known[above] and above - below > RATIO_TOLD_APART else ""


def _pruner(recipe: Recipe) -> _Pruner:
    return str(recipe["prune.method"]), recipe.parent, recipe.starts_trained
