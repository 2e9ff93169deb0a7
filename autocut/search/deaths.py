"""What the death of a worker says about the recipes of its job."""

from __future__ import annotations

from autocut.recipe import Recipe
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
