"""Which lowerings (dtype, compile mode) a trained prefix is measured with."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

from autocut.recipe import UNTOUCHED, Cut, Lowering, Recipe, without_kept
from autocut.search.cost_model import cheapest_modes
from autocut.search.early_stopping import is_beaten
from autocut.search.estimates import is_too_long
from autocut.search.finalists import is_slow
from autocut.search.first_guesses import Guess, kept_of, surprise_expected
from autocut.search.jobs import Phase, Purpose
from autocut.search.state import SearchState

_EXPENSIVE_SHARE = 0.1
"""A lowering that takes more than this share of the budget is not tried: a short budget spends its time on the cheap ones."""
_MEASURING, _MEASURING_SLOWLY = 2.0, 4.0
"""... unless it takes at most this many times what scoring and timing a model takes: a slow model is slow with every lowering, and
the cheapest lowering that is faster is the one that its user waits for."""
_CHEAP_S = 12.0
"""A lowering of at most this many seconds is tried before its result on the untouched model is known. On a slow processor it may
take longer: there everything does."""
_NEUTRAL_DTYPE = Guess(speedup=2.0, size_ratio=0.5, kept=1.0, seconds=30.0)
_NEUTRAL_MODE = Guess(speedup=1.1, size_ratio=1.0, kept=1.0, seconds=30.0)
"""What is guessed of a lowering in another dtype, or in another mode alone, where nothing is known of its methods."""
_WORTH_IT = 1.5
"""A guessed speed-up for which a person would deploy a model."""
_SECOND_BEST = 1.1
"""A prefix does not get a lowering that costs this many times as much as another one of the same dtype..."""
_AS_ACCURATE = 0.002
"""... unless it was more accurate by this much on the untouched model."""


def affordable_lowerings(state: SearchState) -> list[Lowering]:
    """Return the lowerings of the space that run here and do not take too much of the budget."""
    limit_s = max(_EXPENSIVE_SHARE * state.settings.budget_s, _usual_s(state))
    return [lowering for lowering in _runnable(state) if state.planner.lowering_s(lowering) <= limit_s]


def unaffordable_lowerings(state: SearchState) -> dict[Lowering, float]:
    """Return the lowerings of the space that run here but take too long to make, with their seconds."""
    affordable = affordable_lowerings(state)
    return {lowering: state.planner.lowering_s(lowering) for lowering in _runnable(state) if lowering not in affordable}


def lowerings_by_seconds(state: SearchState) -> list[Lowering]:
    """Return the affordable lowerings, the quickest first."""
    return sorted(affordable_lowerings(state), key=state.planner.lowering_s)


def is_cheap(state: SearchState, lowering: Lowering) -> bool:
    """Whether making the lowering takes seconds, not a good part of a minute; or little beside measuring the model."""
    return state.planner.lowering_s(lowering) <= max(state.planner.slowdown * _CHEAP_S, _usual_s(state))


def by_promise(state: SearchState, lowerings: Collection[Lowering]) -> list[Lowering]:
    """Order lowerings of the untouched model that were not measured yet: the most expected gain per second first.

    The very first one is the quickest to make that is worth having, so that there is something to deploy early; or the one that was
    made while the untouched model was measured. Of a slow model those come last that would wait for a conversion which another job
    is making. That layers stay float is tried after the dtype without that: if it has lost nothing, there is nothing to win.
    """
    guesses, seconds = guessed(state, lowerings), partial(_seconds, state)

    def promise(lowering: Lowering) -> tuple[bool, bool, bool, float]:
        (dtype, kept), mode = without_kept(lowering[0]), lowering[1]
        has_no_simpler = not kept or (dtype, mode) not in lowerings
        waits_for_none = not is_slow(state) or state.planner.is_converted(mode) or mode not in running
        return lowering in (prepared, first), waits_for_none, has_no_simpler, guesses[lowering].gain / seconds(lowering)

    running = {recipe.lowering[1] for job in state.running.values() for recipe in job.job.recipes}
    prepared = None if state.runs(Purpose.PREPARATION) else state.prepared
    is_first = state.finished.keys() == {UNTOUCHED} and not state.runs(Purpose.QUICK_LOWERINGS)
    first = first_lowering(state, lowerings) if is_first and prepared not in lowerings else None
    return sorted(lowerings, key=promise, reverse=True)


def first_lowering(state: SearchState, lowerings: Collection[Lowering]) -> Lowering | None:
    """Return the quickest of `lowerings` to make that is worth having, of several the most promising.

    Where none promises that much, as on a processor of which little is known, it is the one with the most speed-up per second: a
    smaller model that is no faster is not what anyone waits for.
    """
    guesses = guessed(state, lowerings)
    worth_it = [lowering for lowering in lowerings if guesses[lowering].speedup >= _WORTH_IT]
    if not worth_it:
        return max(lowerings, key=lambda one: math.log(guesses[one].speedup) / _seconds(state, one), default=None)
    return min(worth_it, key=lambda lowering: (_seconds(state, lowering), -guesses[lowering].gain))


def keeps_float_in_vain(state: SearchState, lowering: Lowering) -> bool:
    """Whether layers stay float though the untouched model loses nothing without that: then they only cost."""
    dtype, kept = without_kept(lowering[0])
    plain, untouched = (state.finished.get(UNTOUCHED.with_lowering(*one)) for one in ((dtype, lowering[1]), UNTOUCHED.lowering))
    return bool(kept) and plain is not None and untouched is not None and plain["accuracy"] >= untouched["accuracy"]


def waits_for_its_simpler(state: SearchState, lowering: Lowering) -> bool:
    """Whether layers stay float, and it is not known yet what the untouched model loses without that."""
    dtype, kept = without_kept(lowering[0])
    simpler = UNTOUCHED.with_lowering(dtype, lowering[1])
    return bool(kept) and simpler.lowering in affordable_lowerings(state) and not state.is_settled(simpler)


def promising_most(state: SearchState, lowerings: Collection[Lowering]) -> set[Lowering]:
    """Those of `lowerings` that promise more gain, or more speed, than every measured lowering of the untouched model has brought.

    Speed by itself counts too, because sizes are guessed from smaller models, of whose files a part is no weights. And guesses from
    another processor are believed whole: what it may bring is asked here, not what is likely.
    """
    brought = [_brought(state, recipe) for recipe in state.finished if recipe.prefix == UNTOUCHED]
    gain = max((one.gain for one in brought), default=0.0)
    speed = max((one.speed for one in brought), default=0.0)
    guesses = guessed(state, lowerings, trust=1.0)
    return {lowering for lowering, guess in guesses.items() if guess.gain > gain or guess.speed > speed}


def _brought(state: SearchState, recipe: Recipe) -> Guess:
    """What a measured lowering of the untouched model has brought, as a guess counts it."""
    values, untouched = state.finished[recipe], state.finished[UNTOUCHED]
    kept = kept_of(values["accuracy"] - untouched["accuracy"], untouched["accuracy"])
    return Guess(values["speedup"], values["size_bytes"] / untouched["size_bytes"], kept, 0.0)


def guessed(state: SearchState, lowerings: Collection[Lowering], trust: float | None = None) -> dict[Lowering, Guess]:
    """Guess what each of `lowerings` brings to the untouched model, from other models and from its lowerings that were timed.

    Where int8 brings twice what was guessed in one mode, this processor is probably good at it, so more is expected of int8 in the
    others; and the other way round. So do dtypes in a mode that is slower or faster than guessed. `trust` is how much guesses from
    another processor are believed; None: as much as usual.
    """
    known = state.first_guesses if trust is None else replace(state.first_guesses, trust=trust)
    timed = _timed(state)
    guesses = {one: known.lowering(one) or _neutral(state, one) for one in {*lowerings, *timed}}
    surprises = {one: math.log(speedup / guesses[one].speedup) for one, speedup in timed.items()}
    return {
        one: replace(guesses[one], speedup=guesses[one].speedup * math.exp(surprise_expected(one, surprises))) for one in lowerings
    }


def _timed(state: SearchState) -> dict[Lowering, float]:
    """How much faster each lowering of the untouched model is that was timed."""
    timed = {
        recipe.lowering: values["speedup"]
        for recipe, values in [*state.priced.items(), *state.finished.items()]
        if recipe.prefix == UNTOUCHED and values["speedup"] > 0
    }
    timed.pop(UNTOUCHED.lowering, None)
    return timed


def _neutral(state: SearchState, lowering: Lowering) -> Guess:
    """What is guessed of a plug-in's methods, which no family of models has tried."""
    is_mode_alone = lowering[0] == UNTOUCHED.lowering[0]
    usual = _NEUTRAL_MODE if is_mode_alone else _NEUTRAL_DTYPE
    return replace(usual, speedup=state.settings.registered_speedups.get(lowering, usual.speedup))


