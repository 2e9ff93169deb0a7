"""When the lowerings that need a slow compiler get their turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from autocut.recipe import UNTOUCHED
from autocut.search.jobs import PlannedJob, Purpose
from autocut.search.lowerings import LoweringChoice, is_cheap, lowerings_by_seconds
from autocut.search.opening import anchors
from autocut.search.state import SearchState

_COMPILING_SHARE = 0.05
"""Share of the time so far that slow lowerings without a proposal may have had."""


class SlowLowerings:
    """What needs a slow compiler: anchors of the space, then the untouched model, each mode once before any with another dtype.

    They are rationed, because early in a search a worker finds more with the quick lowerings. A slow one gets its turn when all
    of them together have had less than a share of the time so far.
    """

    def __init__(self, state: SearchState, choice: LoweringChoice) -> None:
        self._state = state
        self._choice = choice
        self._waiting: deque[PlannedJob] | None = None
        self._given_s = 0.0

    def next(self, spent_s: float) -> PlannedJob | None:
        """Return the next one after `spent_s` seconds of all workers; None where none is left, or its turn has not come.

        With infinite seconds every turn has come: for a worker that has nothing else to do.
        """
        if self._waiting is None:
            self._waiting = deque(self._planned())
        while self._waiting:
            recipe = self._waiting[0].recipes[0]
            if self._state.is_settled(recipe):
                self._waiting.popleft()
                continue
            given_s = self._given_s + self._state.planner.lowering_s(recipe.lowering)
            if given_s > _COMPILING_SHARE * spent_s:
                return None
            self._given_s = given_s
            return self._waiting.popleft()
        return None

    def _planned(self) -> Iterable[PlannedJob]:
        state = self._state
        slow = [lowering for lowering in lowerings_by_seconds(state) if not is_cheap(state, lowering)]
        of_anchors = anchors(state, self._choice)
        planned = {one.recipes[0]: one for one in of_anchors if one.recipes[0].lowering in slow}
        of_mode = {mode: [lowering for lowering in slow if lowering[1] == mode] for _, mode in slow}
        for dtype, mode in sorted(slow, key=lambda lowering: of_mode[lowering[1]].index(lowering)):
            why = f"compilers: the untouched model, {dtype} by {mode}"
            untouched = UNTOUCHED.with_lowering(dtype, mode)
            planned.setdefault(untouched, PlannedJob((untouched,), Purpose.SLOW_LOWERING, why, may_skip=False))
        return planned.values()
