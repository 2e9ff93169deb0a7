"""From the sampler's ideas to jobs: what is worth running, the most promising first, several in one job where they are short.

The sampler offers recipes of the whole space. An idea never runs if it is known already, cannot run here, does not fit into the
time that is left, or is beaten on cost even at the best accuracy seen. The others compete with variations of the front: the offer
that promises the most hypervolume per predicted second runs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from autocut.budget import Clock
from autocut.recipe import PARENT_RATIO, UNTOUCHED, Recipe
from autocut.search.accuracy_surrogate import AccuracySurrogate
from autocut.search.acquisition import Acquisition, Choice, Growth
from autocut.search.early_stopping import is_beaten
from autocut.search.estimates import ExpectedCost, fitting, recipe_s, seconds_each, total_s, training_s
from autocut.search.jobs import PlannedJob, Purpose
from autocut.search.lowerings import LoweringChoice
from autocut.search.proposals import Proposer
from autocut.search.state import SearchState, family
from autocut.search.volume import Volume

_ASKS = 60
"""Ideas of the sampler for one offer at most; if none of them is worth running, the space counts as explored."""
_ASKS_BESIDE = 3
"""The same while variations of the front compete: a sampler that repeats itself costs time."""
_PROPOSING_S = 2.0
_VARIATIONS = 24
"""Variations of front points that are looked at beside them..."""
_JUDGED = 8
"""... and those that are judged with all their lowerings."""
_PACKED = 8
"""Offers in one job at most, where they are short."""
_LEAST_S = 3.0
"""Predicted seconds of work for which a process is started, and its events are recorded..."""
_STARTS = 4
"""... and at least so many times what a process takes before it works: a large task takes seconds to load."""
_FIXED_S = 1.0
"""Seconds that every offer takes besides its stages: its share of a process, events, records."""


@dataclass(frozen=True)
class ProposedJob:
    """A job of proposals, and its recipes that become running trials, each with the sampler's trial or None."""

    planned: PlannedJob
    trials: Mapping[Recipe, Any]


@dataclass(frozen=True)
class _Offer:
    """A prefix with its lowerings; `trial` is the sampler's, for the recipe `proposed`; None for a variation."""

    recipes: tuple[Recipe, ...]
    proposed: Recipe
    trial: Any


