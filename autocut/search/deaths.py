"""What the death of a worker says about the recipes of its job."""

from __future__ import annotations

from autocut.recipe import Recipe
from autocut.search.jobs import JobKind
from autocut.search.state import RunningJob, SearchState


def blamed(state: SearchState, ended: RunningJob, unfinished: list[Recipe]) -> list[Recipe]:
    """Return the recipes of a dead worker that must not run again: the one that it worked on, and those that share its training.

    If the worker died during a training, every recipe that needs this training would end in the same way.
    """
    current = ended.recipe
    if current is None:
        return []
    in_training = current.is_trained and current.prefix not in state.trained and current.prefix not in state.trained_on_disk
    return [recipe for recipe in unfinished if recipe == current or (in_training and recipe.prefix == current.prefix)]


def waited_s(state: SearchState, ended: RunningJob, now: float) -> float:
    """Seconds of the recipe of `ended` in which another job finalized: that holds the machine, and the recipe may have waited."""
    began = ended.recipe_started
    if began is None:
        return 0.0
    still = [
        (other.recipe_started, now)
        for other in state.running.values()
        if other is not ended and other.job.kind == JobKind.FINALIZE and other.recipe_started is not None
    ]
    covered, until = 0.0, began
    for start, end in sorted([*state.finalizations, *still]):
        covered += max(0.0, min(end, now) - max(start, until))
        until = max(until, end)
    return covered
