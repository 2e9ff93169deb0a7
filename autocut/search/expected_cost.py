"""What a recipe will probably cost."""

from __future__ import annotations

import itertools
import statistics

from autocut.recipe import IDENTITY, UNTOUCHED, Recipe
from autocut.search.state import SearchState

_RECENT = 25
"""Finished recipes that give the price of a second of training."""


class ExpectedCost:
    """Costs of recipes, measured or guessed. It remembers the price of a second of training until the next finished recipe."""

    def __init__(self, state: SearchState) -> None:
        self._state = state
        self._usd_per_train_s = 0.0
        self._priced_at = -1

    def __call__(self, recipe: Recipe) -> dict[str, float]:
        """Return the costs of `recipe`: known, interpolated, or guessed from another lowering or structure."""
        costs, finished = self._state.costs, self._state.finished
        cost = costs.predict(recipe) or costs.scaled(recipe) or costs.nearest(recipe) or finished.get(UNTOUCHED, {})
        if "train_usd" not in self._state.settings.objectives:
            return dict(cost)
        if self._priced_at != len(finished):
            self._usd_per_train_s, self._priced_at = self._price_of_training(), len(finished)
        train_usd = self._untouched_usd(recipe) + self._usd_per_train_s * self._lineage_train_s(recipe)
        return {**cost, "train_usd": train_usd}

    def _untouched_usd(self, recipe: Recipe) -> float:
        """Price of training the untouched model, for a recipe that starts from it; 0 where the task brings its weights."""
        starts_from_it = recipe.get("train.start", IDENTITY["train.start"]) == IDENTITY["train.start"]
        return self._state.finished.get(UNTOUCHED, {}).get("train_usd", 0.0) if starts_from_it else 0.0

    def _lineage_train_s(self, recipe: Recipe) -> float:
        """Seconds of the trainings of `recipe` and of its parent."""
        planner = self._state.planner
        return planner.train_s(recipe) + (0.0 if recipe.parent is None else planner.train_s(recipe.parent))

    def _price_of_training(self) -> float:
        """USD per second of training."""
        spent = [
            (values["train_usd"] - self._untouched_usd(recipe)) / seconds
            for recipe, values in itertools.islice(reversed(self._state.finished.items()), _RECENT)
            if recipe.is_trained and (seconds := self._lineage_train_s(recipe)) > 0
        ]
        return statistics.median(spent) if spent else 0.0
