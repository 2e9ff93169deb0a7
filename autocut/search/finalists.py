"""Which measured points are finalized, when, and in which order; the time may end before all of them are done.

Points are trial numbers by recipe, the most important first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from autocut.budget import Budget
from autocut.front import FrontPoint, Objectives, hypervolume_contributions, non_dominated
from autocut.recipe import UNTOUCHED, Recipe
from autocut.search.state import SearchState
from autocut.search.trial_store import TrialStore
from autocut.search.volume import Volume

MOST = 16
"""Points of the front that are finalized at most, and after which no search goes on; any other one is exported on demand."""

_FEWEST_POINTS = 4
"""Points for which time is kept from the beginning on, found or not..."""
_FEWEST_MORE = 3
"""... and for which it is kept at least while the search goes on after others."""
_PATIENCE = 0.7
"""A finalization begins while this many times its predicted seconds are left; if it is cut off, the next session repeats it."""
_RUNNER_UP_PATIENCE = 1.5
"""Runners-up are finalized while this many times the predicted seconds are left: nothing must depend on them."""
_SLOW_S = 10.0
"""A model that takes this long to score and to time is slow: one of its lowerings is finalized before others are tried."""
_ACCURATE = 0.01
"""Share of the untouched model's metric that the first finalized lowering of a slow model may lose."""
_REHEARSAL_PATIENCE = 8.0
"""The first finalization is made early where the search has this many times its predicted seconds left..."""
_REHEARSAL_SHARE = 0.25
_REHEARSAL_AT_LATEST_S = 600.0
"""... once it has spent this share of its budget, or these seconds..."""
_REHEARSAL_MARGIN = 1.2
"""... or soon, by this factor, would not have enough left."""


def is_time_to_rehearse(state: SearchState, budget: Budget) -> bool:
    """Whether one point should be finalized early, once a search.

    It tells how long a finalization takes here, from which the reserve is planned, and leaves something to deploy at every later
    moment. It holds the machine alone, so the search first runs what it learns most from. A slow model leaves no time for that
    order: its first good lowering is finalized at once.
    """
    if is_slow(state):
        return not state.is_rehearsed and budget.left() > _PATIENCE * state.planner.finalize_s()
    least_s = _REHEARSAL_PATIENCE * state.planner.finalize_s()
    may_wait = budget.search_left() > _REHEARSAL_MARGIN * least_s
    is_early = budget.spent() < min(_REHEARSAL_SHARE * budget.total_s, _REHEARSAL_AT_LATEST_S)
    return not (state.is_rehearsed or budget.search_left() < least_s or (is_early and may_wait))


def is_slow(state: SearchState) -> bool:
    """Whether measuring a model of this task takes so long that few are measured at all."""
    return state.planner.measuring_s() > _SLOW_S


def rehearsal(state: SearchState, store: TrialStore) -> dict[Recipe, int]:
    """Return the point to finalize early; empty before there is one.

    It would probably be finalized at the end anyway, for users who accept no loss of accuracy. Of a slow model it is the cheapest
    lowering of the untouched weights that loses hardly any accuracy.
    """
    points = _cheapest_accurate(state, store) if is_slow(state) else cheapest_exact(store)
    return _waiting(state, {recipe: trial for recipe, trial in points.items() if recipe != UNTOUCHED})


def next_finalists(state: SearchState, store: TrialStore, left_s: float) -> dict[Recipe, int]:
    """Return what the next job finalizes; empty where nothing waits, or nothing can be done in `left_s` seconds."""
    each, objectives = state.planner.finalize_s(), state.settings.objectives
    waiting: dict[Recipe, int] = {}
    if left_s > _PATIENCE * each:
        waiting = _waiting(state, finalists(store, objectives))
    if not waiting and left_s > _RUNNER_UP_PATIENCE * each:
        waiting = _waiting(state, runners_up(store, objectives))
    even_share = math.ceil(len(waiting) / state.settings.workers)
    share = min(state.planner.packed_finalists(), even_share, max(1, int(left_s / each)))
    return dict(list(waiting.items())[:share])


