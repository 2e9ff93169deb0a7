"""Choose one point of a front and give the reason in one line. Arithmetic only, no torch.

An accuracy drop is ABSOLUTE: the baseline's metric minus the point's metric. For a metric between 0 and 1, 0.01 is one percentage
point (0.978 may become 0.968), not one percent of 0.978. The baseline is the untouched model.

Points that the front cannot tell apart (`FrontPoint.ties`) are a tie. Among them the highest accuracy wins, then the smallest file,
and the reason mentions the tie. A baseline may be chosen like any other point.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from autocut.errors import InputError, NoResultError, unknown_name
from autocut.front import FrontPoint
from autocut.front import knee as knee_of
from autocut.recipe import UNTOUCHED
from autocut.score import ALIASES, METRICS, Limit

_ROUNDING = 1e-9
_DROP = "accuracy drop"
_WORDS: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "usd_per_million": ("cheapest", "cheaper", "dearer"),
        "latency_ms": ("fastest", "faster", "slower"),
        "size_bytes": ("smallest", "smaller", "larger"),
        "train_usd": ("cheapest to train", "cheaper to train", "dearer to train"),
    }
)


@dataclass(frozen=True)
class Selection:
    """The chosen point, and the reason in one line."""

    point: FrontPoint
    reason: str


def select_point(
    points: Sequence[FrontPoint],
    *,
    max_accuracy_drop: float | None = None,
    limits: Sequence[Limit] = (),
    minimize: str | None = None,
    knee: bool = False,
    measured: Sequence[FrontPoint] = (),
) -> Selection:
    """Choose the point that minimizes one value, or the knee, among those that meet the limits.

    Args:
        points: Front points and baselines. The untouched model should be among them.
        max_accuracy_drop: Largest absolute drop of the metric against the untouched model. 0.01 is one percentage point.
        limits: Bounds on values, such as ``latency_ms<=5``.
        minimize: Name of a value or one of `ALIASES`. Default: "cost".
        knee: Choose the knee of the front between accuracy and `minimize`: beyond it, savings cost much more accuracy.
        measured: Every measured point of the study, to tell what training alone does.

    Raises:
        NoResultError: there is no point, or none meets the limits; the message names the closest one.
        UnknownNameError: `minimize` is not a value of these points.
        InputError: `max_accuracy_drop` is negative or NaN, or the untouched model is not among the points.
    """
    if not points:
        raise NoResultError("a point needs a finished trial, got none", "let `autocut search` run until its first front")
    if max_accuracy_drop is not None and not max_accuracy_drop >= 0:
        raise InputError(
            f"max accuracy drop must be 0 or more, got {max_accuracy_drop}", "--max-accuracy-drop 1% allows one percentage point"
        )
    objective = _objective(points, minimize)
    baseline = untouched(points)
    if max_accuracy_drop is not None and baseline is None:
        raise InputError(
            "an accuracy drop needs the untouched model among the points, got none", "run `autocut search` on this study again"
        )
    excess = {point.trial: _excesses(point, baseline, max_accuracy_drop, limits) for point in points}
    eligible = [point for point in points if not excess[point.trial]]
    if not eligible:
        raise _nothing_meets(points, excess, baseline, max_accuracy_drop, limits)
    anchor = _knee(eligible, objective) if knee else _best(eligible, objective)
    chosen = min((point for point in eligible if _tied(point, anchor, objective)), key=_preference)
    asked = _asked(baseline, max_accuracy_drop, limits)
    reason = _reason(chosen, eligible, baseline, objective, asked, knee=knee)
    return Selection(chosen, "; ".join([reason, *training_alone(measured, chosen)]))


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
    told = (
        f"the untouched model trained as long ({nearest.recipe.describe()}, trial {nearest.trial}) has {_signed(alone, baseline)}"
    )
    if with_cut <= 0 or alone <= 0:
        return [told]
    share = "all" if alone >= with_cut else f"{100 * alone / with_cut:.0f}%"
    return [f"{told}, so {share} of the gain is the training's"]


def untouched(points: Sequence[FrontPoint]) -> FrontPoint | None:
    """Return the point of the untouched model, or None if it is not among `points`."""
    return next((point for point in points if point.recipe == UNTOUCHED), None)


def accuracy_drop(point: FrontPoint, baseline: FrontPoint) -> float:
    """Absolute drop of the metric from `baseline` to `point` on the validation split; negative if the point is better.

    The paired difference counts where it is known: it compares the two on the same examples, even if not all were scored.
    """
    difference = point.measurement.accuracy.difference
    return baseline.values["accuracy"] - point.values["accuracy"] if difference is None else -difference.value


def _objective(points: Sequence[FrontPoint], minimize: str | None) -> str:
    name = ALIASES.get(minimize or "cost", minimize or "cost")
    shared = set.intersection(*(set(point.values) for point in points))
    known = {value for value in shared if value not in METRICS or METRICS[value].direction == "minimize"}
    if name not in known:
        raise unknown_name("minimize", minimize or "cost", known | {alias for alias, target in ALIASES.items() if target in known})
    return name


def _best(eligible: Sequence[FrontPoint], objective: str) -> FrontPoint:
    return min(eligible, key=lambda point: (point.values[objective], *_preference(point)))


def _knee(eligible: Sequence[FrontPoint], objective: str) -> FrontPoint:
    trial = knee_of(eligible, {"accuracy": "maximize", objective: "minimize"}).trial
    return next(point for point in eligible if point.trial == trial)


def _preference(point: FrontPoint) -> tuple[float, float, int]:
    """Order of tied points: higher accuracy, smaller file, earlier trial."""
    return -point.values["accuracy"], point.values.get("size_bytes", 0.0), point.trial


def _tied(point: FrontPoint, other: FrontPoint, objective: str) -> bool:
    equal = point.values[objective] == other.values[objective]
    return equal or point.trial in other.ties or other.trial in point.ties


def _excesses(
    point: FrontPoint, baseline: FrontPoint | None, max_accuracy_drop: float | None, limits: Sequence[Limit]
) -> dict[str, float]:
    """How far `point` exceeds each limit, relative to the limit. Empty if it meets all limits."""
    excesses = {limit.text: limit.violation(point.values) / (abs(limit.bound) or 1.0) for limit in limits}
    if max_accuracy_drop is not None and baseline is not None:
        over = accuracy_drop(point, baseline) - max_accuracy_drop
        excesses[_DROP] = 0.0 if over <= _ROUNDING else over / max(max_accuracy_drop, 0.01)
    return {name: excess for name, excess in excesses.items() if excess > 0}


def _nothing_meets(
    points: Sequence[FrontPoint],
    excess: Mapping[int, Mapping[str, float]],
    baseline: FrontPoint | None,
    max_accuracy_drop: float | None,
    limits: Sequence[Limit],
) -> NoResultError:
    closest = min(points, key=lambda point: (sum(excess[point.trial].values()), *_preference(point)))
    found, relaxed = [], []
    for name in excess[closest.trial]:
        if name == _DROP and baseline is not None:
            drop = accuracy_drop(closest, baseline)
            found.append(f"an accuracy drop of {_points(drop, baseline)}")
            relaxed.append(f"--max-accuracy-drop {math.ceil(drop * 1e4 - _ROUNDING) / 100:g}%")
    for limit in limits:
        if limit.text in excess[closest.trial]:
            found.append(f"{limit.name} {closest.values[limit.name]:.4g}")
            relaxed.append(f"a limit on {limit.name} of {closest.values[limit.name]:.4g}")
    asked = _asked(baseline, max_accuracy_drop, limits)
    named = f"trial {closest.trial} ({closest.recipe.describe()})"
    return NoResultError(
        f"none of {len(points)} points is {asked}: the closest is {named} with {', '.join(found)}",
        f"relax to {' and '.join(relaxed)}; or search longer",
    )


def _asked(baseline: FrontPoint | None, max_accuracy_drop: float | None, limits: Sequence[Limit]) -> str:
    asked = [limit.text for limit in limits]
    if max_accuracy_drop is not None and baseline is not None:
        asked.insert(0, f"within {_points(max_accuracy_drop, baseline)} of the baseline's {baseline.values['accuracy']:.4g}")
    return " and ".join(asked)


def _reason(
    chosen: FrontPoint, eligible: Sequence[FrontPoint], baseline: FrontPoint | None, objective: str, asked: str, *, knee: bool
) -> str:
    rank = "knee" if knee else _words(objective)[0]
    count = "the only point" if len(eligible) == 1 else f"{rank} of {len(eligible)} points"
    parts = [f"{count} {asked}".rstrip()]
    if baseline is not None:
        parts.append("the untouched model itself" if chosen.trial == baseline.trial else _effect(chosen, baseline, objective))
    tied = [point for point in eligible if point is not chosen and _tied(point, chosen, objective)]
    others = [point for point in eligible if point is not chosen and point not in tied]
    if others and not knee:
        following = _best(others, objective)
        parts.append(f"next best trial {following.trial} costs {_more(following.values[objective], chosen.values[objective])} more")
    if tied:
        trials = ", ".join(str(point.trial) for point in sorted(tied, key=lambda point: point.trial))
        parts.append(f"tied with trial {trials}, preferred for its accuracy, then its size")
    return "; ".join(parts)


def _effect(point: FrontPoint, baseline: FrontPoint, objective: str) -> str:
    """Such as ``6.1x cheaper, accuracy 0.972 (-0.6 points) on validation``."""
    gain = _gain(baseline.values[objective], point.values[objective], objective)
    change = _signed(-accuracy_drop(point, baseline), baseline)
    return f"{gain}, accuracy {point.values['accuracy']:.4g} ({change}) on validation"


def _signed(change: float, baseline: FrontPoint) -> str:
    return f"{'+' if change >= 0 else '-'}{_points(abs(change), baseline)}"


def _gain(before: float, after: float, objective: str) -> str:
    _, better, worse = _words(objective)
    if before == after:
        return f"neither {better} nor {worse}"
    high, low = max(before, after), min(before, after)
    word = better if after < before else worse
    return f"{high / low:.2g}x {word}" if low > 0 else f"{high - low:.3g} {word}"


def _words(objective: str) -> tuple[str, str, str]:
    return _WORDS.get(objective, (f"least {objective}", f"less {objective}", f"more {objective}"))


def _points(drop: float, baseline: FrontPoint) -> str:
    """A difference of the metric: in percentage points if the metric is a share, otherwise unchanged."""
    if not 0 <= baseline.values["accuracy"] <= 1:
        return f"{drop:.4g}"
    text = f"{drop * 100:.2f}".rstrip("0")
    text += "0" if text.endswith(".") else ""
    return f"{text} {'point' if text == '1.0' else 'points'}"


def _more(value: float, than: float) -> str:
    return f"{(value / than - 1) * 100:.0f}%" if than > 0 else f"{value - than:.3g}"
