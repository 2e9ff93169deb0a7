"""Three choices with a name on every front: quality, balanced, compact. Arithmetic only, no torch.

A cut is a point that costs less than the untouched model. Only cuts with a verified bundle can be taken away at once: if there is
one, the others are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autocut.front import FrontPoint, Objectives, knee
from autocut.gains import accuracy_drop, cost_words, effect, metric_points, untouched
from autocut.recipe import UNTOUCHED

PICKS = ("quality", "balanced", "compact")
USUAL_DROP = 0.01
"""Most users accept a drop of one percentage point."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class NamedPick:
    """A choice on a front: its name (one of `PICKS`), the chosen point, and the reason in one sentence."""

    name: str
    point: FrontPoint
    reason: str


def named_picks(points: Sequence[FrontPoint], objectives: Objectives, allowed_drop: float | None = None) -> tuple[NamedPick, ...]:
    """Choose three points of a front.

    - quality: the most accurate cut, or the cheapest of those that are not told apart from it and lose nothing against the
      untouched model. Where the most accurate cut loses something, the others may lose no more.
    - balanced: the knee between accuracy and cost, of the cuts that lose at most one point.
    - compact: the cheapest cut that loses at most `allowed_drop`.

    Args:
        points: The front, with its ties, and the untouched model.
        objectives: Those of the study. The first one to be minimized is the cost.
        allowed_drop: The largest drop of the metric that the user accepts; None for any.

    Returns:
        The picks in the order of `PICKS`. All are the untouched model where no cut costs less; none without the untouched model.
    """
    baseline, cost = untouched(points), cost_of(objectives)
    if baseline is None:
        return ()
    cuts = [point for point in points if point.recipe != UNTOUCHED and point.values[cost] < baseline.values[cost]]
    cuts = [point for point in cuts if point.bundle] or cuts
    if not cuts:
        reason = f"the untouched model itself: no cut is {cost_words(cost)[1]}"
        return tuple(NamedPick(name, baseline, reason) for name in PICKS)
    bound = math.inf if allowed_drop is None else allowed_drop
    chosen = (_quality(cuts, baseline, cost), _balanced(cuts, baseline, cost), _compact(cuts, baseline, cost, bound))
    return tuple(
        NamedPick(name, point, f"{why}: {effect(point, baseline, cost)}{_verdict(point, baseline)}")
        for name, (point, why) in zip(PICKS, chosen, strict=True)
    )


def cost_of(objectives: Objectives) -> str:
    """Return the value that counts as cost: the first objective to be minimized, else dollars for a million predictions."""
    return next((name for name, direction in objectives.items() if direction == "minimize"), "usd_per_million")


def _quality(cuts: Sequence[FrontPoint], baseline: FrontPoint, cost: str) -> tuple[FrontPoint, str]:
    best = min(cuts, key=lambda point: (accuracy_drop(point, baseline), point.values[cost], point.trial))
    least = max(0.0, accuracy_drop(best, baseline))
    group = [
        point
        for point in cuts
        if point is best or (point.trial in best.accuracy_ties and accuracy_drop(point, baseline) <= least + _ROUNDING)
    ]
    chosen = _least(group, cost)
    if len(group) == 1:
        return chosen, "the most accurate cut"
    lose = "lose nothing" if least == 0 else f"lose {metric_points(least, baseline)}"
    return chosen, f"the {cost_words(cost)[0]} of {len(group)} cuts that {lose} and are not told apart from the most accurate one"


def _balanced(cuts: Sequence[FrontPoint], baseline: FrontPoint, cost: str) -> tuple[FrontPoint, str]:
    ways = {"accuracy": "maximize", cost: "minimize"}
    close = _within(cuts, baseline, USUAL_DROP)
    allowed = metric_points(USUAL_DROP, baseline)
    if not close:
        return _knee(cuts, baseline, ways), f"the knee of the front, no cut being within {allowed} of the untouched model"
    return _knee(close, baseline, ways), f"the knee of the front within {allowed} of the untouched model"


def _knee(cuts: Sequence[FrontPoint], baseline: FrontPoint, ways: Objectives) -> FrontPoint:
    """Return the knee of cuts and untouched model; if it is the untouched model, that of the cuts alone."""
    found = knee([baseline, *cuts], ways)
    return knee(cuts, ways) if found.trial == baseline.trial else next(point for point in cuts if point.trial == found.trial)


def _compact(cuts: Sequence[FrontPoint], baseline: FrontPoint, cost: str, bound: float) -> tuple[FrontPoint, str]:
    least = cost_words(cost)[0]
    if math.isinf(bound):
        return _least(cuts, cost), f"the {least} of all"
    close = _within(cuts, baseline, bound)
    if not close:
        nearest = min(cuts, key=lambda point: (accuracy_drop(point, baseline), point.values[cost], point.trial))
        return nearest, f"the cut that loses least, none being within {metric_points(bound, baseline)} of the untouched model"
    return _least(close, cost), f"the {least} within {metric_points(bound, baseline)} of the untouched model"


def _within(cuts: Sequence[FrontPoint], baseline: FrontPoint, drop: float) -> list[FrontPoint]:
    return [point for point in cuts if accuracy_drop(point, baseline) <= drop + _ROUNDING]


def _least(points: Sequence[FrontPoint], cost: str) -> FrontPoint:
    return min(points, key=lambda point: (point.values[cost], -point.values["accuracy"], point.trial))


def _verdict(point: FrontPoint, baseline: FrontPoint) -> str:
    if point.trial in baseline.ties or baseline.trial in point.ties:
        return ", tied with the untouched model: nothing was won"
    if point.trial in baseline.accuracy_ties or baseline.trial in point.accuracy_ties:
        return ", not told apart from the untouched model"
    return ""
