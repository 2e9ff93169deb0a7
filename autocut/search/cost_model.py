"""Costs are known before training: a model of them.

Latency and size follow from the structure, not from the weights. So every measured recipe tells the cost of all recipes with the
same cut and the same lowering. Between measured prune ratios the logarithm of the cost is interpolated. A student is a cut by
itself: it has no ratio, and the untouched model says nothing about it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from autocut.recipe import UNTOUCHED, Lowering, Recipe

COST_METRICS = ("usd_per_million", "latency_ms", "size_bytes", "compressed_size_bytes")
_INTERPOLATION_MARGIN = 0.9
"""An interpolated cost is multiplied by this before a recipe is dropped for it."""

_FULL_PRECISION, _ = UNTOUCHED.lowering
_NOT_PRUNED = str(UNTOUCHED["prune.method"])


@dataclass(frozen=True)
class _Curve:
    """Costs by prune ratio, and the ratios in order."""

    costs: Mapping[float, Mapping[str, float]]
    ratios: Sequence[float]


class CostModel:
    """Costs by pruning method, ratio and lowering."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, Lowering], dict[float, Mapping[str, float]]] = defaultdict(dict)
        self._methods: dict[str, dict[str, None]] = defaultdict(dict)  # ordered: a set of strings differs from run to run
        self._curves: dict[tuple[str, Lowering], _Curve] = {}

    def learn(self, recipe: Recipe, values: Mapping[str, float]) -> None:
        """Remember what `recipe` cost.

        Two methods that gave the same costs once (they remove equally many channels, but others) count as twins at every ratio.
        """
        method, ratio = recipe.cut
        cost = {name: values[name] for name in COST_METRICS if name in values}
        self._known[method, recipe.lowering][ratio] = cost
        self._curves.clear()
        for (other, lowering), curve in list(self._known.items()):
            is_other_pruner = ratio > 0 and _NOT_PRUNED not in (method, other) and other != method
            if is_other_pruner and lowering == recipe.lowering and curve.get(ratio) == cost:
                self._methods[method][other] = None
                self._methods[other][method] = None

    def twins(self, method: str) -> frozenset[str]:
        """Methods that give the same structures as `method`."""
        return frozenset(self._methods[method])

    def is_known(self, recipe: Recipe) -> bool:
        """Whether the structure of `recipe` was timed with this lowering."""
        return recipe.cut[1] in self._curve(recipe).costs

    def predict(self, recipe: Recipe) -> dict[str, float] | None:
        """Return the expected costs of `recipe`; None outside the measured ratios."""
        curve = self._curve(recipe)
        costs, ratio = curve.costs, recipe.cut[1]
        if ratio in costs:
            return dict(costs[ratio])
        at = bisect_left(curve.ratios, ratio)
        if not 0 < at < len(curve.ratios):
            return None
        low, high = curve.ratios[at - 1], curve.ratios[at]
        weight = (ratio - low) / (high - low)
        return {
            name: _between(costs[low][name], costs[high][name], weight) * _INTERPOLATION_MARGIN
            for name in costs[low]
            if name in costs[high]
        }

    def scaled(self, recipe: Recipe) -> dict[str, float] | None:
        """Guess the costs of `recipe` from another lowering of its structure, as if both saved the same share."""
        untouched = self._known.get((_NOT_PRUNED, recipe.lowering), {}).get(0.0)
        for dtype, mode in sorted(
            dict.fromkeys(lowering for _, lowering in self._known), key=lambda lowering: lowering[0] != recipe.lowering[0]
        ):
            other = self.predict(recipe.with_lowering(dtype, mode))
            before = self._known.get((_NOT_PRUNED, (dtype, mode)), {}).get(0.0)
            if untouched and other and before:
                return {name: untouched[name] * other[name] / before[name] for name in untouched if before.get(name)}
        return None

    def nearest(self, recipe: Recipe) -> dict[str, float] | None:
        """Return the costs at the nearest measured ratio of the same method and lowering; None where there is none."""
        curve, ratio = self._curve(recipe), recipe.cut[1]
        return dict(curve.costs[min(curve.ratios, key=lambda known: abs(known - ratio))]) if curve.ratios else None

    def _curve(self, recipe: Recipe) -> _Curve:
        method, lowering = recipe.cut[0], recipe.lowering
        if (method, lowering) not in self._curves:
            beside = () if recipe.student is not None else (_NOT_PRUNED, *self._methods[method])
            parts = [self._known.get((name, lowering), {}) for name in (*beside, method)]
            costs = {ratio: cost for part in parts for ratio, cost in part.items()}
            self._curves[method, lowering] = _Curve(costs, sorted(costs))
        return self._curves[method, lowering]


def cheapest_modes(
    lowerings: Iterable[Lowering],
    costs: Mapping[Lowering, Mapping[str, float]],
    graphs: Mapping[Lowering, str],
    metrics: Sequence[str],
) -> list[Lowering]:
    """Drop the lowerings that cannot win: another one costs nowhere more, somewhere less, and is no less accurate.

    A lowering is no less accurate if it has the same quantized graph or full precision: a dtype that costs more than full precision
    has nothing to offer.

    Args:
        lowerings: Candidates; those without an entry in `costs` are kept.
        costs: Costs of the lowerings on one structure.
        graphs: The quantized graph of each lowering; lowerings of one graph give the same accuracy.
        metrics: Cost metrics that the search minimizes.
    """
    candidates = list(lowerings)
    known = {lowering: tuple(costs[lowering][name] for name in metrics) for lowering in candidates if lowering in costs}

    def beaten(lowering: Lowering) -> bool:
        own = known.get(lowering)
        return own is not None and any(
            (graphs[other] == graphs[lowering] or other[0] == _FULL_PRECISION) and dominates(cost, own)
            for other, cost in known.items()
        )

    return [lowering for lowering in candidates if not beaten(lowering)]


def dominates(left: Sequence[float], right: Sequence[float]) -> bool:
    """Whether `left` is nowhere above `right` and somewhere below it (all values minimized)."""
    return all(a <= b for a, b in zip(left, right, strict=True)) and any(a < b for a, b in zip(left, right, strict=True))


def _between(low: float, high: float, weight: float) -> float:
    if low <= 0 or high <= 0:
        return low + (high - low) * weight
    return math.exp(math.log(low) + (math.log(high) - math.log(low)) * weight)
