"""Which measured points are finalized, when, and in which order; the time may end before all of them are done.

Points are trial numbers by recipe, the most important first.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from autocut.counting import inflected
from autocut.front import FrontPoint, hypervolume_contributions, non_dominated
from autocut.recipe import UNTOUCHED, Recipe
from autocut.search.jobs import Purpose
from autocut.search.state import RunningJob, SearchState
from autocut.search.trial_store import TrialStore
from autocut.search.volume import Volume

MOST = 16
"""Points of the front that are finalized at most, and after which no search goes on; any other one is exported on demand."""

_FEWEST_POINTS = 4
"""Points for which time is kept from the beginning on, found or not..."""
_FEWEST_MORE = 3
"""... and for which it is kept at least while the search goes on after others. In a slow search both are one point."""
PATIENCE = 0.7
"""A finalization begins while this many times its predicted seconds are left; if it is cut off, the next session repeats it."""
_ALONE = 0.7
"""Share of a slow model's finalization that holds the machine alone, or waits while another one does."""
_RUNNER_UP_PATIENCE = 1.5
"""Runners-up are finalized while this many times the predicted seconds are left: nothing must depend on them."""
_GOOD_DROP = 0.01
"""Share of the untouched model's metric that a good point of a slow model may lose. Noise does not count against it."""
_LOOKED_AT = 0.6
"""Users look first at points that lose at most this share of the largest drop that is allowed: 3 of 5 points."""


def is_slow(state: SearchState) -> bool:
    """Whether measuring a model of this task takes so long that few are measured at all."""
    return state.planner.is_slow


def good_points(state: SearchState, store: TrialStore) -> dict[Recipe, int]:
    """Return the trial numbers of the points that anyone would deploy, the cheapest first.

    They are certainly faster than the untouched model, by the interval of the speed-up, and perhaps as accurate: the interval of
    their paired difference reaches `_GOOD_DROP`. So the first good point does not depend on the noise of few examples.
    """
    untouched = state.finished.get(UNTOUCHED)
    if untouched is None:
        return {}
    good = [point for point in store.candidates() if _is_good(point, untouched["accuracy"])]
    return {point.recipe: point.trial for point in sorted(good, key=lambda point: point.values["usd_per_million"])}


def next_finalists(state: SearchState, store: TrialStore, left_s: float, now: float) -> dict[Recipe, int]:
    """Return what the next job finalizes; empty where nothing waits, or nothing can be done in `left_s` seconds.

    Two finalizations of a slow model wait for each other. So what the running ones still need at the reading `now` of the clock is
    not left for another one, which would only be cut off together with them.
    """
    left_s -= _running_s(state, now)
    waiting = _fitting(state, not_begun(state, finalists(state, store)), PATIENCE, left_s)
    if not waiting:
        waiting = _fitting(state, not_begun(state, runners_up(state, store)), _RUNNER_UP_PATIENCE, left_s)
    even_share = math.ceil(len(waiting) / state.settings.workers)
    share = min(state.planner.packed_finalists(), even_share, max(1, int(left_s / state.planner.finalize_s())))
    return dict(list(waiting.items())[:share])


def reserve_s(state: SearchState, store: TrialStore, total_s: float) -> float:
    """Seconds to keep for the points that wait, and for points still to be found, out of a budget of `total_s`."""
    waiting = finalists(state, store).keys() - state.finalized
    if is_slow(state):  # then time kept for points that are never found would leave no time to find them
        bundles = waiting - {UNTOUCHED}
        kept_s = state.planner.reserve_s(max(len(bundles), 1), state.settings.workers, total_s)
        return kept_s if bundles or state.verified else PATIENCE * kept_s
    points = max(len(waiting), _FEWEST_MORE, _FEWEST_POINTS - len(state.finalized))
    return state.planner.reserve_s(points, state.settings.workers, total_s)


def is_anything_waiting(state: SearchState, store: TrialStore) -> bool:
    """Whether a point that must be finalized is neither done nor being done."""
    return bool(not_begun(state, finalists(state, store)))


def is_open_for_more(state: SearchState) -> bool:
    """Whether the search may go on: fewer than `MOST` points are finalized.

    Each finalized point is a look at the locked test split, so their number is limited.
    """
    return len(state.finalized) < MOST


def drop_line(state: SearchState) -> str:
    """Say which points count, by their accuracy."""
    drop, untouched = state.settings.max_drop, state.untouched_metric
    if drop is None:
        return "accuracy: a point counts however much it loses, as this study was begun; another --out has --max-accuracy-drop"
    percent = f"{100 * drop:g}"
    asked = f"(--max-accuracy-drop {percent}%)"
    if untouched is None:
        loss = f"{percent} {inflected(100 * drop, 'point')}, or {percent}% of a metric that is not between 0 and 1"
        return f"accuracy: a point counts if it loses at most {loss} {asked}"
    return f"accuracy: a point counts from {state.least_accuracy:.4g} on: the untouched model has {untouched:.4g} {asked}"


