"""Prune ratios that give the same model, because a cut removes whole blocks, heads or channels.

Of four blocks, `depth` removes three for every ratio from 0.63 to 0.95. What was measured for one of them need not be measured for
another: it would be the same point again, train the same model again, and take a look at the test split again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict

from autocut.recipe import RATIO, Recipe

_Pruner = tuple[str, Recipe | None, bool]
"""A pruning method, and the weights that it cuts: of a trained parent, or of the untouched model, trained or as they are built."""
_TOLD_APART = 0.01
"""A structure counts zeros in hundredths, so that two nearer ratios of unstructured zeros may look like one cut."""


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
        alike = (ratio for ratio, of_ratio in known.items() if of_ratio == structure and abs(ratio - own) > _TOLD_APART)
        return [Recipe({**recipe, RATIO: ratio}) for ratio in alike]

    def twins(self, recipe: Recipe) -> list[Recipe]:
        """Return `recipe` with each other ratio that is known to give the same cut.

        A ratio between two that give one structure gives it too: a larger ratio never removes less.
        """
        if RATIO not in recipe:
            return []
        known = self._structures.get(_pruner(recipe), {})
        structure = known.get(float(recipe[RATIO])) or self._between(recipe)
        return self.measured_twins(recipe, structure) if structure else []

    def _between(self, recipe: Recipe) -> str:
        """The structure of a ratio that was not measured; empty where its neighbours have not the same one."""
        pruner, ratio = _pruner(recipe), float(recipe[RATIO])
        known = self._structures.get(pruner, {})
        ratios = self._ratios.setdefault(pruner, sorted(known))
        at = bisect_left(ratios, ratio)
        if not 0 < at < len(ratios):
            return ""
        below, above = ratios[at - 1], ratios[at]
        return known[below] if known[below] == known[above] and above - below > _TOLD_APART else ""


def _pruner(recipe: Recipe) -> _Pruner:
    return str(recipe["prune.method"]), recipe.parent, recipe.starts_trained
