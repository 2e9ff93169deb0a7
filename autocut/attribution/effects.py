"""Effects: what changed between two measured recipes, and the arithmetic of effects. No torch.

Accuracy changes by a difference, and differences add up. Speed and size change by a factor, and factors multiply. Intervals of two
independent numbers combine as independent errors do: their half-widths add in squares, for factors on a logarithmic scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import NormalDist

from autocut.measurement import Interval, Measurement
from autocut.recipe import UNTOUCHED, Recipe

_NORMAL = NormalDist()
_ERROR = 0.05
LEAST_SAVING = 0.02
"""A file that is smaller by less than this share is called no smaller: other weights compress a little differently."""


@dataclass(frozen=True)
class LadderRung:
    """A recipe that was measured on the validation split: a trial of the search, or measured later to explain one."""

    recipe: Recipe
    values: Mapping[str, float]
    measurement: Measurement


@dataclass(frozen=True)
class Effect:
    """What changed between two recipes.

    `accuracy` is the difference of the metric, `is_paired` whether it was taken on the same examples. `speedup` is the factor of
    the throughput at the largest serving batch size, above 1 if faster. `size` and `compressed` are factors of file sizes, below 1
    if smaller.
    """

    accuracy: Interval
    is_paired: bool
    speedup: Interval
    size: float
    compressed: float

    @property
    def is_accuracy_tie(self) -> bool:
        """Whether the accuracy may not have changed."""
        return _holds(self.accuracy, 0.0)

    @property
    def is_speed_tie(self) -> bool:
        """Whether the speed may not have changed."""
        return _holds(self.speedup, 1.0)

    @property
    def is_smaller(self) -> bool:
        """Whether the exported file became smaller, as it is or in an archive."""
        return min(self.size, self.compressed) < 1 - LEAST_SAVING

    @property
    def buys_nothing(self) -> bool:
        """Whether nothing became better for sure: neither accuracy, nor speed, nor size."""
        return self.accuracy.low <= 0 and self.speedup.low <= 1 and not self.is_smaller


def effect_between(before: LadderRung, after: LadderRung, paired: Interval | None) -> Effect:
    """Return the effect of going from `before` to `after`.

    Args:
        before: The first of the two.
        after: The second.
        paired: Difference of the metric on the same examples. None: it is taken from what is recorded of the two. That is paired
            too where `before` is the untouched model, with which every recipe was compared.
    """
    recorded = after.measurement.accuracy.difference if before.recipe == UNTOUCHED else None
    difference = paired or recorded
    return Effect(
        difference or _unpaired(before, after),
        difference is not None,
        _speedup(before, after),
        _factor(before, after, "size_bytes"),
        _factor(before, after, "compressed_size_bytes"),
    )


def combined(effects: Iterable[Effect]) -> Effect:
    """Return the effect of all of `effects`, if none of them depended on another."""
    listed = list(effects)
    return Effect(
        added([effect.accuracy for effect in listed]),
        all(effect.is_paired for effect in listed),
        _exponential(added([_logarithm(effect.speedup) for effect in listed])),
        math.prod(effect.size for effect in listed),
        math.prod(effect.compressed for effect in listed),
    )


def gap(one: Effect, other: Effect) -> tuple[Interval, Interval]:
    """Return how much more accuracy, and by which factor more speed, `one` has than `other`."""
    speed = added([_logarithm(one.speedup), _negated(_logarithm(other.speedup))])
    return added([one.accuracy, _negated(other.accuracy)]), _exponential(speed)


def agree(one: Effect, other: Effect, pairs: int = 1) -> bool:
    """Whether two effects may be the same, in accuracy and in speed.

    `pairs` of effects are compared with each other at once. The more comparisons, the more often one of them fails by chance. So
    all of them share one error of 5% (Bonferroni).
    """
    accuracy, speed = gap(one, other)
    wider = _NORMAL.inv_cdf(1 - _ERROR / (2 * 2 * pairs)) / _NORMAL.inv_cdf(1 - _ERROR / 2)
    return _holds(_widened(accuracy, wider), 0.0) and _holds(_widened(_logarithm(speed), wider), 0.0)


def distance(one: Effect, other: Effect) -> float:
    """Return how far apart two effects are, in accuracy or in speed, whichever is more: as a multiple of the interval's half."""
    accuracy, speed = gap(one, other)
    return max(_relative(accuracy), _relative(_logarithm(speed)))


def added(terms: Iterable[Interval]) -> Interval:
    """Return the sum of independent numbers. Their half-widths add in squares."""
    listed = list(terms)
    value = sum(term.value for term in listed)
    below = math.sqrt(sum((term.value - term.low) ** 2 for term in listed))
    above = math.sqrt(sum((term.high - term.value) ** 2 for term in listed))
    return Interval(value, value - below, value + above)


def _unpaired(before: LadderRung, after: LadderRung) -> Interval:
    """Each was compared with the untouched model; without that comparison, the intervals of the two metrics count."""
    terms = [rung.measurement.accuracy for rung in (after, before)]
    differences = [term.difference for term in terms]
    if differences[0] is not None and differences[1] is not None:
        return added([differences[0], _negated(differences[1])])
    return added([terms[0].metric, _negated(terms[1].metric)])


def _speedup(before: LadderRung, after: LadderRung) -> Interval:
    """A timing that both share, because it does not depend on weights, has no noise against itself."""
    one, other = after.measurement.cost.busiest, before.measurement.cost.busiest
    if one == other:
        return Interval(1.0, 1.0, 1.0)
    return _exponential(added([_logarithm(one.speedup), _negated(_logarithm(other.speedup))]))


def _factor(before: LadderRung, after: LadderRung, name: str) -> float:
    smaller, larger = getattr(before.measurement.cost, name), getattr(after.measurement.cost, name)
    return larger / smaller if smaller else 1.0


def _logarithm(factor: Interval) -> Interval:
    return _mapped(math.log, factor)


def _exponential(logarithm: Interval) -> Interval:
    return _mapped(math.exp, logarithm)


def _mapped(function: Callable[[float], float], interval: Interval) -> Interval:
    return Interval(function(interval.value), function(interval.low), function(interval.high))


def _relative(difference: Interval) -> float:
    """Return how far a difference is from zero, as a multiple of its half-width on that side."""
    half = difference.value - difference.low if difference.value > 0 else difference.high - difference.value
    return abs(difference.value) / half if half else math.inf if difference.value else 0.0


def _widened(interval: Interval, factor: float) -> Interval:
    value = interval.value
    return Interval(value, value - factor * (value - interval.low), value + factor * (interval.high - value))


def _negated(interval: Interval) -> Interval:
    return Interval(-interval.value, -interval.high, -interval.low)


def _holds(interval: Interval, value: float) -> bool:
    return interval.low <= value <= interval.high
