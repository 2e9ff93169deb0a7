"""What the death of a worker says about the recipes of its job."""

from __future__ import annotations

from collections import Counter

from autocut.budget import format_duration
from autocut.recipe import Recipe
from autocut.search.state import RunningJob, SearchState

_MOST_LOSSES = 3
"""A recipe that loses its worker so many times is blamed after all: what kills it from outside may be what it does."""
_HEARD_LATE_S = 5.0
"""A worker may have begun a recipe so much earlier than the search has heard of it."""


class LostWorkers:
    """Counts how often each recipe has lost its worker through no fault of its own."""

    def __init__(self) -> None:
        self._counts: Counter[Recipe] = Counter()

    def may_run_again(self, ended: RunningJob) -> bool:
        """Count one more loss of the recipe that the worker of `ended` worked on; return whether it is tried again."""
        recipe = ended.recipe or ended.job.recipes[0]
        self._counts[recipe] += 1
        return self._counts[recipe] < _MOST_LOSSES


def hung(ended: RunningJob, now: float) -> str:
    """Say that the worker of `ended` was stopped because its recipe took too long; nothing if it did not."""
    patience_s = ended.job.patience_s
    if ended.recipe_started is None or now - ended.recipe_started < patience_s - _HEARD_LATE_S:
        return ""
    worked = format_duration(patience_s)  # the worker did not count what it waited for others
    return f"it hung: it was stopped after {worked} of work, eight times what was expected and more"


def blamed(state: SearchState, ended: RunningJob, unfinished: list[Recipe]) -> list[Recipe]:
    """Return the recipes of a dead worker that must not run again: the one that it worked on, and those that share its training.

    If the worker died during a training, every recipe that needs this training would end in the same way.
    """
    current = ended.recipe
    if current is None:
        return []
    done = state.trained | state.stage_trainings.on_disk
    new = next((training for training in current.trainings if training not in done), None)
    return [recipe for recipe in unfinished if recipe == current or new in recipe.trainings]
