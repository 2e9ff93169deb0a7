"""What is still worth running of a planned job when a worker becomes free."""

from __future__ import annotations

from dataclasses import dataclass

from autocut.recipe import Recipe
from autocut.search.dominance import is_beaten
from autocut.search.durations import fitting
from autocut.search.jobs import PlannedJob
from autocut.search.lowerings import affordable_lowerings
from autocut.search.state import RunningJob, SearchState


@dataclass(frozen=True)
class Screened:
    """Recipes of a planned job: `fitting` run now, `late` do not fit into the time that is left."""

    fitting: tuple[Recipe, ...]
    late: tuple[Recipe, ...]


def screen(state: SearchState, planned: PlannedJob, left_s: float) -> Screened:
    """Drop the recipes that are settled, running, unaffordable, or beaten (where they may be skipped)."""
    recipes = tuple(
        recipe
        for recipe in planned.recipes
        if not state.is_settled(recipe)
        and not state.is_running(recipe)
        and is_affordable(state, recipe)
        and not (planned.may_skip and is_beaten(state, recipe))
    )
    fits = fitting(state, recipes, left_s)
    return Screened(fits, tuple(recipe for recipe in recipes if recipe not in fits))


def is_affordable(state: SearchState, recipe: Recipe) -> bool:
    """Whether the lowering of `recipe` runs here and does not take too much of the budget."""
    return recipe.lowering in affordable_lowerings(state)


def blamed(state: SearchState, ended: RunningJob, unfinished: list[Recipe]) -> list[Recipe]:
    """Return the recipes of a dead worker that must not run again: the one that it worked on, and those that share its training.

    If the worker died during a training, every recipe that needs this training would end in the same way.
    """
    current = ended.recipe
    if current is None:
        return []
    in_training = current.is_trained and current.prefix not in state.trained and current.prefix not in state.trained_on_disk
    return [recipe for recipe in unfinished if recipe == current or (in_training and recipe.prefix == current.prefix)]
