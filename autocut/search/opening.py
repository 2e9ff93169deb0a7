"""What runs without being proposed: learned recipes, baselines, skeletons, user recipes, anchors, recoveries, slow compilers.

A skeleton is a pruned model without a training: it tells what a pruning method saves. At last comes the untouched model, trained as
long as the front's leading point.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from autocut.counting import format_count
from autocut.recipe import NO_STUDENT, STUDENT, UNTOUCHED, Lowering, Recipe
from autocut.search.anchor_choice import suited_anchors
from autocut.search.estimates import on_ladder, recipe_s
from autocut.search.finalists import is_slow
from autocut.search.jobs import Phase, PlannedJob, Purpose
from autocut.search.lowerings import (
    LoweringChoice,
    affordable_lowerings,
    by_promise,
    is_cheap,
    keeps_float_in_vain,
    lowerings_by_seconds,
    promising_most,
    seconds_in_turn,
    waits_for_its_simpler,
)
from autocut.search.recoveries import recoveries
from autocut.search.state import SearchState
from autocut.space import Axis

_SKELETON_LOWERINGS = 3
_BASELINES_SHARE = 0.1
"""Share of the workers' whole time that lowerings of the untouched model may take before anything is pruned or trained."""
_BASELINES_JOB_S = 10.0
"""Lowerings for about so many seconds make a job, or for as long as two processes take to start: what they have taken decides
what is still worth having."""
_LONGEST_BASELINE = 0.25
"""Share of that time which one lowering may take that is not quick."""
_COMPILING_SHARE = 0.05
"""Share of the time so far that slow lowerings without a proposal may have had."""
_SAVES_LITTLE = 0.9
"""Cost of a pruned model, as a share of the untouched one's, from which on it counts as noise: a busy neighbour changes 5%."""

_TRAINED_AT = 0.6
_TRAINED_SHARE = 0.1
"""The untouched model is trained on after this share of the search's time, if that takes at most this share of the budget."""

Steps = Iterator[PlannedJob | None]
"""Jobs of one phase; None while the next job depends on jobs that still run."""


def opening(state: SearchState, choice: LoweringChoice) -> Iterator[tuple[Phase, PlannedJob | None]]:
    """Yield each phase with its next job, until the search proposes. The job is None while it must wait for running jobs."""
    phases: dict[Phase, Callable[[SearchState, LoweringChoice], Steps]] = {
        Phase.LEARNED: learned,
        Phase.BASELINES: baselines,
        Phase.COST_FIRST: methods,
        Phase.USER_RECIPES: user_recipes,
        Phase.RATIOS: ratios,
        Phase.RECOVERIES: recoveries,
    }
    for phase, steps in phases.items():
        if state.settings.tactics.cost_first or phase not in (Phase.COST_FIRST, Phase.RATIOS, Phase.RECOVERIES):
            yield from ((phase, planned) for planned in steps(state, choice))


def learned(state: SearchState, _: LoweringChoice) -> Steps:
    """The recipes of an earlier study's front, with as many epochs as fit the budget. A slow model has a job for each recipe."""
    for recipes in state.settings.learned:
        possible = [on_ladder(state, recipe) for recipe in recipes if recipe.lowering in affordable_lowerings(state)]
        for group in [[recipe] for recipe in possible] if is_slow(state) else [possible]:
            if group:
                yield PlannedJob(tuple(dict.fromkeys(group)), Purpose.ANCHOR, f"learned: {group[0].prefix.describe()}")


