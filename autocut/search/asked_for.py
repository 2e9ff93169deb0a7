"""What the user asked for and cannot have: recipes that do not run, limits that no model keeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from autocut.budget import format_duration
from autocut.errors import InputError
from autocut.recipe import Recipe
from autocut.score import check_shares
from autocut.search.estimates import recipe_s
from autocut.search.jobs import RecipeFailed, WorkerFault
from autocut.search.lowerings import affordable_lowerings
from autocut.search.progress import Progress
from autocut.search.state import SearchState


class AskedFor:
    """Tells why user recipes do not run, in the lines of `progress`."""

    def __init__(self, state: SearchState, progress: Progress) -> None:
        self._state = state
        self._progress = progress
        self._told: set[Recipe] = set()

    def impossible(self, recipes: Sequence[Recipe]) -> Iterator[RecipeFailed]:
        """Yield how those fail that cannot run; tell of one that is only too slow for this budget: it may be asked for again."""
        state = self._state
        for recipe in recipes:
            if recipe in state.settings.user_recipes and not state.has_result(recipe) and (off := state.switched_off.why(recipe)):
                self._tell_once(recipe, f"{off} is switched off, because it never worked in this study")
            is_affordable = recipe.lowering in affordable_lowerings(state)
            if recipe not in state.settings.user_recipes or state.is_settled(recipe) or is_affordable:
                continue
            dtype, mode = recipe.lowering
            if recipe.lowering in state.settings.graphs:
                takes = f"{mode} takes {state.planner.lowering_s(recipe.lowering):.0f} s"
                self._progress.lines.append(f"not run: {recipe.describe()}: {takes}, too long for this budget")
            else:
                why = state.settings.impossible.get(recipe.lowering, "autocut methods says why")
                yield RecipeFailed(recipe, "infeasible", f"{dtype} with {mode} cannot run on this machine: {why}")

    def wrong_limit(self) -> WorkerFault | None:
        """Return the fault of a limit such as 95 on a metric that turns out to be a share: no model could keep it."""
        untouched = self._state.untouched_metric
        try:
            if untouched is not None and 0 <= untouched <= 1:
                check_shares(self._state.settings.limits)
        except InputError as error:
            return WorkerFault(error.message, error.hint)
        return None

    def tell_too_long(self, recipes: Sequence[Recipe], left_s: float) -> None:
        """Tell of those that take longer than the `left_s` seconds that are left for the search."""
        for recipe in recipes:
            if recipe in self._state.settings.user_recipes:
                takes, left = format_duration(recipe_s(self._state, recipe)), format_duration(max(0.0, left_s))
                self._tell_once(recipe, f"it takes about {takes}, and {left} is left")

    def _tell_once(self, recipe: Recipe, why: str) -> None:
        if recipe not in self._told:
            self._told.add(recipe)
            self._progress.lines.append(f"not run: {recipe.describe()}: {why}")
