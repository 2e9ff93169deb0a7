"""From the sampler's ideas to requests: what is worth running, the most promising first, a few at a time where they are short.

The sampler offers recipes over the joint space. What is a duplicate, cannot be real, does not fit in the time that is left, or is
beaten on cost even at the best accuracy seen, is never run. Of what remains, together with variations of what is on the front, the
offer is taken that promises most hypervolume per predicted second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from autocut.budget import Clock
from autocut.recipe import UNTOUCHED, Recipe
from autocut.search.acquisition import Acquisition, Choice, Forest
from autocut.search.knowledge import Knowledge
from autocut.search.phases import Request
from autocut.search.proposals import Proposer
from autocut.search.volume import Volume

_ASKS = 60
"""Proposals of the sampler for one offer at most; without one worth running the space counts as explored."""
_ASKS_BESIDE = 3
"""The same, as long as there are variations of what is known as well: a sampler that repeats itself costs time."""
_PROPOSING_S = 2.0
_VARIATIONS = 24
"""Variations of front points that are looked at beside them..."""
_JUDGED = 8
"""... and those that are judged with all their lowerings."""
_PACKED = 8
"""Offers in one process at most, where they are short."""
_LEAST_S = 3.0
"""Predicted seconds of work for which a process is started, and its events are recorded..."""
_STARTS = 4
"""... and at least so many times what a process takes before it works: a large task takes seconds to load."""
_FIXED_S = 1.0
"""Seconds that every offer takes besides its stages: its share of a process, events, records."""


@dataclass(frozen=True)
class _Offer:
    """A prefix with its lowerings; `trial` is the sampler's, for the recipe `proposed`; None for a variation."""

    recipes: tuple[Recipe, ...]
    proposed: Recipe
    trial: Any


