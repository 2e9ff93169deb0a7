"""What other workers do while the untouched model is trained, scored and timed."""

from __future__ import annotations

from autocut.recipe import UNTOUCHED
from autocut.search.jobs import JobKind, PlannedJob, Purpose
from autocut.search.lowerings import LoweringChoice, affordable_lowerings, first_lowering
from autocut.search.pricing import Pricing
from autocut.search.state import SearchState


class Meanwhile:
    """Plans the jobs beside the baseline: costs while it trains for long, the first lowering while it is scored for long."""

    def __init__(self, state: SearchState, choice: LoweringChoice) -> None:
        self._state = state
        self._pricing = Pricing(state, choice)
        self._is_prepared = False

    def next(self, now: float) -> tuple[JobKind, PlannedJob] | None:
        """Return the next job at the clock reading `now`, and its kind; None while there is none."""
        if planned := self._pricing.next(now):
            return JobKind.PRICE, planned
        if planned := self._preparation():
            return JobKind.PREPARE, planned
        return None

    def _preparation(self) -> PlannedJob | None:
        """The first lowering of a model that is slow to score needs no score. Found made, it is measured sooner."""
        if not self._state.is_scored_slowly or self._is_prepared:
            return None
        self._is_prepared = True
        lowering = self._state.prepared = first_lowering(self._state, affordable_lowerings(self._state))
        if lowering is None:
            return None
        why = "baselines: the first lowering is made while the untouched model is measured"
        return PlannedJob((UNTOUCHED.with_lowering(*lowering),), Purpose.PREPARATION, why)
