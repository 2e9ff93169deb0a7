"""Which measured points are finalized, when, and in which order: time may end before they all are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from autocut.budget import Budget
from autocut.front import FrontPoint, hypervolume_contributions, non_dominated
from autocut.recipe import UNTOUCHED, Recipe
from autocut.search.planner import Planner
from autocut.search.volume import Volume

if TYPE_CHECKING:
    from autocut.search.trial_store import Book

MOST = 16
"""Points of the front that are finalized at most, and after which no search goes on; any other one is exported on demand."""

_FEWEST_POINTS = 4
"""Points for which time is kept from the beginning on, found or not..."""
_FEWEST_MORE = 3
"""... and for which it is kept at least while the search goes on after others."""
_PATIENCE = 0.7
"""A finalization is begun while this many times its predicted seconds are left; what is cut off, the next run goes on with."""
_RUNNER_UP_PATIENCE = 1.5
"""Runners-up are finalized while this many times the predicted seconds are left: nothing must depend on them."""
_REHEARSAL_PATIENCE = 8.0
"""The first finalization is made early where the search has this many times its predicted seconds left..."""
_REHEARSAL_SHARE = 0.25
_REHEARSAL_AT_LATEST_S = 600.0
"""... once it has spent this share of its budget, or these seconds..."""
_REHEARSAL_MARGIN = 1.2
"""... or soon, by this factor, would not have enough left."""

Objectives = Mapping[str, str]


class Finalization:
    """What has been finalized, and what is next. Points are trial numbers by recipe, the most important first.

    Args:
        book: Knows what was measured.
        planner: Predicts seconds.
        objectives: Of the space.
        workers: Jobs at a time.
        is_running: Whether a recipe is being worked on.
    """

    def __init__(
        self, book: Book, planner: Planner, objectives: Objectives, workers: int, is_running: Callable[[Recipe], bool]
    ) -> None:
        self.done: set[Recipe] = set()
        self._book = book
        self._planner = planner
        self._objectives = objectives
        self._workers = workers
        self._is_running = is_running
        self._is_rehearsed = False

    def rehearsal(self, budget: Budget) -> dict[Recipe, int]:
        """Return, once, a point to finalize early.

        It would probably be finalized at the end anyway, for whoever can give no accuracy away; made before, it tells how long that
        takes here, from which the reserve is planned, and there is something to deploy at every later moment. It holds the machine
        alone, so what the search learns most from comes first.
        """
        least_s = _REHEARSAL_PATIENCE * self._planner.finalize_s()
        may_wait = budget.search_left() > _REHEARSAL_MARGIN * least_s
        is_early = budget.spent() < min(_REHEARSAL_SHARE * budget.total_s, _REHEARSAL_AT_LATEST_S)
        if self._is_rehearsed or budget.search_left() < least_s or (is_early and may_wait):
            return {}
        self._is_rehearsed = True
        return self._waiting({recipe: trial for recipe, trial in cheapest_exact(self._book).items() if recipe != UNTOUCHED})

    def next(self, left_s: float) -> dict[Recipe, int]:
        """Return what the next job finalizes; empty where nothing waits, or nothing can be done in `left_s` seconds."""
        each = self._planner.finalize_s()
        waiting: dict[Recipe, int] = {}
        if left_s > _PATIENCE * each:
            waiting = self._waiting(finalists(self._book, self._objectives))
        if not waiting and left_s > _RUNNER_UP_PATIENCE * each:
            waiting = self._waiting(runners_up(self._book, self._objectives))
        share = min(self._planner.packed_finalists(), math.ceil(len(waiting) / self._workers), max(1, int(left_s / each)))
        return dict(list(waiting.items())[:share])

    def reserve_s(self, total_s: float) -> float:
        """Seconds to keep for what waits, and for what is still to be found, out of a budget of `total_s`."""
        waiting = len(finalists(self._book, self._objectives).keys() - self.done)
        return self._planner.reserve_s(max(waiting, _FEWEST_MORE, _FEWEST_POINTS - len(self.done)), self._workers, total_s)

    @property
    def is_anything_waiting(self) -> bool:
        """Whether something that must be finalized is neither done nor being done."""
        return bool(self._waiting(finalists(self._book, self._objectives)))

    @property
    def is_open_for_more(self) -> bool:
        """Whether the search may go on: fewer than `MOST` points are finalized.

        Each one is a look at the locked test split: a search that goes on does not get any number of them.
        """
        return len(self.done) < MOST

    def _waiting(self, points: Mapping[Recipe, int]) -> dict[Recipe, int]:
        return {recipe: trial for recipe, trial in points.items() if recipe not in self.done and not self._is_running(recipe)}


def finalists(book: Book, objectives: Objectives) -> dict[Recipe, int]:
    """Return the trial numbers of what must be finalized, the most important first.

    The untouched model; the front by validation numbers, by how much of it would be lost without each point; and the untouched
    weights in the cheapest form that computes the same, for whoever can give no accuracy away.
    """
    ranked = _by_contribution(book.front(), objectives, book)[:MOST]
    untouched = book.trial_number(UNTOUCHED)
    first = {} if untouched is None else {UNTOUCHED: untouched}
    return first | {point.recipe: point.trial for point in ranked} | cheapest_exact(book)


def runners_up(book: Book, objectives: Objectives) -> dict[Recipe, int]:
    """Return the trial numbers of what comes behind the front, layer by layer: on the test split some of it may be ahead."""
    chosen = finalists(book, objectives)
    rest = [point for point in book.candidates() if point.recipe not in chosen]
    ranked: list[FrontPoint] = []
    while rest and len(chosen) + len(ranked) < MOST:
        layer = {point.trial for point in non_dominated(rest, objectives)}
        ranked += _by_contribution([point for point in rest if point.trial in layer], objectives, book)
        rest = [point for point in rest if point.trial not in layer]
    return {point.recipe: point.trial for point in ranked[: max(0, MOST - len(chosen))]}


def cheapest_exact(book: Book) -> dict[Recipe, int]:
    """Return the trial number of the untouched weights in the cheapest form that computes the same; empty before any is known."""
    full_precision, _ = UNTOUCHED.lowering
    exact = [
        point for point in book.candidates() if point.recipe.prefix == UNTOUCHED and point.recipe.lowering[0] == full_precision
    ]
    cheapest = min(exact, key=lambda point: point.values["usd_per_million"], default=None)
    return {} if cheapest is None else {cheapest.recipe: cheapest.trial}


def _by_contribution(front: Sequence[FrontPoint], objectives: Objectives, book: Book) -> list[FrontPoint]:
    """Order a front by what would be lost without each point: first of what people look at, then of the whole box around it.

    A point that has lost half of its accuracy stretches the box, and would make two good points look like one.
    """
    untouched = next((point for point in book.candidates() if point.recipe == UNTOUCHED), None)
    seen = dict.fromkeys((point.trial for point in front), 0.0)
    if untouched is not None and front:
        volume = Volume(objectives, untouched.values, [point.values for point in front])
        contributions = volume.contributions([volume.losses(point.values) for point in front])
        seen = {point.trial: lost for point, lost in zip(front, contributions, strict=True)}
    boxed = hypervolume_contributions(front, objectives)
    return sorted(front, key=lambda point: (-seen[point.trial], -boxed[point.trial]))