def baselines(state: SearchState, _: LoweringChoice) -> Steps:
    """The untouched model with the lowerings that are worth their seconds, the most promising ones first, for a share of the time.

    Those are the quick ones, and one that takes longer if it promises more than everything that was measured. What is left waits
    among the slow lowerings: in a short search a pruned model is worth more than the tenth form of the untouched one. Each job is
    chosen when a worker is free for it, because by then more is known. Of a slow model every lowering is a job, so that a good one
    can be finalized at once.
    """
    left = [lowering for lowering in lowerings_by_seconds(state) if lowering != UNTOUCHED.lowering]
    begun: list[Lowering] = []
    while left := [one for one in left if one not in begun and not keeps_float_in_vain(state, one)]:
        group = _next_baselines(state, by_promise(state, _worth_now(state, left)), begun)
        if not group:
            if not (state.runs(Purpose.QUICK_LOWERINGS) and any(waits_for_its_simpler(state, one) for one in left)):
                return
            yield None  # it is not known yet whether layers must stay float
            continue
        begun += group
        recipes = tuple(UNTOUCHED.with_lowering(*lowering) for lowering in group)
        why = f"baselines: the untouched model in {format_count(len(group), 'more form')}"
        yield PlannedJob(recipes, Purpose.QUICK_LOWERINGS, why, may_skip=False)


def _worth_now(state: SearchState, lowerings: Sequence[Lowering]) -> list[Lowering]:
    """Those of `lowerings` that may be tried before anything is pruned.

    That layers stay float is not, until it is known what the dtype loses without that. Every form of a slow model is slow: where
    it can be pruned too, those alone are worth it that promise the most, and one in any case: pruned models need a form that runs.
    """
    known = [one for one in lowerings if not waits_for_its_simpler(state, one)]
    quick = [one for one in known if is_cheap(state, one)]
    if is_slow(state) and not _prunes_or_trains(state):
        return quick
    promising = promising_most(state, known)
    longest_s = _LONGEST_BASELINE * _baselines_s(state)
    fits = [one for one in known if one in promising and (one in quick or state.planner.lowering_s(one) <= longest_s)]
    if is_slow(state):
        return fits if fits or _has_form(state) else quick
    return list(dict.fromkeys([*quick, *fits]))


def _has_form(state: SearchState) -> bool:
    """Whether the untouched model was measured in another form than its own, or is just now."""
    measured = any(recipe.prefix == UNTOUCHED and recipe != UNTOUCHED for recipe in state.finished)
    return measured or state.runs(Purpose.QUICK_LOWERINGS)


def _prunes_or_trains(state: SearchState) -> bool:
    space = state.settings.space
    return space.axis("prune.method") is not None or space.axis("train.epochs") is not None


def _baselines_s(state: SearchState) -> float:
    """Seconds of the workers that lowerings of the untouched model may take before anything is pruned or trained."""
    return _BASELINES_SHARE * state.settings.budget_s * state.settings.workers


def _next_baselines(state: SearchState, left: Sequence[Lowering], begun: Sequence[Lowering]) -> list[Lowering]:
    """Return the first of `left` that make one more job; none where those that have `begun` take all of the share."""
    may_take_s = _baselines_s(state) if _prunes_or_trains(state) else math.inf
    ends = list(itertools.accumulate(seconds_in_turn(state, [*begun, *left])))
    before_s = ends[len(begun) - 1] if begun else 0.0
    if is_slow(state):
        return list(left[:1]) if before_s < may_take_s else []
    job_s = max(_BASELINES_JOB_S, 2 * state.planner.process_s())
    fits = [end for end in ends[len(begun) :] if end <= min(may_take_s, before_s + job_s)]
    at_least = 1 if before_s < may_take_s else 0
    return list(left[: max(len(fits), at_least)])


def methods(state: SearchState, choice: LoweringChoice) -> Steps:
    """Each pruning method once without training: does it save anything here? And what each student costs."""
    while state.runs(Purpose.QUICK_LOWERINGS):
        yield None  # the best lowerings are not known yet
    if ratio_axis := state.settings.space.axis("prune.ratio"):
        for method in pruning_methods(state):
            yield skeleton(state, choice, method, [nearest_value(ratio_axis, 0.5)])
    for student in students(state):
        yield student_cost(state, choice, student)