def _seconds(state: SearchState, lowering: Lowering) -> float:
    return state.planner.lowering_s(lowering, is_converted=state.planner.is_converted(lowering[1]))


def seconds_in_turn(state: SearchState, lowerings: Sequence[Lowering]) -> list[float]:
    """Seconds of each lowering of the untouched model, one after the other: the first of a mode pays for its conversion."""
    modes = [mode for _, mode in lowerings]
    return [
        state.planner.lowering_s(lowering, is_converted=mode in modes[:at])
        for at, (lowering, mode) in enumerate(zip(lowerings, modes, strict=True))
    ]


def _usual_s(state: SearchState) -> float:
    """Seconds of a lowering that are nothing unusual beside what measuring a model takes."""
    return (_MEASURING_SLOWLY if is_slow(state) else _MEASURING) * state.planner.measuring_s()


def _runnable(state: SearchState) -> list[Lowering]:
    space, graphs = state.settings.space, state.settings.graphs
    wanted = itertools.product(space.dtypes(), space.methods("compile.mode"))
    return [lowering for lowering in wanted if lowering in graphs]


def _is_as_wide_as_its_parent(state: SearchState, recipe: Recipe) -> bool:
    """Whether an iteratively pruned child has the structure of its parent, because ratios are rounded to whole units."""
    if recipe.parent is None:
        return False
    if state.same_cuts.is_as_cut_as_its_parent(recipe):
        return True
    pairs = [(recipe.with_lowering(*lowering), recipe.parent.with_lowering(*lowering)) for lowering in state.settings.graphs]
    return any(state.costs.is_known(own) and state.costs.predict(own) == state.costs.predict(parent) for own, parent in pairs)


