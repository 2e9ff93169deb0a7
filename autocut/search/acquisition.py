"""Which of several offers to run: the one with the most expected hypervolume gain per predicted second.

An offer is a trained prefix with the lowerings that it would be measured with. A lowering that is not worth its seconds is left for
later, such as a compiler that takes half a minute for what another mode gives too. The cost of an offer is known or interpolated.
Its accuracy is guessed several times by the accuracy surrogate, and the gain is the mean over these guesses. Stages in the cache
take no seconds. So a cheap offer runs before a slightly better one that takes longer.

References:
    Nguyen et al. 2024, EEIPU (expected improvement per remaining second with memoized prefixes), https://arxiv.org/abs/2411.03731
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autocut.recipe import Recipe
from autocut.search.accuracy_surrogate import AccuracySurrogate
from autocut.search.volume import Volume

Costs = Callable[[Recipe], Mapping[str, float]]
Offer = Sequence[Recipe]


@dataclass(frozen=True)
class Choice:
    """The best offer by its number, its recipes that are worth their seconds, and their expected hypervolume per second.

    `rate` is infinite where nothing is known.
    """

    offer: int
    recipes: tuple[Recipe, ...]
    rate: float = 0.0


class Acquisition:
    """Picks the offer, and the lowerings of it, that promise the most hypervolume per predicted second."""

    def __init__(self, surrogate: AccuracySurrogate, costs: Costs) -> None:
        self._surrogate = surrogate
        self._costs = costs

    def best(
        self, offers: Sequence[Offer], seconds: Sequence[Sequence[float]], shared_s: Sequence[float], growth: Growth
    ) -> Choice:
        """Return the best offer; the whole first one while too little is known, or if no offer has an expected gain.

        Args:
            offers: Recipes of each.
            seconds: Predicted seconds of each recipe of each offer.
            shared_s: Seconds of each offer that all its recipes share: its training.
            growth: Of the front that is known.
        """
        if not self._surrogate.is_ready():
            return Choice(0, tuple(offers[0]), math.inf)
        every = self._points([recipe for offer in offers for recipe in offer], growth)
        points = np.split(every, np.cumsum([len(offer) for offer in offers])[:-1], axis=1)
        most = [growth.at_most(offer) for offer in points]
        ranked = [_by_rate(*offer) for offer in zip(most, seconds, strict=True)]
        best, choice = 0.0, Choice(0, tuple(offers[0]))
        for number in sorted(range(len(offers)), key=lambda number: -ranked[number][0][1] if ranked[number] else 0.0):
            lowerings: list[int] = []
            for lowering, at_most in ranked[number]:
                if at_most <= best:
                    break  # neither this lowering nor a later one can lift the rate of those before it above the best
                lowerings.append(lowering)
                gain = growth.mean(points[number][:, lowerings], most[number][:, lowerings] > 0)
                rate = gain / (shared_s[number] + math.fsum(seconds[number][lowering] for lowering in lowerings))
                if rate > best:
                    best, choice = rate, Choice(number, tuple(offers[number][lowering] for lowering in lowerings), rate)
        return choice

    def most_promising(self, recipes: Sequence[Recipe], seconds: Sequence[float], count: int, growth: Growth) -> list[int]:
        """Return the places of the `count` recipes with the most expected hypervolume per second; fewer where fewer expect any."""
        points = self._points(recipes, growth)
        most = growth.at_most(points)
        promised, rates = most.mean(axis=0) / seconds, dict[int, float]()
        for at in np.argsort(-promised).tolist():
            if promised[at] <= 0 or (len(rates) >= count and promised[at] <= heapq.nlargest(count, rates.values())[-1]):
                break
            rates[at] = growth.mean(points[:, [at]], most[:, [at]] > 0) / seconds[at]
        return heapq.nlargest(count, (at for at, rate in rates.items() if rate > 0), key=lambda at: rates[at])

    def _points(self, recipes: Sequence[Recipe], growth: Growth) -> NDArray[np.float64]:
        """Losses by tree and recipe, shape (trees, recipes, objectives)."""
        accuracies = self._surrogate.guesses(recipes) - growth.noise
        return growth.volume.losses_by_accuracy([self._costs(recipe) for recipe in recipes], accuracies)


class Growth:
    """How much guessed points would enlarge the hypervolume of a front.

    `noise` is what a guessed accuracy must be ahead by: what is less cannot be told from luck on the examples of the split.
    """

    def __init__(self, front: Sequence[Mapping[str, float]], volume: Volume, noise: float = 0.0) -> None:
        self.volume = volume
        self.noise = noise
        self._known = volume.inside(volume.losses_of(front))
        self._before = volume.of_inside(self._known)

    def at_most(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what each guess adds at most, shape (trees, recipes): its box without the largest share that a known point covers.

        0 where the guess lies outside the corner, or a known point is nowhere worse.
        """
        own = np.prod(np.maximum(-points, 0.0), axis=2)
        shared = np.prod(np.maximum(-np.maximum(points[:, :, np.newaxis, :], self._known), 0.0), axis=3)
        left: NDArray[np.float64] = own - shared.max(axis=2, initial=0.0)
        return left

    def mean(self, points: NDArray[np.float64], adds: NDArray[np.bool_]) -> float:
        """Return the mean growth over the trees by all recipes together; `adds` marks the guesses that add something."""
        return math.fsum(self._grown(guess[new]) for guess, new in zip(points, adds, strict=True)) / len(points)

    def _grown(self, added: NDArray[np.float64]) -> float:
        return self.volume.of_inside(np.concatenate([self._known, added])) - self._before if len(added) else 0.0


def _by_rate(most: NDArray[np.float64], seconds: Sequence[float]) -> list[tuple[int, float]]:
    """Recipes that may add something, each with the most that it can add per second of its own; the best first."""
    rates = most.mean(axis=0) / np.maximum(seconds, 1e-3)
    return [(int(lowering), float(rates[lowering])) for lowering in np.argsort(-rates) if rates[lowering] > 0]
