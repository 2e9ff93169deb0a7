"""What is still worth running of a planned job when a worker becomes free."""

from __future__ import annotations

from dataclasses import dataclass

from autocut.budget import format_duration
from autocut.recipe import Recipe
from autocut.search.dominance import is_beaten
from autocut.search.durations import fitting, recipe_s
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


def why_infeasible(state: SearchState, recipe: Recipe) -> str | None:
    """Say why this machine cannot run the lowering of `recipe`; None where it can."""
    if recipe.lowering in state.settings.graphs:
        return None
    dtype, mode = recipe.lowering
    return f"{dtype} with {mode} cannot run on this machine; see: autocut methods"


def slow_lowering_line(state: SearchState, recipe: Recipe) -> str:
    """Say that the lowering of a user's recipe takes too much of the budget."""
    takes = f"{recipe.lowering[1]} takes {state.planner.lowering_s(recipe.lowering):.0f} s"
    return f"not run: {recipe.describe()}: {takes}, too long for this budget"


def late_line(state: SearchState, recipe: Recipe, left_s: float) -> str:
    """Say that a user's recipe does not fit into the time that is left."""
    takes = format_duration(recipe_s(state, recipe))
    return f"not run: {recipe.describe()}: it takes about {takes}, and {format_duration(max(0.0, left_s))} is left"


def blamed(state: SearchState, ended: RunningJob, unfinished: list[Recipe]) -> list[Recipe]:
    """Return the recipes of a dead worker that must not run again: the one that it worked on, and those that share its training.

    If the worker died during a training, every recipe that needs this training would end in the same way.
    """
    current = ended.recipe
    if current is None:
        return []
    in_training = current.is_trained and current.prefix not in state.trained and current.prefix not in state.trained_on_disk
    return [recipe for recipe in unfinished if recipe == current or (in_training and recipe.prefix == current.prefix)]
