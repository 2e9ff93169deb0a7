"""What a reader must know of a chosen point besides why it was chosen. Arithmetic only, no torch."""

from __future__ import annotations

from collections.abc import Sequence

from autocut.front import FrontPoint
from autocut.gains import accuracy_drop, metric_points, signed_points, untouched
from autocut.measurement import Interval
from autocut.score import Limit, allowed_drop, interval_of

_ROUNDING = 1e-9


def training_alone(points: Sequence[FrontPoint], chosen: FrontPoint) -> list[str]:
    """Say what training alone does to the accuracy, without the cut: more epochs help any model.

    Empty where `chosen` does not train or does nothing else, or where the untouched model was not trained for as many epochs.
    """
    baseline, alike = untouched(points), chosen.recipe.untouched_trained_alike
    if baseline is None or not chosen.recipe.is_trained or chosen.recipe.only_trains_on:
        return []
    trained = [point for point in points if point.recipe.only_trains_on and point.recipe["train.epochs"] == alike["train.epochs"]]
    if not trained:
        return []
    nearest = min(trained, key=lambda point: (point.recipe != alike, -point.values["accuracy"], point.trial))
    with_cut, alone = -accuracy_drop(chosen, baseline), -accuracy_drop(nearest, baseline)
    gained = signed_points(alone, baseline)
    told = f"the untouched model trained as long ({nearest.recipe.describe()}, trial {nearest.trial}) has {gained}"
    if with_cut <= 0 or alone <= 0:
        return [told]
    share = "all" if alone >= with_cut else f"{100 * alone / with_cut:.0f}%"
    return [f"{told}, so {share} of the gain is the training's"]


def doubt(point: FrontPoint, baseline: FrontPoint | None, max_drop: float | None, *, confident: bool = False) -> str | None:
    """Say where the locked test split contradicts the choice of `point`, which goes by its validation numbers; else None.

    Args:
        point: The chosen point.
        baseline: The untouched model.
        max_drop: What the point may lose, as `autocut.score.allowed_drop` takes it. Then it is also told where the test split
            cannot rule out a larger drop. None: what it loses on the validation split.
        confident: Whether the point was asked to keep the drop with the worse end of its interval; if not, a hint says how.
    """
    if baseline is None or point.tested is None or point.trial == baseline.trial:
        return None
    difference = point.tested.measurement.accuracy.difference
    asked = None if max_drop is None else allowed_drop(max_drop, baseline.values["accuracy"])
    bound = max(0.0, accuracy_drop(point, baseline)) if asked is None else asked
    if difference is None or -difference.low <= bound + _ROUNDING:
        return None
    limit, interval = metric_points(bound, baseline), f"95% interval: {_lost(difference, baseline)}"
    if -difference.high > bound + _ROUNDING:
        return f"the test split contradicts this choice: trial {point.trial} loses more than {limit} there ({interval})"
    if asked is None:
        return None
    stricter = "" if confident else "; --confident is stricter"
    return f"the test split cannot rule out that trial {point.trial} loses more than {limit} ({interval}){stricter}"


def limit_doubts(point: FrontPoint, limits: Sequence[Limit]) -> list[str]:
    """Say which of `limits`, which `point` keeps by the search's numbers, its final numbers break: test split and final timing."""
    if point.tested is None:
        return []
    final, said = point.tested, []
    for limit in limits:
        if limit.violation(point.values) <= 0 < limit.violation(final.values):
            found = interval_of(limit.name, final.values, final.measurement)
            what = "the test split" if limit.name == "accuracy" else "the final timing"
            spread = f" (95% interval: {found.low:.4g} to {found.high:.4g})" if found.high > found.low else ""
            said.append(f"{what} contradicts {limit}: trial {point.trial} has {limit.name} {found.value:.4g} there{spread}")
    return said


def _lost(difference: Interval, baseline: FrontPoint) -> str:
    """Return such as ``from 2.7 points more accurate to 5.5 points less``. A sign would be taken for that of a gain."""
    best, worst = (metric_points(abs(end), baseline) for end in (difference.high, difference.low))
    return f"from {best} more accurate to {worst} less" if difference.high > 0 else f"from {best} to {worst} less accurate"
