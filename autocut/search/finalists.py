"""Which measured points are finalized, and in which order: time may end before they all are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from autocut.front import FrontPoint, hypervolume_contributions, non_dominated
from autocut.recipe import Recipe

if TYPE_CHECKING:
    from autocut.search.book import Book

MOST = 16
"""Points that are finalized at most; any other one is exported on demand."""

Objectives = Mapping[str, str]


def finalists(book: Book, objectives: Objectives) -> dict[Recipe, int]:
    """Return the trial numbers of what must be finalized, the most important first.

    The untouched model; the front by validation numbers, by how much of it would be lost without each point; and the untouched
    weights in the cheapest form that computes the same, for whoever can give no accuracy away.
    """
    ranked = _by_contribution(book.front(), objectives)[:MOST]
    untouched = book.trial_number(Recipe())
    first = {} if untouched is None else {Recipe(): untouched}
    return first | {point.recipe: point.trial for point in ranked} | cheapest_exact(book)


def runners_up(book: Book, objectives: Objectives) -> dict[Recipe, int]:
    """Return the trial numbers of what comes behind the front, layer by layer: on the test split some of it may be ahead."""
    chosen = finalists(book, objectives)
    rest = [point for point in book.candidates() if point.recipe not in chosen]
    ranked: list[FrontPoint] = []
    while rest and len(chosen) + len(ranked) < MOST:
        layer = {point.trial for point in non_dominated(rest, objectives)}
        ranked += _by_contribution([point for point in rest if point.trial in layer], objectives)
        rest = [point for point in rest if point.trial not in layer]
    return {point.recipe: point.trial for point in ranked[: max(0, MOST - len(chosen))]}


def cheapest_exact(book: Book) -> dict[Recipe, int]:
    """Return the trial number of the untouched weights in the cheapest form that computes the same; empty before any is known."""
    full_precision, _ = Recipe().tail
    exact = [point for point in book.candidates() if point.recipe.prefix == Recipe() and point.recipe.tail[0] == full_precision]
    cheapest = min(exact, key=lambda point: point.values["usd_per_million"], default=None)
    return {} if cheapest is None else {cheapest.recipe: cheapest.trial}


def _by_contribution(front: Sequence[FrontPoint], objectives: Objectives) -> list[FrontPoint]:
    lost = hypervolume_contributions(front, objectives)
    return sorted(front, key=lambda point: -lost[point.trial])
