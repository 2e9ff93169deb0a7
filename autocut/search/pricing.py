"""What other workers do while the untouched model trains for long: they time structures, because a cost needs no weights.

The costs are found again when the weights are there: a trial then only needs its accuracy. Timing keeps the training waiting. For
the untouched model's quick lowerings that is no loss, because they are timed in any search. Other structures get a share of the
seconds that the training takes. When nothing is left to be priced, the training has the cores.
"""

from __future__ import annotations

import math
from dataclasses import replace

from autocut.recipe import UNTOUCHED, Lowering, without_kept
from autocut.search.estimates import recipe_s
from autocut.search.jobs import PlannedJob, Purpose
from autocut.search.lowerings import LoweringChoice, by_promise, is_cheap, lowerings_by_seconds
from autocut.search.opening import Steps, nearest_value, pruning_methods, skeleton, student_cost, students
from autocut.search.state import SearchState

_SHARE = 0.5
"""A job must end within this share of the seconds that the training will still take."""
_TIMING_SHARE = 0.15
"""... and timing what a search might do without must keep the training waiting for no larger share of its seconds."""
_WORKERS = 4
"""One worker of so many prices at a time, and at least one: the training uses the cores of the others."""
_RATIOS = (0.5, 1.0, 0.75, 0.25)


class Pricing:
    """Plans the jobs that run beside the training of the untouched model."""

    def __init__(self, state: SearchState, choice: LoweringChoice) -> None:
        self._state = state
        self._steps = pricing(state, choice)
        self._timing_s = 0.0

    def next(self, now: float) -> PlannedJob | None:
        """Return the next job at the clock reading `now`; None while there is none, or where it would take too long."""
        state = self._state
        if state.training_ends is None:
            return None  # the training is short, or its speed is not known yet
        at_once = max(1, state.settings.workers // _WORKERS)
        if sum(running.purpose is Purpose.PRICING for running in state.running.values()) >= at_once:
            return None
        for planned in self._steps:
            if planned is None:
                return None
            if self._fits(planned, state.training_ends - now):
                self._timing_s += self._seconds_of_timing(planned)
                return planned
        return None

    def _fits(self, planned: PlannedJob, left_s: float) -> bool:
        state = self._state
        needed_s = state.planner.process_s() + math.fsum(recipe_s(state, recipe) for recipe in planned.recipes)
        if not planned.recipes or needed_s > _SHARE * left_s:
            return False
        if all(recipe.prefix == UNTOUCHED and is_cheap(state, recipe.lowering) for recipe in planned.recipes):
            return True
        return self._timing_s + self._seconds_of_timing(planned) <= _TIMING_SHARE * state.training_s

    def _seconds_of_timing(self, planned: PlannedJob) -> float:
        return self._state.planner.timing_s() * len(planned.recipes)


def pricing(state: SearchState, choice: LoweringChoice) -> Steps:
    """The untouched model, its quick lowerings, each pruning method at several ratios, each student, the other lowerings.

    The most promising of the quick ones come first. Whether it is worth it to keep layers in float needs weights to be known. A
    pruned model and a student have their cheapest lowering. The weights are random. None while the untouched model, to which every
    cost refers, is not timed yet.
    """
    yield _priced(PlannedJob((UNTOUCHED,), Purpose.PRICING, ""), "the untouched model")
    while UNTOUCHED not in state.priced and state.runs(Purpose.PRICING):
        yield None
    if UNTOUCHED not in state.priced:
        return
    left = [lowering for lowering in lowerings_by_seconds(state) if lowering != UNTOUCHED.lowering]
    while quick := [lowering for lowering in left if is_cheap(state, lowering) and not without_kept(lowering[0])[1]]:
        lowering = by_promise(state, quick)[0]  # chosen when a worker is free: by then more is known
        left.remove(lowering)
        yield _untouched(lowering)
    while state.runs(Purpose.PRICING):
        yield None  # the best lowerings are not known yet
    if axis := state.settings.space.axis("prune.ratio"):
        for ratio in dict.fromkeys(nearest_value(axis, wanted) for wanted in _RATIOS):
            for method in pruning_methods(state):
                planned = skeleton(state, choice, method, [ratio])
                yield _priced(replace(planned, recipes=planned.recipes[:1]), f"{method} {ratio:g}")
    for student in students(state):
        planned = student_cost(state, choice, student)
        yield _priced(replace(planned, recipes=planned.recipes[:1]), f"student {student}")
    yield from map(_untouched, left)


def _untouched(lowering: Lowering) -> PlannedJob:
    what = f"the untouched model, {lowering[0]} by {lowering[1]}"
    return _priced(PlannedJob((UNTOUCHED.with_lowering(*lowering),), Purpose.PRICING, ""), what)


def _priced(planned: PlannedJob, what: str) -> PlannedJob:
    return replace(planned, purpose=Purpose.PRICING, why=f"cost, while the untouched model trains: {what}")