def finalists(state: SearchState, store: TrialStore) -> dict[Recipe, int]:
    """Return the trial numbers of what must be finalized, the most important first.

    The untouched model; the front by validation numbers, by how much of it would be lost without each point; and the untouched
    weights in the cheapest form that computes the same, for users who accept no loss of accuracy. Of a slow model few points are
    finalized at all: its good points come first, and the untouched model, which gives no bundle, last.
    """
    ranked = {point.recipe: point.trial for point in _by_contribution(store.front(), state, store)[:MOST]}
    untouched = untouched_point(store)
    if not is_slow(state):
        return untouched | ranked | cheapest_exact(store)
    good = {recipe: trial for recipe, trial in good_points(state, store).items() if recipe in ranked}
    others = {recipe: trial for recipe, trial in (ranked | cheapest_exact(store)).items() if recipe != UNTOUCHED}
    return good | others | (untouched if good or others or state.verified else {})


def runners_up(state: SearchState, store: TrialStore) -> dict[Recipe, int]:
    """Return the trial numbers of what comes behind the front, layer by layer: on the test split some of it may be ahead."""
    chosen = finalists(state, store)
    rest = [point for point in store.candidates() if point.recipe not in chosen]
    ranked: list[FrontPoint] = []
    while rest and len(chosen) + len(ranked) < MOST:
        layer = {point.trial for point in non_dominated(rest, state.settings.objectives)}
        ranked += _by_contribution([point for point in rest if point.trial in layer], state, store)
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


def is_of_bundles(running: RunningJob) -> bool:
    """Whether a job finalizes more than the untouched model, which gives no bundle."""
    return running.purpose is Purpose.FINALIZATION and gives_bundles(running.job.recipes)


def gives_bundles(recipes: Collection[Recipe]) -> bool:
    """Whether finalizing `recipes` gives a bundle: the untouched model is measured only."""
    return set(recipes) != {UNTOUCHED}


def _is_good(point: FrontPoint, untouched: float) -> bool:
    measured = point.measurement
    gap = measured.accuracy.difference
    at_best = point.values["accuracy"] - untouched if gap is None else gap.high
    return at_best >= -_GOOD_DROP * abs(untouched) and measured.cost.busiest.speedup.low > 1


def _fitting(state: SearchState, points: Mapping[Recipe, int], patience: float, left_s: float) -> dict[Recipe, int]:
    """Leave out the points of which `patience` times the predicted seconds are not left; those come first that surely fit."""
    needed_s = {recipe: state.planner.finalize_s(recipe.lowering) for recipe in points}
    fitting = [recipe for recipe in points if left_s > patience * needed_s[recipe]]
    return {recipe: points[recipe] for recipe in sorted(fitting, key=lambda recipe: needed_s[recipe] > left_s)}


def _running_s(state: SearchState, now: float) -> float:
    """Seconds for which the running finalizations of a slow model will still keep another one waiting."""
    if not is_slow(state):
        return 0.0
    running = [running for running in state.running.values() if is_of_bundles(running)]
    needed_s = (
        sum(state.planner.finalize_s(recipe.lowering) for recipe in one.job.recipes) - (now - one.started) for one in running
    )
    return _ALONE * math.fsum(max(0.0, seconds) for seconds in needed_s)


def untouched_point(store: TrialStore) -> dict[Recipe, int]:
    """Return the trial number of the untouched model; empty before it was measured."""
    trial = store.trial_number(UNTOUCHED)
    return {} if trial is None else {UNTOUCHED: trial}


def not_begun(state: SearchState, points: Mapping[Recipe, int]) -> dict[Recipe, int]:
    """Return those of `points` whose finalization is neither done nor being done."""
    return {recipe: trial for recipe, trial in points.items() if recipe not in state.finalized and not state.is_running(recipe)}


def _by_contribution(front: Sequence[FrontPoint], state: SearchState, store: TrialStore) -> list[FrontPoint]:
    """Order a front by what would be lost without each point: first of what people look at, then of the whole box around it.

    A point that has lost half of its accuracy stretches the box, and would make two good points look like one.
    """
    objectives, drop = state.settings.objectives, state.allowed_drop
    untouched = next((point for point in store.candidates() if point.recipe == UNTOUCHED), None)
    seen = dict.fromkeys((point.trial for point in front), 0.0)
    if untouched is not None and front:
        values = [point.values for point in front]
        volume = Volume(objectives, untouched.values, values, None if drop is None else _LOOKED_AT * drop)
        contributions = volume.contributions([volume.losses(point.values) for point in front])
        seen = {point.trial: lost for point, lost in zip(front, contributions, strict=True)}
    boxed = hypervolume_contributions(front, objectives)
    return sorted(front, key=lambda point: (-seen[point.trial], -boxed[point.trial]))