def reserve_s(state: SearchState, store: TrialStore, total_s: float) -> float:
    """Seconds to keep for the points that wait, and for points still to be found, out of a budget of `total_s`."""
    waiting = len(finalists(store, state.settings.objectives).keys() - state.finalized)
    points = max(waiting, _FEWEST_MORE, _FEWEST_POINTS - len(state.finalized))
    return state.planner.reserve_s(points, state.settings.workers, total_s)


def is_anything_waiting(state: SearchState, store: TrialStore) -> bool:
    """Whether a point that must be finalized is neither done nor being done."""
    return bool(_waiting(state, finalists(store, state.settings.objectives)))


def is_open_for_more(state: SearchState) -> bool:
    """Whether the search may go on: fewer than `MOST` points are finalized.

    Each finalized point is a look at the locked test split, so their number is limited.
    """
    return len(state.finalized) < MOST


def finalists(store: TrialStore, objectives: Objectives) -> dict[Recipe, int]:
    """Return the trial numbers of what must be finalized, the most important first.

    The untouched model; the front by validation numbers, by how much of it would be lost without each point; and the untouched
    weights in the cheapest form that computes the same, for users who accept no loss of accuracy.
    """
    ranked = _by_contribution(store.front(), objectives, store)[:MOST]
    untouched = store.trial_number(UNTOUCHED)
    first = {} if untouched is None else {UNTOUCHED: untouched}
    return first | {point.recipe: point.trial for point in ranked} | cheapest_exact(store)


def runners_up(store: TrialStore, objectives: Objectives) -> dict[Recipe, int]:
    """Return the trial numbers of what comes behind the front, layer by layer: on the test split some of it may be ahead."""
    chosen = finalists(store, objectives)
    rest = [point for point in store.candidates() if point.recipe not in chosen]
    ranked: list[FrontPoint] = []
    while rest and len(chosen) + len(ranked) < MOST:
        layer = {point.trial for point in non_dominated(rest, objectives)}
        ranked += _by_contribution([point for point in rest if point.trial in layer], objectives, store)
        rest = [point for point in rest if point.trial not in layer]
    return {point.recipe: point.trial for point in ranked[: max(0, MOST - len(chosen))]}


def cheapest_exact(store: TrialStore) -> dict[Recipe, int]:
    """Return the trial number of the untouched weights in the cheapest form that computes the same; empty before any is known."""
    full_precision, _ = UNTOUCHED.lowering
    exact = [
        point for point in store.candidates() if point.recipe.prefix == UNTOUCHED and point.recipe.lowering[0] == full_precision
    ]
    cheapest = min(exact, key=lambda point: point.values["usd_per_million"], default=None)
    return {} if cheapest is None else {cheapest.recipe: cheapest.trial}


def _cheapest_accurate(state: SearchState, store: TrialStore) -> dict[Recipe, int]:
    untouched = state.finished[UNTOUCHED]
    least, most = (1 - _ACCURATE) * untouched["accuracy"], untouched["usd_per_million"]
    points = [point for point in store.candidates() if point.recipe.prefix == UNTOUCHED and point.values["accuracy"] >= least]
    cheapest = min(points, key=lambda point: point.values["usd_per_million"], default=None)
    return {cheapest.recipe: cheapest.trial} if cheapest and cheapest.values["usd_per_million"] < most else {}


def _waiting(state: SearchState, points: Mapping[Recipe, int]) -> dict[Recipe, int]:
    return {recipe: trial for recipe, trial in points.items() if recipe not in state.finalized and not state.is_running(recipe)}


def _by_contribution(front: Sequence[FrontPoint], objectives: Objectives, store: TrialStore) -> list[FrontPoint]:
    """Order a front by what would be lost without each point: first of what people look at, then of the whole box around it.

    A point that has lost half of its accuracy stretches the box, and would make two good points look like one.
    """
    untouched = next((point for point in store.candidates() if point.recipe == UNTOUCHED), None)
    seen = dict.fromkeys((point.trial for point in front), 0.0)
    if untouched is not None and front:
        volume = Volume(objectives, untouched.values, [point.values for point in front])
        contributions = volume.contributions([volume.losses(point.values) for point in front])
        seen = {point.trial: lost for point, lost in zip(front, contributions, strict=True)}
    boxed = hypervolume_contributions(front, objectives)
    return sorted(front, key=lambda point: (-seen[point.trial], -boxed[point.trial]))
