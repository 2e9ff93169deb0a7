"""Other searches of the same study: what they work on is left to them, and what they find is taken in like own results.

The search that books a recipe works on it; the others leave it alone. It frees the booking once it has stored the result. So a
search first books, then reads what the others have found, and drops what has a result by then. No recipe is tried twice.

A recipe that another search lets go of without a result, because its time was up or because it died, is tried here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from autocut.recipe import UNTOUCHED, Recipe
from autocut.search.jobs import PlannedJob, Purpose
from autocut.search.proposals import Proposer
from autocut.search.recall import recall_results, recall_untouched
from autocut.search.state import SearchState
from autocut.search.trial_store import StudyTrialStore
from autocut.study.bookings import Booking
from autocut.study.lock import SearchLock

_LOOK_EVERY_S = 1.0
_TELLS_RESULT = frozenset(Purpose) - {Purpose.BASELINE, Purpose.FINALIZATION}
"""With another purpose the agent asks again by itself."""


class Companions(Protocol):
    """The other searches of a study, as the agent sees them."""

    def look(self, now: float) -> Sequence[PlannedJob]:
        """Take in what they have found; return jobs that they have left. `now` is a reading of the budget's clock."""

    def book(self, recipes: Sequence[Recipe], purpose: Purpose) -> tuple[Recipe, ...]:
        """Book `recipes` for this search; return those that it gets, and that have no result yet."""

    def free(self, recipes: Iterable[Recipe]) -> None:
        """Free recipes whose results are stored, or that this search leaves."""


class NoCompanions:
    """Nobody else searches."""

    def look(self, now: float) -> Sequence[PlannedJob]:  # noqa: ARG002
        """See `Companions`."""
        return ()

    def book(self, recipes: Sequence[Recipe], purpose: Purpose) -> tuple[Recipe, ...]:  # noqa: ARG002
        """See `Companions`."""
        return tuple(recipes)

    def free(self, recipes: Iterable[Recipe]) -> None:
        """See `Companions`."""


class StudyCompanions:
    """Searches of one study, each in a process of its own.

    Args:
        store: The study, where this search writes.
        state: What this search knows; what others find is added.
        proposer: It learns from their trials too.
        lock: The locks of this search, with its session.
    """

    def __init__(self, store: StudyTrialStore, state: SearchState, proposer: Proposer, lock: SearchLock) -> None:
        self._store = store
        self._study = store.study
        self._lock = lock
        self._state = state
        self._proposer = proposer
        self._session = lock.session
        self._held: set[Recipe] = set()
        self._left: list[Recipe] = []
        self._known: frozenset[int] = frozenset()
        self._next_look = 0.0
        self.news: list[str] = []
        """Sentences for the user, who has not been told yet."""
        self._tell(lock.others())

    @property
    def is_first(self) -> bool:
        """Whether no other search began before this one: what is written for all of them is written by the first."""
        return all(other > self._session for other in self._lock.others())

    def look(self, now: float) -> Sequence[PlannedJob]:
        """See `Companions`. It looks once a second."""
        if now >= self._next_look:
            self._next_look = now + _LOOK_EVERY_S
            if self._has_company():
                self._take_in()
        left, self._left = self._left, []
        return [_planned([recipe for recipe in left if recipe.prefix == prefix]) for prefix in {one.prefix: None for one in left}]

    def book(self, recipes: Sequence[Recipe], purpose: Purpose) -> tuple[Recipe, ...]:
        """See `Companions`."""
        taken = self._study.bookings.take(recipes, self._session, purpose.name)
        self._held.update(taken)
        if len(taken) < len(recipes) or self._has_company():
            self._take_in()
            self.free(recipe for recipe in taken if self._is_done(recipe, purpose))
        return tuple(recipe for recipe in taken if recipe in self._held)

    def free(self, recipes: Iterable[Recipe]) -> None:
        """See `Companions`."""
        if own := self._held.intersection(recipes):
            self._study.bookings.free(own, self._session)
            self._held -= own

    def _has_company(self) -> bool:
        """Whether others are alive, or were when they were last looked at: then they may have left something since."""
        return bool(self._known or self._state.elsewhere or self._lock.others())

    def _is_done(self, recipe: Recipe, purpose: Purpose) -> bool:
        if purpose is Purpose.FINALIZATION:
            return recipe in self._state.finalized
        if purpose is Purpose.BASELINE:
            return self._store.trial_number(recipe) is not None
        return self._state.is_settled(recipe)

    def _take_in(self) -> None:
        """Read bookings, then who is alive, then results: what is not booked any more has its result by then."""
        bookings = [booking for booking in self._study.bookings.all() if booking.session != self._session]
        alive = self._lock.others()
        new = self._study.refresh()
        if self._state.reference is None:
            recall_untouched(self._study, self._state)
        self._store.learn(new.trials.values())
        recall_results(self._study, new, self._state, self._proposer)
        self._note(bookings)
        if any(booking.session not in alive for booking in bookings):
            self._clear_up()
        self._tell(alive)

    def _note(self, bookings: Sequence[Booking]) -> None:
        """Take in what others work on, and what they have let go of."""
        before = self._state.elsewhere
        self._state.elsewhere = {booking.recipe: Purpose.__members__.get(booking.purpose, Purpose.PROPOSAL) for booking in bookings}
        if Purpose.BASELINE in set(self._state.elsewhere.values()) - set(before.values()):
            self.news.append("together: another search measures the untouched model; this one waits for it")
        gone = [recipe for recipe, purpose in before.items() if purpose in _TELLS_RESULT and recipe not in self._state.elsewhere]
        # Of a training that was stopped early, one trial tells, and its other lowerings are settled too.
        self._left += [one for one in gone if not (self._state.is_settled(one) or one.prefix in self._state.stopped)]

    def _clear_up(self) -> None:
        """Free what dead searches have booked. One search does it, and all of them see it."""
        with self._lock.tidying() as is_mine:
            if is_mine:
                alive = self._lock.others() | {self._session}  # now: no search begins while this one has the turn
                self._store.close_interrupted(alive)
                self._study.bookings.keep_those_of(alive)

    def _tell(self, alive: frozenset[int]) -> None:
        names = self._study.bookings.searchers(alive ^ self._known)
        self.news += [f"together: {names[one]} searches this study too; no recipe is tried twice" for one in alive - self._known]
        self.news += [f"together: {names[one]} has ended" for one in self._known - alive]
        self._known = alive


def _planned(recipes: Sequence[Recipe]) -> PlannedJob:
    """Plan recipes of one prefix that another search has left."""
    is_baseline = recipes[0].prefix == UNTOUCHED
    purpose = Purpose.QUICK_LOWERINGS if is_baseline else Purpose.PROPOSAL
    return PlannedJob(tuple(recipes), purpose, f"another search has left it: {recipes[0].describe()}", may_skip=not is_baseline)