class Proposing:
    """Makes requests out of proposals, and remembers the trials that are open.

    Args:
        known: Judges.
        proposer: The sampler.
        begin: Makes a recipe a running trial of the study; what it returns is kept with the recipe.
        is_taken: Whether a recipe is being run.
        is_in_training: Whether somebody trains a prefix right now.
        clock: Of the budget.
    """

    def __init__(
        self,
        known: Knowledge,
        proposer: Proposer,
        begin: Callable[[Recipe], Any],
        is_taken: Callable[[Recipe], bool],
        is_in_training: Callable[[Recipe], bool],
        clock: Clock,
    ) -> None:
        self.open: dict[Recipe, tuple[Any, Any]] = {}
        self._known = known
        self._proposer = proposer
        self._begin = begin
        self._is_taken = is_taken
        self._is_in_training = is_in_training
        self._clock = clock
        self._forest = Forest(known.space, known.graph, proposer.seed)
        self._acquisition = Acquisition(self._forest, known.expected_cost)
        self._dry = 0
        self._too_long = 0
        self._dry_at = -1

    def learn(self, recipe: Recipe, accuracy: float) -> None:
        """Take in a measured recipe."""
        self._forest.learn(recipe, accuracy)

    @property
    def is_dry(self) -> bool:
        """Whether nothing worth running was found for long: the space counts as explored, or time has become too short."""
        return self._dry >= _ASKS

    @property
    def is_short_of_time(self) -> bool:
        """Whether something was found that is worth running, but not in the time that is left."""
        return self._too_long > 0

    def start_afresh(self) -> None:
        """What was not worth it may be now: the space does not count as explored any more."""
        self._dry, self._too_long, self._dry_at = 0, 0, -1

    def next_request(self, left_s: float, *, others_run: bool) -> Request | None:
        """One offer, or a few where they are short beside what a process takes; None where nothing is worth it.

        Args:
            left_s: Seconds in which the recipes must be done.
            others_run: Whether more may be known soon: then what was asked in vain is not asked again before.
        """
        settled = len(self._known.done) + len(self._known.dead) + len(self._known.given_up)
        if self._dry_at == settled and others_run:
            return None
        until = self._clock() + _PROPOSING_S
        enough_s = max(_STARTS * self._known.planner.process_s(), _LEAST_S)
        packed: tuple[Recipe, ...] = ()
        while self._known.total_s(packed) < enough_s and len({recipe.prefix for recipe in packed}) < _PACKED:
            more = self._propose(packed, left_s - self._known.total_s(packed), until)
            if not more:
                break
            packed += more
        if not packed:
            self._dry_at = settled
            return None
        beside = "" if len(packed) == 1 else f" and {len(packed) - 1} more"
        return Request(packed, f"proposed: {packed[0].describe()}{beside}")

    def _propose(self, packed: Sequence[Recipe], left_s: float, until: float) -> tuple[Recipe, ...]:
        """Return the recipes of the best offer that is worth running beside those `packed` already."""
        offers = self._offers(packed, left_s, until)
        if not offers:
            return ()
        choice = self._choose(offers)
        if packed and choice.rate <= 0 and not self._known.is_hopeful:
            return ()
        best = replace(offers.pop(choice.offer), recipes=choice.recipes)
        for other in offers:
            if other.trial is not None:
                self._proposer.forget(other.trial)
        if best.proposed in best.recipes:
            self.open[best.proposed] = (self._begin(best.proposed), best.trial)
        elif best.trial is not None:
            self._proposer.forget(best.trial)  # its prefix is run with the lowerings that are promising
        return best.recipes

    def _choose(self, offers: Sequence[_Offer]) -> Choice:
        untouched = self._known.done.get(UNTOUCHED)
        if untouched is None or not self._known.tactics.gain_per_second:
            return Choice(0, offers[0].recipes, math.inf)
        front = self._known.front_values()
        seconds, shared_s = [], []
        for offer in offers:
            training_s = self._known.training_s(offer.recipes[0])
            first, *others = self._known.seconds_each(offer.recipes)
            seconds.append([first - training_s, *others])
            shared_s.append(_FIXED_S + training_s)
        volume = Volume(self._known.space.objectives, untouched, front)
        return self._acquisition.best([offer.recipes for offer in offers], seconds, shared_s, front, volume)

    def _offers(self, packed: Sequence[Recipe], left_s: float, until: float) -> list[_Offer]:
        """An idea of the sampler and, once they can be weighed, variations of the front; they alone fill up a request."""
        weighs, taken = self._known.tactics.gain_per_second and self._forest.is_ready(), {*packed, *self.open}
        offers = [] if weighs and packed else self._asked(taken, left_s, until, _ASKS_BESIDE if weighs else _ASKS)
        offers += self._variations([offer.proposed for offer in offers], taken, left_s) if weighs else []
        if not (offers or packed) and weighs:
            offers = self._asked(taken, left_s, until, _ASKS - _ASKS_BESIDE)
        if offers or packed:
            self._dry, self._too_long = 0, 0
        return offers

    def _asked(self, taken: Collection[Recipe], left_s: float, until: float, asks: int) -> list[_Offer]:
        """The first thing worth running that the sampler thinks of."""
        for _ in range(asks):
            if self._clock() > until:
                break
            trial, recipe = self._proposer.propose()
            if recipes := self._worth_running(recipe, taken, left_s):
                return [_Offer(recipes, recipe, trial)]
            self._dry += 1
            if self._known.is_beaten(recipe) or recipe.lowering not in self._known.promising_lowerings(recipe.prefix):
                self._proposer.reject(trial)
            else:
                self._proposer.forget(trial)
        return []

    def _variations(self, proposed: Sequence[Recipe], taken: Collection[Recipe], left_s: float) -> list[_Offer]:
        """Heirs of what is trained already, and front points with one or two settings changed."""
        front = self._known.front_recipes()
        places = [front[at % len(front)] for at in self._proposer.places(_VARIATIONS)] if front else []
        # With the lowering of the front point where the prefix is new: which one suits it is asked only of those that promise most.
        varied = [self._with_lowering_of(place, self._proposer.vary(place)) for place in places]
        heirs = [self._known.heir(recipe) for recipe in (*proposed, *varied)]
        if self._known.tactics.inheritance:
            heirs += [self._proposer.prune_more(place) for place in places]
        recipes = dict.fromkeys([*varied, *(heir for heir in heirs if heir is not None)])
        new = [recipe for recipe in recipes if not self._known.is_settled(recipe)]
        offers = [_Offer(self._worth_running(recipe, taken, left_s), recipe, None) for recipe in self._promising(new)]
        return [offer for offer in offers if offer.recipes]

    def _with_lowering_of(self, place: Recipe, recipe: Recipe) -> Recipe:
        return recipe if self._known.is_trained(recipe.prefix) else recipe.prefix.with_lowering(*place.lowering)

    def _promising(self, recipes: Sequence[Recipe]) -> list[Recipe]:
        """Those of many recipes that are judged in full: the most hypervolume per second first."""
        untouched, front = self._known.done.get(UNTOUCHED), self._known.front_values()
        if untouched is None or not recipes:
            return []
        seconds = [_FIXED_S + self._known.seconds(recipe) for recipe in recipes]
        volume = Volume(self._known.space.objectives, untouched, front)
        chosen = self._acquisition.most_promising(recipes, seconds, _JUDGED, front, volume)
        if self._known.is_hopeful:  # nothing better is left than what nothing is expected of
            chosen += [at for at in range(len(recipes)) if at not in chosen]
        return [recipes[at] for at in chosen[:_JUDGED]]

    def _worth_running(self, recipe: Recipe, taken: Collection[Recipe], left_s: float) -> tuple[Recipe, ...]:
        """The prefix of a proposal with every promising lowering that is new, not beaten and fits, the proposed lowering first."""
        new = self._new(recipe, taken)
        fitting = self._known.fitting(new, left_s)
        self._too_long += bool(new) and not fitting
        return fitting

    def _new(self, recipe: Recipe, taken: Collection[Recipe]) -> tuple[Recipe, ...]:
        if recipe.is_trained and (
            self._is_in_training(recipe.prefix) or (recipe.parent is not None and self._is_in_training(recipe.parent))
        ):
            return ()
        return tuple(
            sibling
            for sibling in self._known.fan_out(recipe)
            if not self._known.is_settled(sibling) and sibling not in taken and not self._is_taken(sibling)
        )