def user_recipes(state: SearchState, choice: LoweringChoice) -> Steps:
    """The user's recipes, which run however bad they look; then the anchors with a quick lowering. Each with its siblings."""
    for recipe in state.settings.user_recipes:
        why = f"asked for: {recipe.prefix.describe()}"
        yield PlannedJob(choice.with_siblings(recipe), Purpose.USER_RECIPE, why, may_skip=False)
    yield from (planned for planned in anchors(state, choice) if is_cheap(state, planned.recipes[0].lowering))


def ratios(state: SearchState, choice: LoweringChoice) -> Steps:
    """Each pruning method that saves something, at more ratios and without training: this prices what is trained later.

    Recipes whose cost is known already are left out.
    """
    while state.runs(Purpose.COST_FIRST):
        yield None  # which methods are worth more ratios is not known yet
    every = pruning_methods(state)
    for at, method in enumerate(every):
        has_earlier_twin = not state.costs.twins(method).isdisjoint(every[:at])
        axis = state.settings.space.axis("prune.ratio")
        if axis and not _saves_little(state, method) and not has_earlier_twin:
            # The ends of the axis too: between them every cost can be interpolated.
            yield skeleton(state, choice, method, dict.fromkeys(nearest_value(axis, wanted) for wanted in (1.0, 0.75, 0.25)))


def anchors(state: SearchState, choice: LoweringChoice) -> Iterator[PlannedJob]:
    """The space's anchors as they suit models like this one, with as many epochs as fit the budget (`anchor_choice`).

    How many fit is asked when the turn of an anchor has come: the trainings before it have told what an epoch takes.
    """
    begun: set[Recipe] = set()
    for anchor in suited_anchors(state):
        recipe = on_ladder(state, anchor)
        if recipe in begun:
            continue
        begun.add(recipe)
        yield PlannedJob(choice.with_siblings(recipe), Purpose.ANCHOR, f"anchor: {recipe.prefix.describe()}")


class SlowLowerings:
    """What needs a slow compiler, and what the baselines had no time for.

    First the anchors of the space. Then the untouched model: its quick lowerings by their promise, then with each slow mode once
    before any with another dtype. All are rationed, because early in a search a worker finds more with quick lowerings of pruned
    models. One gets its turn when all of them together have had less than a share of the time so far.
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
            planned, recipe = self._waiting[0], self._waiting[0].recipes[0]
            is_vain = planned.purpose is Purpose.SLOW_LOWERING and keeps_float_in_vain(self._state, recipe.lowering)
            if is_vain or self._state.is_settled(recipe):
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
        quick = by_promise(state, [lowering for lowering in lowerings_by_seconds(state) if lowering not in slow])
        for dtype, mode in [*quick, *sorted(slow, key=lambda lowering: of_mode[lowering[1]].index(lowering))]:
            why = f"compilers: the untouched model, {dtype} by {mode}"
            untouched = UNTOUCHED.with_lowering(dtype, mode)
            planned.setdefault(untouched, PlannedJob((untouched,), Purpose.SLOW_LOWERING, why, may_skip=False))
        return planned.values()


class TrainedBaseline:
    """The honest baseline of a front that trains: the untouched model, trained as long as its leading point. One a search.

    It waits until most of the search's time is over, because the leading point changes until then. `ranked()` returns what will be
    finalized, the most important first.
    """

    def __init__(self, state: SearchState, ranked: Callable[[], Iterable[Recipe]]) -> None:
        self._state = state
        self._ranked = ranked
        self._is_planned = False

    def next(self, spent_s: float, left_s: float) -> PlannedJob | None:
        """Return its job; None before it is due, or where there is no such point, or it takes too much of the time.

        Args:
            spent_s: Seconds of the budget that are spent; infinity where the search has nothing else to do.
            left_s: Seconds that are left for the search.
        """
        tactics = self._state.settings.tactics
        if self._is_planned or not tactics.trained_baseline or spent_s < _TRAINED_AT * (spent_s + left_s):
            return None
        trained = (recipe for recipe in self._ranked() if recipe.is_trained and recipe.student is None)
        leading = next((recipe for recipe in trained if not recipe.only_trains_on), None)
        if leading is None:
            return None
        baseline = leading.untouched_trained_alike
        self._is_planned = True  # even if it takes too long: less time is left later
        is_there = self._state.is_settled(baseline) or self._state.is_running(baseline)
        if is_there or recipe_s(self._state, baseline) > min(left_s, _TRAINED_SHARE * self._state.settings.budget_s):
            return None
        why = f"baselines: the untouched model trained as long as {leading.describe()}"
        return PlannedJob((baseline,), Purpose.TRAINED_BASELINE, why, may_skip=False)


def nearest_value(axis: Axis, wanted: float) -> float:
    """Return the value of a numeric `axis` that is nearest to `wanted`."""
    if axis.choices:
        return min((float(choice) for choice in axis.choices), key=lambda choice: abs(choice - wanted))
    low, high = float(axis.low or 0.0), float(axis.high or 0.0)
    inside = min(max(wanted, low), high)
    return round(low + round((inside - low) / axis.step) * axis.step, 10) if axis.step else inside


def pruning_methods(state: SearchState) -> list[str]:
    """Return the pruning methods of the space."""
    axis = state.settings.space.axis("prune.method")
    return [str(method) for method in axis.choices if method != UNTOUCHED["prune.method"]] if axis else []


def students(state: SearchState) -> list[str]:
    """Return the names of the task's students in the space."""
    axis = state.settings.space.axis(STUDENT)
    return [str(name) for name in axis.choices if name != NO_STUDENT] if axis else []


