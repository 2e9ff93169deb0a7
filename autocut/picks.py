"""Three choices with a name on every front: quality, balanced, compact. Arithmetic only, no torch.

A cut is a point that costs less than the untouched model. Only cuts with a verified bundle can be taken away at once: if there is
one, the others are left out, and the reasons say so.

Balanced is the model that most people should take. Whatever recommends one model names this one: the last lines of a search,
`autocut select` without a wish, the report, the dashboard, and a comparison of two studies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from autocut.counting import format_count
from autocut.front import FrontPoint, Objectives
from autocut.gains import accuracy_drop, cost_words, effect, metric_points, untouched
from autocut.recipe import UNTOUCHED
from autocut.score import allowed_drop

PICKS = ("quality", "balanced", "compact")
RECOMMENDED = "balanced"
"""The pick that most people should take."""
USUAL_DROP = 0.01
"""Most people accept a drop of one percentage point, or of 1% of a metric that is not between 0 and 1."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class NamedPick:
    """A choice on a front: its name (one of `PICKS`), the chosen point, and the reason in one sentence."""

    name: str
    point: FrontPoint
    reason: str


def named_picks(points: Sequence[FrontPoint], objectives: Objectives, max_drop: float | None = None) -> tuple[NamedPick, ...]:
    """Choose three points of a front.

    - balanced: the cheapest point that loses at most one point of the metric, or what the search allowed if that is less. Of those
      that are tied with it, the most accurate one. This is the untouched model if every cut loses more.
    - quality: the most accurate cut, or the cheapest of those that are not told apart from it and lose nothing against the
      untouched model. Where the most accurate cut loses something, the others may lose no more. It is never less accurate than
      balanced.
    - compact: the cheapest cut that loses at most `max_drop`.

    Args:
        points: The front, with its ties, and the untouched model.
        objectives: Those of the study. The first one to be minimized is the cost.
        max_drop: The largest drop that the user accepts, as `autocut.score.allowed_drop` takes it; None for any.

    Returns:
        The picks in the order of `PICKS`. All are the untouched model where no cut costs less; none without the untouched model.
    """
    baseline, cost = untouched(points), cost_of(objectives)
    if baseline is None:
        return ()
    cuts = [point for point in points if point.recipe != UNTOUCHED and point.values[cost] < baseline.values[cost]]
    bundled = [point for point in cuts if point.bundle] or cuts
    left_out, cuts = [point for point in cuts if point not in bundled], bundled
    if not cuts:
        reason = f"the untouched model itself: no cut is {cost_words(cost)[1]}"
        return tuple(NamedPick(name, baseline, reason) for name in PICKS)
    metric = baseline.values["accuracy"]
    usual, bound = allowed_drop(USUAL_DROP, metric), math.inf if max_drop is None else allowed_drop(max_drop, metric)
    balanced = _balanced(cuts, baseline, cost, min(usual, bound))
    quality = _quality(cuts, baseline, cost, balanced.point)
    if balanced.point is baseline:
        balanced = replace(balanced, reason=balanced.reason + _only_lacks_bundle(left_out, baseline, cost, min(usual, bound)))
    if quality.point is baseline:
        quality = replace(quality, reason=quality.reason + _only_lacks_bundle(left_out, baseline, cost, 0.0))
    return (quality, balanced, _compact(cuts, baseline, cost, bound))


def told_once(picks: Sequence[NamedPick]) -> tuple[tuple[str, str], ...]:
    """Return the name of each pick, and its trial and reason. What is said of a trial is not said again at its next name."""
    told: list[tuple[str, str]] = []
    known: dict[int, str] = {}
    for pick in picks:
        trial = pick.point.trial
        why, _, brings = pick.reason.partition(": ")
        is_said = trial in known and known[trial] == brings
        text = f"trial {trial} too, {why}" if is_said else f"trial {trial}, {pick.reason}"
        known[trial] = brings
        told.append((pick.name, text))
    return tuple(told)


def cost_of(objectives: Objectives) -> str:
    """Return the value that counts as cost: the first objective to be minimized, else dollars for a million predictions."""
    return next((name for name, direction in objectives.items() if direction == "minimize"), "usd_per_million")


def tied(point: FrontPoint, other: FrontPoint, cost: str) -> bool:
    """Whether two points have equal costs, or are tied on every objective."""
    return point.values[cost] == other.values[cost] or point.trial in other.ties or other.trial in point.ties


def preference(point: FrontPoint) -> tuple[float, float, int]:
    """Order of tied points: higher accuracy, smaller file, earlier trial."""
    return -point.values["accuracy"], point.values.get("size_bytes", 0.0), point.trial


def cheapest(points: Sequence[FrontPoint], cost: str) -> FrontPoint:
    """Return the point with the least cost; of equal ones the preferred one."""
    return min(points, key=lambda point: (point.values[cost], *preference(point)))


