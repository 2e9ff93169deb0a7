"""Which prefix a training stage has trained: that of its recipe, or one that the recipe starts from.

A worker reports its stages by the recipe that it works on. Their seconds belong to the model that was trained: a parent of
iterative pruning is wider, and what is cut after its training was trained whole.
"""

from __future__ import annotations

from autocut.recipe import Recipe
from autocut.search.jobs import StageRan


class StageTrainings:
    """The trained prefix of each key of a training stage."""

    def __init__(self) -> None:
        self.on_disk: set[Recipe] = set()
        """Prefixes whose training ended in this session, measured or not."""
        self._by_key: dict[str, Recipe] = {}

    def take_in(self, stage: StageRan, recipe: Recipe) -> Recipe:
        """Return what `trained_by` does, of a stage that has just ended."""
        trained = self.trained_by(stage, recipe)
        if stage.stage == "train":
            self.on_disk.add(trained)
        return trained

    def trained_by(self, stage: StageRan, recipe: Recipe) -> Recipe:
        """Return the prefix that `stage`, reported of `recipe`, has trained; the prefix of `recipe` where it has trained none.

        The trainings of a recipe are reported in their order, each under its own key, from the cache too.
        """
        if stage.stage != "train":
            return recipe.prefix
        if stage.key not in self._by_key:
            known = set(self._by_key.values())
            self._by_key[stage.key] = next((one for one in recipe.trainings if one not in known), recipe.prefix)
        return self._by_key[stage.key]
