"""What the death of a worker says about the recipes of its job: which of them failed, and which run again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from autocut.budget import format_duration
from autocut.recipe import Recipe
from autocut.search.jobs import JobKind, PlannedJob, RecipeFailed, WorkerFault
from autocut.search.memory import MemoryWatch
from autocut.search.state import RunningJob, SearchState

_FAILED_STARTS = 3
"""Worker processes in a row that may die before they begin a recipe."""
_MOST_LOSSES = 3
"""A recipe that loses its worker so many times is blamed after all: what kills it from outside may be what it does."""
_HEARD_LATE_S = 5.0
"""A worker may have begun a recipe so much earlier than the search has heard of it."""


@dataclass(frozen=True)
class Verdict:
    """What follows from a death: the recipes that failed, what runs again, a fault that ends the search, a line for people."""

    failed: tuple[RecipeFailed, ...] = ()
    again: PlannedJob | None = None
    fault: WorkerFault | None = None
    line: str = ""


class Deaths:
    """Judges the deaths of workers. It remembers what each recipe has lost, and how many processes in a row never began one."""

    def __init__(self, state: SearchState, memory: MemoryWatch) -> None:
        self._state = state
        self._memory = memory
        self._losses: Counter[Recipe] = Counter()
        self._failed_starts = 0

    def forget_failed_starts(self) -> None:
        """Take in that a worker has ended by itself: processes do start here."""
        self._failed_starts = 0

    def judge(self, ended: RunningJob, unfinished: Sequence[Recipe], error: str, now: float, *, is_blameless: bool) -> Verdict:
        """Return what follows from the death of a worker.

        Args:
            ended: What it had to do.
            unfinished: Recipes of its job that have no result.
            error: How it died.
            now: A reading of the budget's clock.
            is_blameless: Something else than its job ended it. Then no recipe is blamed, unless it is lost again and again.
        """
        if out_of_memory := self._memory.ran_out(len(self._state.running) + 1):
            is_blameless = is_blameless and bool(self._state.running)  # alone, it needs more than there is
        error = out_of_memory or hung(ended, now) or error
        if not (is_blameless and self._may_run_again(ended)):
            return self._blame(ended, unfinished, error)
        line = f"again: {(ended.recipe or ended.job.recipes[0]).describe()}: {error}"
        return Verdict(again=_rest(ended, unfinished), line=line)  # what else it did is asked for again by itself

    def _may_run_again(self, ended: RunningJob) -> bool:
        """Count one more loss of the recipe that the worker worked on; return whether it is tried again."""
        recipe = ended.recipe or ended.job.recipes[0]
        self._losses[recipe] += 1
        return self._losses[recipe] < _MOST_LOSSES

    def _blame(self, ended: RunningJob, unfinished: Sequence[Recipe], error: str) -> Verdict:
        """Blame the recipe that the worker worked on, and run the others again; a worker that never began blames no recipe."""
        job, current = ended.job, ended.recipe
        self._failed_starts = 0 if current else self._failed_starts + 1
        failed: list[Recipe] = []
        if job.kind is JobKind.FINALIZE and current is not None and current not in self._state.finalized:
            failed = [current]
        elif job.kind is JobKind.MEASURE:
            failed = blamed(self._state, ended, unfinished)
        again = _rest(ended, [recipe for recipe in unfinished if recipe not in failed])
        return Verdict(tuple(RecipeFailed(recipe, "failed", error) for recipe in failed), again, self._fault(ended, error))

    def _fault(self, ended: RunningJob, error: str) -> WorkerFault | None:
        """What ends the search: the untouched model cannot be measured, or no process starts."""
        if ended.job.kind is JobKind.BASELINE and ended.is_up:
            return WorkerFault(f"the untouched model must run and be measured, but its process died: {error}", "autocut check")
        if self._failed_starts >= _FAILED_STARTS:
            died = f"a worker process must start, but {self._failed_starts} in a row died at once"
            return WorkerFault(died, "autocut check; is memory free?")
        return None


def hung(ended: RunningJob, now: float) -> str:
    """Say that the worker of `ended` was stopped because its recipe took too long; nothing if it did not."""
    patience_s = ended.job.patience_s
    if ended.recipe_started is None or now - ended.recipe_started < patience_s - _HEARD_LATE_S:
        return ""
    worked = format_duration(patience_s)  # the worker did not count what it waited for others
    return f"it hung: it was stopped after {worked} of work, eight times what was expected and more"


def blamed(state: SearchState, ended: RunningJob, unfinished: Sequence[Recipe]) -> list[Recipe]:
    """Return the recipes of a dead worker that must not run again: the one that it worked on, and those that share its training.

    If the worker died during a training, every recipe that needs this training would end in the same way.
    """
    current = ended.recipe
    if current is None:
        return []
    done = state.trained | state.stage_trainings.on_disk
    new = next((training for training in current.trainings if training not in done), None)
    return [recipe for recipe in unfinished if recipe == current or new in recipe.trainings]


def _rest(ended: RunningJob, recipes: Sequence[Recipe]) -> PlannedJob | None:
    """The measurements that are left of a job; None where there are none."""
    job = ended.job
    is_left = job.kind is JobKind.MEASURE and bool(recipes)
    return PlannedJob(tuple(recipes), ended.purpose, job.why, job.may_skip) if is_left else None
