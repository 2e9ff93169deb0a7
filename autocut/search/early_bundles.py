"""Bundles that are made while the search goes on: one of a fast model, several of a slow one.

The first one tells how long a finalization takes here, from which the reserve is planned, and leaves something to deploy at every
later moment. A finalization holds the machine alone, so the search of a fast model first runs what it learns most from. A slow
model leaves no time for that order.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from autocut.budget import Budget
from autocut.recipe import UNTOUCHED, Recipe
from autocut.search.finalists import (
    PATIENCE,
    cheapest_exact,
    finalists,
    gives_bundles,
    good_points,
    is_of_bundles,
    is_slow,
    not_begun,
    untouched_point,
)
from autocut.search.jobs import Purpose
from autocut.search.state import SearchState
from autocut.search.trial_store import TrialStore

_REHEARSAL_PATIENCE = 8.0
"""A fast model's bundle is made early where the search has this many times its predicted seconds left..."""
_REHEARSAL_SHARE = 0.25
_REHEARSAL_AT_LATEST_S = 600.0
"""... once it has spent this share of its budget, or these seconds..."""
_REHEARSAL_MARGIN = 1.2
"""... or soon, by this factor, would not have enough left."""

_FINALIZING_SHARE = 0.3
"""Share of the time so far that finalizing a slow model's points may take, but for..."""
_MUCH_CHEAPER = 1.5
"""... the first one, and one that is this many times cheaper than every bundle."""
_CHEAPER = 1.05
"""Within the share, a point of a slow model is finalized if it is this many times cheaper than every bundle..."""
_NEARLY_AS_CHEAP = 1.25
"""... or if it costs at most this many times as much as the cheapest one, and no bundle has its compile mode: what is deployed is
also a choice of the runtime..."""
_LATE = 0.5
"""... or, after this share of the budget, if it would be finalized at the end anyway: then too little may be left for it."""


def early_bundle(state: SearchState, store: TrialStore, budget: Budget) -> dict[Recipe, int] | None:
    """Return the point to finalize now, as trial number by recipe; empty where there is none. None: it is not time for it.

    Of a slow model that is not done with it, the untouched model follows in the same process, which has its scores by then.
    """
    if not is_slow(state):
        return _cuts(not_begun(state, cheapest_exact(store))) if _is_time_to_rehearse(state, budget) else None
    is_free = not any(is_of_bundles(running) for running in state.running.values())
    if not is_free or budget.left() <= PATIENCE * state.planner.finalize_s():
        return None
    good = _cuts(not_begun(state, good_points(state, store)))
    due = next((recipe for recipe in good if _is_due(recipe, state, store, budget)), None)
    return None if due is None else {due: good[due]} | not_begun(state, untouched_point(store))


def untouched_alone(state: SearchState, store: TrialStore) -> dict[Recipe, int]:
    """Return the untouched model's point, if it is a slow one and nothing was finalized yet.

    Its scores on the test split are a part of every finalization. A worker that is free early makes them for the first bundle.
    """
    is_first = is_slow(state) and not state.finalized and not state.runs(Purpose.FINALIZATION)
    return not_begun(state, untouched_point(store)) if is_first else {}


def is_urgent(state: SearchState, recipes: Collection[Recipe]) -> bool:
    """Whether finalizing `recipes` gives the first bundle of a slow model. Timings of other workers would double what it takes."""
    return is_slow(state) and not state.verified and gives_bundles(recipes)


def _is_time_to_rehearse(state: SearchState, budget: Budget) -> bool:
    """Whether the point of a fast model is due that would probably be finalized at the end: for users who accept no loss."""
    least_s = _REHEARSAL_PATIENCE * state.planner.finalize_s()
    may_wait = budget.search_left() > _REHEARSAL_MARGIN * least_s
    is_early = budget.spent() < min(_REHEARSAL_SHARE * budget.total_s, _REHEARSAL_AT_LATEST_S)
    return not (state.is_rehearsed or budget.search_left() < least_s or (is_early and may_wait))


def _is_due(recipe: Recipe, state: SearchState, store: TrialStore, budget: Budget) -> bool:
    """Whether a good point of a slow model is worth a finalization while the search goes on."""
    dollars = _dollars(store)
    cheapest = min((dollars.get(bundle, math.inf) for bundle in state.verified), default=math.inf)
    if not state.verified or dollars[recipe] * _MUCH_CHEAPER <= cheapest:
        return True
    if len(state.finalized) * state.planner.finalize_more_s() >= _FINALIZING_SHARE * budget.spent():
        return False
    is_new_runtime = recipe.lowering[1] not in {bundle.lowering[1] for bundle in state.verified}
    if dollars[recipe] * _CHEAPER <= cheapest or (is_new_runtime and dollars[recipe] <= _NEARLY_AS_CHEAP * cheapest):
        return True
    return budget.spent() > _LATE * budget.total_s and recipe in finalists(state, store)


def _cuts(points: Mapping[Recipe, int]) -> dict[Recipe, int]:
    """Leave out the untouched model as it is, which gives no bundle."""
    return {recipe: trial for recipe, trial in points.items() if recipe != UNTOUCHED}


def _dollars(store: TrialStore) -> Mapping[Recipe, float]:
    return {point.recipe: point.values["usd_per_million"] for point in store.candidates()}