class Proposing:
    """Makes jobs out of proposals. It remembers how long it has looked in vain."""

    def __init__(self, state: SearchState, choice: LoweringChoice, proposer: Proposer, clock: Clock) -> None:
        self._state = state
        self._choice = choice
        self._proposer = proposer
        self._clock = clock
        self._surrogate = AccuracySurrogate(state.settings.space, state.settings.graph, proposer.seed)
        self._acquisition = Acquisition(self._surrogate, ExpectedCost(state))
        self._learned = 0
        self._dry = 0
        self._too_long = 0
        self._dry_at = -1

    @property
    def is_dry(self) -> bool:
        """Whether many ideas in a row were not worth running: the space is explored, or time has become too short."""
        return self._dry >= _ASKS

    @property
    def is_short_of_time(self) -> bool:
        """Whether an idea was worth running but did not fit into the time that is left."""
        return self._too_long > 0

    @property
    def is_explored(self) -> bool:
        """Whether many ideas in a row were not worth running, and no lack of time was the reason."""
        return self.is_dry and not self.is_short_of_time

    def start_afresh(self) -> None:
        """Forget the ideas that were not worth running: they may be worth it now."""
        self._dry, self._too_long, self._dry_at = 0, 0, -1

    def forget(self, trial: Any) -> None:
        """Drop an idea of the sampler that does not run: another search of the study was quicker."""
        if trial is not None:
            self._proposer.forget(trial)

    def next_job(self, left_s: float) -> ProposedJob | None:
        """Return a job of one offer, or of a few where they are short beside what a process takes; None where nothing is worth it.

        While other jobs run and nothing new is known, an answer of None is not computed again.

        Args:
            left_s: Seconds in which the recipes must be done.
        """
        state = self._state
        settled = len(state.finished) + len(state.infeasible) + len(state.given_up)
        if self._dry_at == settled and state.running:
            return None
        self._learn()
        until = self._clock() + _PROPOSING_S
        enough_s = max(_STARTS * state.planner.process_s(), _LEAST_S)
        packed: tuple[Recipe, ...] = ()
        trials: dict[Recipe, Any] = {}
        while total_s(state, packed) < enough_s and len({recipe.prefix for recipe in packed}) < _PACKED:
            offer = self._propose(packed, left_s - total_s(state, packed), until)
            if offer is None:
                break
            packed += offer.recipes
            if offer.proposed in offer.recipes:
                trials[offer.proposed] = offer.trial
        if not packed:
            self._dry_at = settled
            return None
        beside = "" if len(packed) == 1 else f" and {len(packed) - 1} more"
        return ProposedJob(PlannedJob(packed, Purpose.PROPOSAL, f"proposed: {packed[0].describe()}{beside}"), trials)

    def _learn(self) -> None:
        """Show the surrogate what was finished since the last call."""
        finished = self._state.finished
        for recipe, values in itertools.islice(finished.items(), self._learned, None):
            self._surrogate.learn(recipe, values["accuracy"])
        self._learned = len(finished)

    def _propose(self, packed: Sequence[Recipe], left_s: float, until: float) -> _Offer | None:
        """Return the best offer that is worth running beside those `packed` already."""
        offers = self._offers(packed, left_s, until)
        if not offers:
            return None
        choice = self._choose(offers)
        if packed and choice.rate <= 0 and not self._state.is_relaxed:
            return None
        best = replace(offers.pop(choice.offer), recipes=choice.recipes)
        # The sampler's trial is dropped too if its prefix runs with other lowerings only.
        unused = [*offers, *([] if best.proposed in best.recipes else [best])]
        for offer in unused:
            if offer.trial is not None:
                self._proposer.forget(offer.trial)
        return best

    def _choose(self, offers: Sequence[_Offer]) -> Choice:
        state, growth = self._state, self._growth()
        if growth is None or not state.settings.tactics.gain_per_second:
            return Choice(0, offers[0].recipes, math.inf)
        seconds, shared_s = [], []
        for offer in offers:
            of_training = training_s(state, offer.recipes[0])
            first, *others = seconds_each(state, offer.recipes)
            seconds.append([first - of_training, *others])
            shared_s.append(_FIXED_S + of_training)
        return self._acquisition.best([offer.recipes for offer in offers], seconds, shared_s, growth)

    def _growth(self) -> Growth | None:
        """What new points add to the front; None before the untouched model is measured."""
        state = self._state
        untouched, front = state.finished.get(UNTOUCHED), list(state.front.values.values())
        if untouched is None:
            return None
        return Growth(front, Volume(state.settings.objectives, untouched, front, state.allowed_drop), state.metric_noise)

    def _offers(self, packed: Sequence[Recipe], left_s: float, until: float) -> list[_Offer]:
        """An idea of the sampler and, once they can be weighed, variations of the front; only variations fill up a job."""
        weighs = self._state.settings.tactics.gain_per_second and self._surrogate.is_ready()
        taken = {*packed, *self._state.open}
        offers = [] if weighs and packed else self._asked(taken, left_s, until, _ASKS_BESIDE if weighs else _ASKS)
        offers += self._variations([offer.proposed for offer in offers], taken, left_s) if weighs else []
        if not (offers or packed) and weighs:
            offers = self._asked(taken, left_s, until, _ASKS - _ASKS_BESIDE)
        if offers or packed:
            self._dry, self._too_long = 0, 0
        return offers

    def _asked(self, taken: Collection[Recipe], left_s: float, until: float, asks: int) -> list[_Offer]:
        """The sampler's first idea that is worth running."""
        for _ in range(asks):
            if self._clock() > until:
                break
            trial, recipe = self._proposer.propose()
            is_useless = self._is_useless(recipe)
            if not is_useless and (recipes := self._worth_running(recipe, taken, left_s)):
                return [_Offer(recipes, recipe, trial)]
            self._dry += 1
            if is_useless or is_beaten(self._state, recipe) or recipe.lowering not in self._choice.promising(recipe.prefix):
                self._proposer.reject(trial)
            else:
                self._proposer.forget(trial)
        return []

    def _is_useless(self, recipe: Recipe) -> bool:
        """Whether `recipe` will lose more than is allowed, even by the most hopeful guess of its accuracy."""
        if self._state.allowed_drop is None or not self._surrogate.is_ready():
            return False
        return bool(self._surrogate.guesses([recipe]).max() < self._state.least_accuracy)

    def _variations(self, proposed: Sequence[Recipe], taken: Collection[Recipe], left_s: float) -> list[_Offer]:
        """Children of trained prefixes, and front points with one or two settings changed."""
        state = self._state
        front = list(state.front.values)
        places = [front[at % len(front)] for at in self._proposer.places(_VARIATIONS)] if front else []
        # A new prefix keeps the lowering of its front point: only the most promising ones are judged with all lowerings.
        varied = [self._with_lowering_of(place, self._proposer.vary(place)) for place in places]
        children = [_child(state, recipe) for recipe in (*proposed, *varied)]
        if state.settings.tactics.inheritance:
            children += [self._proposer.prune_more(place) for place in places]
        recipes = dict.fromkeys([*varied, *(child for child in children if child is not None)])
        new = [recipe for recipe in recipes if not state.is_settled(recipe)]
        offers = [_Offer(self._worth_running(recipe, taken, left_s), recipe, None) for recipe in self._promising(new)]
        return [offer for offer in offers if offer.recipes]

    def _with_lowering_of(self, place: Recipe, recipe: Recipe) -> Recipe:
        return recipe if recipe.prefix in self._state.trained else recipe.prefix.with_lowering(*place.lowering)

    def _promising(self, recipes: Sequence[Recipe]) -> list[Recipe]:
        """Those of many recipes that are judged in full: the most hypervolume per second first."""
        state, growth = self._state, self._growth()
        if growth is None or not recipes:
            return []
        seconds = [_FIXED_S + recipe_s(state, recipe) for recipe in recipes]
        chosen = self._acquisition.most_promising(recipes, seconds, _JUDGED, growth)
        if state.is_relaxed:  # then recipes without an expected gain are tried too
            chosen += [at for at in range(len(recipes)) if at not in chosen]
        return [recipes[at] for at in chosen[:_JUDGED]]

    def _worth_running(self, recipe: Recipe, taken: Collection[Recipe], left_s: float) -> tuple[Recipe, ...]:
        """The prefix of a proposal with every promising lowering that is new, not beaten and fits, the proposed lowering first."""
        new = self._new(recipe, taken)
        fits = fitting(self._state, new, left_s)
        self._too_long += bool(new) and not fits
        return fits

    def _new(self, recipe: Recipe, taken: Collection[Recipe]) -> tuple[Recipe, ...]:
        state = self._state
        if any(map(state.is_in_training, recipe.trainings)):
            return ()
        return tuple(
            sibling
            for sibling in self._choice.fan_out(recipe)
            if not state.is_settled(sibling) and sibling not in taken and not state.is_running(sibling)
        )


def _child(state: SearchState, recipe: Recipe) -> Recipe | None:
    """Return `recipe` as a child of the most pruned prefix that is trained and differs only in its ratio; None without one."""
    inheritance = state.settings.tactics.inheritance
    if not inheritance or recipe.parent is not None or "prune.ratio" not in recipe or not recipe.is_trained:
        return None
    smaller = [ratio for ratio in state.trained_ratios.get(family(recipe.prefix), ()) if ratio < float(recipe["prune.ratio"])]
    return Recipe({**recipe, PARENT_RATIO: max(smaller)}) if smaller else None