def _balanced(cuts: Sequence[FrontPoint], baseline: FrontPoint, cost: str, bound: float) -> NamedPick:
    allowed = metric_points(bound, baseline)
    close = _within([*cuts, baseline], baseline, bound)
    if close == [baseline]:
        nearest = _nearest(cuts, baseline, cost)
        loses = f"trial {nearest.trial} loses least, {effect(nearest, baseline, cost)}"
        told = f"no cut{_kept(cuts)} is within {allowed} of it; {loses}"
        return NamedPick("balanced", baseline, f"the untouched model itself: {told}")
    least = cheapest(close, cost)
    group = [point for point in close if tied(point, least, cost)]
    chosen = min(group, key=preference)
    if chosen is baseline:
        others = ", ".join(str(point.trial) for point in group if point is not baseline)
        return NamedPick("balanced", baseline, f"the untouched model itself: trial {others} is tied with it, so nothing was won")
    why = f"the {_least(cuts, cost)} within {allowed} of the untouched model"
    return _named("balanced", chosen, baseline, cost, f"{why}, and the most accurate of {len(group)} tied" if group[1:] else why)


def _quality(cuts: Sequence[FrontPoint], baseline: FrontPoint, cost: str, balanced: FrontPoint) -> NamedPick:
    kind = f"cut{_kept(cuts)}"
    cuts = [point for point in cuts if point.values["accuracy"] >= balanced.values["accuracy"]]
    if not cuts:
        return NamedPick("quality", baseline, f"the untouched model itself: every {kind} is less accurate than the balanced pick")
    best = _nearest(cuts, baseline, cost)
    least = max(0.0, accuracy_drop(best, baseline))
    group = [
        point
        for point in cuts
        if point is best or (point.trial in best.accuracy_ties and accuracy_drop(point, baseline) <= least + _ROUNDING)
    ]
    if len(group) == 1:
        return _named("quality", best, baseline, cost, f"the most accurate {kind}")
    lose = "lose nothing" if least == 0 else f"lose {metric_points(least, baseline)}"
    cheapest_of = f"the {cost_words(cost)[0]} of {format_count(len(group), 'cut')}{_kept(cuts)}"
    why = f"{cheapest_of} that {lose} and are not told apart from the most accurate one"
    return _named("quality", cheapest(group, cost), baseline, cost, why)


def _compact(cuts: Sequence[FrontPoint], baseline: FrontPoint, cost: str, bound: float) -> NamedPick:
    least = _least(cuts, cost)
    if math.isinf(bound):
        return _named("compact", cheapest(cuts, cost), baseline, cost, f"the {least} of all")
    allowed = metric_points(bound, baseline)
    if close := _within(cuts, baseline, bound):
        return _named("compact", cheapest(close, cost), baseline, cost, f"the {least} within {allowed} of the untouched model")
    why = f"the cut{_kept(cuts)} that loses least, none being within {allowed} of the untouched model"
    return _named("compact", _nearest(cuts, baseline, cost), baseline, cost, why)


def _named(name: str, point: FrontPoint, baseline: FrontPoint, cost: str, why: str) -> NamedPick:
    return NamedPick(name, point, f"{why}: {effect(point, baseline, cost)}{_verdict(point, baseline)}")


def _kept(cuts: Sequence[FrontPoint]) -> str:
    """Say which cuts were kept: those with a verified bundle, where there are any."""
    return " with a verified bundle" if any(point.bundle for point in cuts) else ""


def _only_lacks_bundle(left_out: Sequence[FrontPoint], baseline: FrontPoint, cost: str, drop: float) -> str:
    """Name the cheapest cut without a bundle that could stand in the untouched model's place; empty where none could."""
    could = [point for point in _within(left_out, baseline, drop) if not tied(point, baseline, cost)]
    if not could:
        return ""
    best = cheapest(could, cost)
    return f"; trial {best.trial} only lacks a verified bundle, which autocut export makes: {effect(best, baseline, cost)}"


def _least(cuts: Sequence[FrontPoint], cost: str) -> str:
    return f"{cost_words(cost)[0]}{_kept(cuts)}"


def _within(points: Sequence[FrontPoint], baseline: FrontPoint, drop: float) -> list[FrontPoint]:
    return [point for point in points if point is baseline or accuracy_drop(point, baseline) <= drop + _ROUNDING]


def _nearest(cuts: Sequence[FrontPoint], baseline: FrontPoint, cost: str) -> FrontPoint:
    """Return the cut that loses least; of equal ones the cheapest."""
    return min(cuts, key=lambda point: (accuracy_drop(point, baseline), point.values[cost], point.trial))


def _verdict(point: FrontPoint, baseline: FrontPoint) -> str:
    if point.trial in baseline.ties or baseline.trial in point.ties:
        return ", tied with the untouched model: nothing was won"
    if point.trial in baseline.accuracy_ties or baseline.trial in point.accuracy_ties:
        return ", not told apart from the untouched model"
    return ""
