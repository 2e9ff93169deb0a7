"""Estimates: seconds that recipes will take, numbers of epochs that fit the budget, and what a recipe will probably cost."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Collection, Sequence

from autocut.recipe import UNTOUCHED, Recipe
from autocut.search.jobs import Job, JobKind
from autocut.search.state import SearchState
from autocut.space import axis_values

_RECENT = 25
"""Finished recipes that give the price of a second of training."""


def recipe_s(state: SearchState, recipe: Recipe) -> float:
    """Seconds that `recipe` will take by itself; a prefix that is trained already costs nothing."""
    return training_s(state, recipe) + state.planner.lowering_s(recipe.lowering, state.costs.is_known(recipe))


def training_s(state: SearchState, recipe: Recipe, made: Collection[Recipe] = ()) -> float:
    """Seconds of the trainings that `recipe` needs; those that are done, or `made` before it, take none."""
    new = (training for training in recipe.trainings if training not in state.trained and training not in made)
    return math.fsum(map(state.planner.train_s, new))


def is_worth_training_elsewhere(state: SearchState, job: Job, is_free: bool) -> bool:
    """Whether another node is to train for `job`. `is_free` says that a node is free which can run all of it.

    Then the trainings must take longer than the start of one more process. Else they only have to be some.
    """
    if job.kind is not JobKind.MEASURE:
        return False
    new = {training for recipe in job.recipes for training in recipe.trainings} - state.trained
    seconds = math.fsum(map(state.planner.train_s, new))
    return seconds > (state.planner.process_s() if is_free else 0.0)


def seconds_each(state: SearchState, recipes: Sequence[Recipe]) -> list[float]:
    """Seconds of each of `recipes`, run one after the other.

    The first recipe of a training pays for it, the first of a prefix and a mode for the conversion that the mode's dtypes share.
    """
    modes = defaultdict[Recipe, set[str]](set)
    made: set[Recipe] = set()
    seconds = []
    for recipe in recipes:
        converted, cost_is_known = modes[recipe.prefix], state.costs.is_known(recipe)
        lowering_s = state.planner.lowering_s(recipe.lowering, cost_is_known, is_converted=recipe.lowering[1] in converted)
        seconds.append(training_s(state, recipe, made) + lowering_s)
        converted.add(recipe.lowering[1])
        made.update(recipe.trainings)
    return seconds


def total_s(state: SearchState, recipes: Sequence[Recipe]) -> float:
    """Seconds that `recipes` take one after the other."""
    return math.fsum(seconds_each(state, recipes))


def fitting(state: SearchState, recipes: Sequence[Recipe], left_s: float) -> tuple[Recipe, ...]:
    """Return the first of `recipes` that fit into `left_s` seconds; none if the first one does not fit."""
    ends = itertools.accumulate(seconds_each(state, recipes))
    return tuple(recipe for recipe, end in zip(recipes, ends, strict=True) if end < left_s)


def ladder(state: SearchState, recipe: Recipe = UNTOUCHED) -> tuple[int, ...]:
    """Return the space's numbers of epochs that fit the budget for a training of the cut of `recipe`."""
    return state.planner.ladder(_of_space(state), state.settings.budget_s, state.settings.workers, recipe)


def too_long(state: SearchState, recipe: Recipe = UNTOUCHED) -> tuple[int, ...]:
    """Return the space's numbers of epochs that do not fit the budget for a training of the cut of `recipe`."""
    fitting = ladder(state, recipe)
    return tuple(epochs for epochs in _of_space(state) if epochs > 0 and epochs not in fitting)


def is_too_long(state: SearchState, recipe: Recipe) -> bool:
    """Whether the training of `recipe` has too many epochs for the budget."""
    return int(recipe["train.epochs"]) in too_long(state, recipe) and int(recipe["train.epochs"]) > _granted(state, recipe)


def on_ladder(state: SearchState, recipe: Recipe) -> Recipe:
    """Return `recipe`; if its training is too long, with the most epochs that fit."""
    if not is_too_long(state, recipe):
        return recipe
    granted = [epochs for epochs in too_long(state, recipe) if epochs <= _granted(state, recipe)]
    return Recipe({**recipe, "train.epochs": max([*ladder(state, recipe), *granted])})


def _granted(state: SearchState, recipe: Recipe) -> int:
    """Epochs that `recipe` may have in any case: a student learns from nothing, so as many as the untouched model had."""
    return 0 if recipe.student is None else state.untouched_epochs or 0


class ExpectedCost:
    """Costs of recipes, measured or guessed. It remembers the price of a predicted second of training until a recipe finishes."""

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
        return self._state.finished.get(UNTOUCHED, {}).get("train_usd", 0.0) if recipe.starts_trained else 0.0

    def _lineage_train_s(self, recipe: Recipe) -> float:
        """Seconds of the trainings of `recipe`, whether or not they are done."""
        return math.fsum(map(self._state.planner.train_s, recipe.trainings))

    def _price_of_training(self) -> float:
        """USD per predicted second of training: what is charged are CPU seconds, what the planner predicts is wall time."""
        spent = [
            (values["train_usd"] - self._untouched_usd(recipe)) / seconds
            for recipe, values in itertools.islice(reversed(self._state.finished.items()), _RECENT)
            if recipe.is_trained and (seconds := self._lineage_train_s(recipe)) > 0
        ]
        return statistics.median(spent) if spent else 0.0


def _of_space(state: SearchState) -> tuple[int, ...]:
    axis = state.settings.space.axis("train.epochs")
    return tuple(sorted(int(value) for value in axis_values(axis))) if axis else ()