class LoweringChoice:
    """Chooses lowerings for prefixes. It remembers the ranking of each structure until the state has a new result."""

    def __init__(self, state: SearchState) -> None:
        self._state = state
        self._ranked: dict[Cut, list[Lowering]] = {}
        self._ranked_at = state.revision

    def promising(self, prefix: Recipe) -> list[Lowering]:
        """Return the lowerings of `prefix` that no other lowering is known to beat, the cheapest first."""
        if self._ranked_at != self._state.revision:
            self._ranked.clear()
            self._ranked_at = self._state.revision
        if prefix.cut not in self._ranked:
            self._ranked[prefix.cut] = self._rank(prefix)
        infeasible = self._state.infeasible
        suitable = [lowering for lowering in self._ranked[prefix.cut] if prefix.suits_dtype(lowering[0])]
        return [lowering for lowering in suitable if prefix.with_lowering(*lowering) not in infeasible]

    def with_siblings(self, recipe: Recipe) -> tuple[Recipe, ...]:
        """Return `recipe`, then its prefix with every other lowering that is promising, cheap and not beaten.

        Lowerings that take long to make are proposed later, where they promise enough for their seconds.
        """
        siblings = [one for one in self.fan_out(recipe) if one != recipe and is_cheap(self._state, one.lowering)]
        return (recipe, *siblings)

    def fan_out(self, recipe: Recipe) -> tuple[Recipe, ...]:
        """Return the prefix of `recipe` with every promising lowering that is not beaten, its own lowering first."""
        state = self._state
        if not state.settings.tactics.fan_out:
            return () if is_beaten(state, recipe) or recipe.lowering not in affordable_lowerings(state) else (recipe,)
        if is_too_long(state, recipe) or _is_as_wide_as_its_parent(state, recipe):
            return ()
        siblings = [recipe.prefix.with_lowering(*lowering) for lowering in self.promising(recipe.prefix)]
        left = [sibling for sibling in siblings if not is_beaten(state, sibling)]
        return tuple(sorted(left, key=lambda sibling: sibling != recipe))

    def _rank(self, prefix: Recipe) -> list[Lowering]:
        state, metrics = self._state, self._state.settings.cost_metrics
        lowerings = [lowering for lowering in affordable_lowerings(state) if self._may_be_given(lowering)]
        predict = state.costs.predict
        predicted = {one: predict(prefix.with_lowering(*one)) or predict(UNTOUCHED.with_lowering(*one)) for one in lowerings}
        costs = {lowering: cost for lowering, cost in predicted.items() if cost}
        first = metrics[0] if metrics else "usd_per_million"
        ranked = sorted(
            cheapest_modes(lowerings, costs, state.settings.graphs, metrics),
            key=lambda lowering: costs.get(lowering, {}).get(first, float("inf")),
        )
        cheapest: dict[str, Lowering] = {}
        for lowering in ranked:
            cheapest.setdefault(lowering[0], lowering)
        return [lowering for lowering in ranked if not self._is_second_best(lowering, cheapest[lowering[0]], costs)]

    def _may_be_given(self, lowering: Lowering) -> bool:
        """Whether it works on the untouched model. Until the baselines end, a quick one is expected to."""
        untouched = UNTOUCHED.with_lowering(*lowering)
        if untouched in self._state.infeasible:
            return False
        is_expected = self._state.phase in (Phase.LEARNED, Phase.BASELINES) and is_cheap(self._state, lowering)
        return is_expected or untouched in self._state.finished

    def _is_second_best(self, lowering: Lowering, best: Lowering, costs: Mapping[Lowering, Mapping[str, float]]) -> bool:
        """Whether another lowering of the same dtype is clearly cheaper, never clearly costlier, and as accurate untouched."""
        metrics, finished = self._state.settings.cost_metrics, self._state.finished
        if lowering == best or lowering not in costs or best not in costs or not metrics:
            return False
        accuracy, rival = (finished.get(UNTOUCHED.with_lowering(*one), {}).get("accuracy", 0.0) for one in (lowering, best))
        first, *others = (costs[lowering][name] / costs[best][name] for name in metrics)
        return first > _SECOND_BEST and all(other > 1 / _SECOND_BEST for other in others) and rival >= accuracy - _AS_ACCURATE