def student_cost(state: SearchState, choice: LoweringChoice, student: str) -> PlannedJob:
    """The structure of a student with its cheapest lowerings, only timed: before its training its answers mean nothing."""
    prefix = Recipe({STUDENT: student})
    lowered = [prefix.with_lowering(*lowering) for lowering in _pricing_lowerings(state, choice, prefix)]
    recipes = tuple(recipe for recipe in lowered if not state.costs.is_known(recipe))
    return PlannedJob(recipes, Purpose.PRICING, f"cost first: {prefix.describe()}, not trained", may_skip=False)


def _saves_little(state: SearchState, method: str) -> bool:
    """Whether pruning by `method` was measured and saved little everywhere, as zeros do without a kernel for them."""
    known = {**state.priced, **state.finished}
    ratios = [
        values["usd_per_million"] / untouched["usd_per_million"]
        for recipe, values in known.items()
        if recipe["prune.method"] == method and (untouched := known.get(UNTOUCHED.with_lowering(*recipe.lowering)))
    ]
    return bool(ratios) and min(ratios) > _SAVES_LITTLE


def skeleton(state: SearchState, choice: LoweringChoice, method: str, ratios: Iterable[float]) -> PlannedJob:
    """A method at some ratios, with its cheapest lowerings and without training; what was priced beside a training is left out."""
    every = [Recipe({"prune.method": method, "prune.ratio": ratio}) for ratio in ratios]
    priced = {recipe.prefix for recipe in state.priced}
    prefixes = [prefix for prefix in every if prefix not in priced]
    lowered = (prefix.with_lowering(*lowering) for prefix in prefixes for lowering in _pricing_lowerings(state, choice, prefix))
    recipes = tuple(recipe for recipe in lowered if not state.costs.is_known(recipe))
    why = f"cost first: {method} {', '.join(f'{ratio:g}' for ratio in ratios)} without training"
    return PlannedJob(recipes, Purpose.COST_FIRST, why, may_skip=False)


def _pricing_lowerings(state: SearchState, choice: LoweringChoice, prefix: Recipe) -> list[Lowering]:
    """The cheapest lowerings: what a structure saves with them, it saves about with the slow ones too."""
    lowerings = choice.promising(prefix)
    return ([lowering for lowering in lowerings if is_cheap(state, lowering)] or lowerings)[:_SKELETON_LOWERINGS]
