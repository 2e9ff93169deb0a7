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
from typing import TYPE_CHECKING, Any

from autocut.errors import InputError, NoResultError, unknown_name
from autocut.front import FrontPoint
from autocut.front import knee as knee_of
from autocut.gains import accuracy_drop as accuracy_drop
from autocut.gains import cost_words, effect, metric_points, signed_points, with_untouched
from autocut.gains import untouched as untouched
from autocut.picks import PICKS, NamedPick, cost_of, named_picks
from autocut.score import ALIASES, METRICS, Limit, parse_limit

if TYPE_CHECKING:
    from autocut.study import Study

_ROUNDING = 1e-9
_DROP = "accuracy drop"


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
    pick: str | None = None,
    allowed_drop: float | None = None,
    confident: bool = False,
) -> Selection:
    """Choose the point that minimizes one value, the knee, or a named pick, among those that meet the limits.

    Args:
        points: Front points and baselines. The untouched model should be among them.
        max_accuracy_drop: Largest absolute drop of the metric against the untouched model. 0.01 is one percentage point.
        limits: Bounds on values, such as ``latency_ms<=5``.
        minimize: Name of a value or one of `ALIASES`. Default: "cost".
        knee: Choose the knee of the front between accuracy and `minimize`: beyond it, savings cost much more accuracy.
        measured: Every measured point of the study, to tell what training alone does.
        pick: One of `autocut.picks.PICKS`, with `minimize` as the cost.
        confident: Whether the worse end of the interval of the paired difference must keep `max_accuracy_drop`, not its middle.
        allowed_drop: What the pick "compact" may lose where `max_accuracy_drop` does not say.

    Raises:
        NoResultError: there is no point, or none meets the limits; the message names the closest one.
        UnknownNameError: `minimize` is not a value of these points, or `pick` not the name of a pick.
        InputError: `max_accuracy_drop` is negative or NaN, the untouched model is not among the points, or both `knee` and `pick`
            are given, or `confident` is asked for without a drop.
    """
    baseline = untouched(points)
    _check_question(points, baseline, max_accuracy_drop, pick, knee=knee, confident=confident)
    objective = _objective(points, minimize)
    excess = {point.trial: _excesses(point, baseline, max_accuracy_drop, limits, confident=confident) for point in points}
    eligible = [point for point in points if not excess[point.trial]]
    if not eligible:
        raise _nothing_meets(points, excess, baseline, max_accuracy_drop, limits, confident=confident)
    if pick is not None:
        found = _pick(pick, eligible, baseline, objective, allowed_drop if max_accuracy_drop is None else max_accuracy_drop)
        return Selection(found.point, f"{found.name} pick, {found.reason}")
    anchor = _knee(eligible, objective) if knee else _best(eligible, objective)
    chosen = min((point for point in eligible if _tied(point, anchor, objective)), key=_preference)
    asked = _asked(baseline, max_accuracy_drop, limits, confident=confident)
    reason = _reason(chosen, eligible, baseline, objective, asked, knee=knee)
    return Selection(chosen, "; ".join([reason, *training_alone(measured, chosen)]))


def select_from_study(study: Study, *, limits: Sequence[str] = (), pick: str | None = None, **choice: Any) -> Selection:
    """Choose a point of a study's front; the untouched model may be chosen too.

    A pick goes by the study's own cost, and "compact" may lose what the search allowed.

    Args:
        study: An open study.
        limits: Bounds on values as text, such as "latency_ms<=5".
        pick: One of `autocut.picks.PICKS`.
        **choice: Other arguments of `select_point`, which says what they mean and what this raises.
    """
    if pick is not None:
        if choice.get("minimize") is not None:
            raise InputError(f"a pick must stand without minimize, got {pick} and {choice['minimize']}", "leave one out")
        choice["minimize"] = cost_of(study.objectives)
        if choice.get("max_accuracy_drop") is None:
            choice["allowed_drop"] = study.facts.get("max_accuracy_drop")
    measured = study.points()
    bounds = [parse_limit(text) for text in limits]
    return select_point(with_untouched(study.front(), measured), limits=bounds, measured=measured, pick=pick, **choice)


def _check_question(
    points: Sequence[FrontPoint],
    baseline: FrontPoint | None,
    max_accuracy_drop: float | None,
    pick: str | None,
    *,
    knee: bool,
    confident: bool,
) -> None:
    if not points:
        raise NoResultError("a point needs a finished trial, got none", "let `autocut search` run until its first front")
    if max_accuracy_drop is not None and not max_accuracy_drop >= 0:
        raise InputError(
            f"max accuracy drop must be 0 or more, got {max_accuracy_drop}", "--max-accuracy-drop 1% allows one percentage point"
        )
    if confident and max_accuracy_drop is None:
        raise InputError("--confident needs a largest drop to be confident of, got none", "add --max-accuracy-drop 1%")
    if pick is not None and knee:
        raise InputError(f"either a pick or the knee may be asked for, got both ({pick}, knee)", "leave one out")
    if pick is not None and pick not in PICKS:
        raise unknown_name("pick", pick, PICKS)
    if baseline is None and (max_accuracy_drop is not None or pick is not None):
        asked = "an accuracy drop" if pick is None else "a pick"
        raise InputError(
            f"{asked} needs the untouched model among the points, got none", "run `autocut search` on this study again"
        )


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


def doubt(
    point: FrontPoint, baseline: FrontPoint | None, max_accuracy_drop: float | None, *, confident: bool = False
) -> str | None:
    """Say where the locked test split contradicts the drop that was asked for, or cannot rule out a larger one; else None.

    The point was chosen by its validation numbers, so this is news.
    """
    if max_accuracy_drop is None or baseline is None or point.tested is None:
        return None
    difference = point.tested.measurement.accuracy.difference
    if difference is None or -difference.low <= max_accuracy_drop + _ROUNDING:
        return None
    low, high = (f"{'-' if drop < 0 else ''}{metric_points(abs(drop), baseline)}" for drop in (-difference.high, -difference.low))
    asked, interval = metric_points(max_accuracy_drop, baseline), f"95% interval {low} to {high}"
    if -difference.high > max_accuracy_drop:
        return f"the test split contradicts the {asked} asked for: trial {point.trial} loses more there ({interval})"
    stricter = "" if confident else "; --confident is stricter"
    return f"the test split cannot rule out a drop of more than the {asked} asked for ({interval}){stricter}"


def _surest_drop(point: FrontPoint, baseline: FrontPoint) -> float:
    """The largest drop that the 95% interval of the paired difference allows. The untouched model itself loses nothing."""
    if point.trial == baseline.trial:
        return 0.0
    accuracy = point.measurement.accuracy
    return baseline.values["accuracy"] - accuracy.metric.low if accuracy.difference is None else -accuracy.difference.low


def _pick(
    name: str, eligible: Sequence[FrontPoint], baseline: FrontPoint | None, objective: str, allowed_drop: float | None
) -> NamedPick:
    candidates = with_untouched(eligible, [] if baseline is None else [baseline])
    picks = named_picks(candidates, {"accuracy": "maximize", objective: "minimize"}, allowed_drop)
    return picks[PICKS.index(name)]


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
    point: FrontPoint,
    baseline: FrontPoint | None,
    max_accuracy_drop: float | None,
    limits: Sequence[Limit],
    *,
    confident: bool = False,
) -> dict[str, float]:
    """How far `point` exceeds each limit, relative to the limit. Empty if it meets all limits."""
    excesses = {limit.text: limit.violation(point.values) / (abs(limit.bound) or 1.0) for limit in limits}
    if max_accuracy_drop is not None and baseline is not None:
        over = (_surest_drop if confident else accuracy_drop)(point, baseline) - max_accuracy_drop
        excesses[_DROP] = 0.0 if over <= _ROUNDING else over / max(max_accuracy_drop, 0.01)
    return {name: excess for name, excess in excesses.items() if excess > 0}


def _nothing_meets(
    points: Sequence[FrontPoint],
    excess: Mapping[int, Mapping[str, float]],
    baseline: FrontPoint | None,
    max_accuracy_drop: float | None,
    limits: Sequence[Limit],
    *,
    confident: bool = False,
) -> NoResultError:
    closest = min(points, key=lambda point: (sum(excess[point.trial].values()), *_preference(point)))
    found, relaxed = [], []
    for name in excess[closest.trial]:
        if name == _DROP and baseline is not None:
            drop = (_surest_drop if confident else accuracy_drop)(closest, baseline)
            found.append(f"an accuracy drop of {'up to ' if confident else ''}{metric_points(drop, baseline)}")
            relaxed.append(f"--max-accuracy-drop {math.ceil(drop * 1e4 - _ROUNDING) / 100:g}%")
    for limit in limits:
        if limit.text in excess[closest.trial]:
            found.append(f"{limit.name} {closest.values[limit.name]:.4g}")
            relaxed.append(f"--limit '{limit.name}{limit.operator}{_outward(closest.values[limit.name], limit.operator)}'")
    asked = _asked(baseline, max_accuracy_drop, limits, confident=confident)
    named = f"trial {closest.trial} ({closest.recipe.describe()})"
    return NoResultError(
        f"none of {len(points)} points is {asked}: the closest is {named} with {', '.join(found)}",
        f"relax to {' and '.join(relaxed)}; or search longer",
    )


def _outward(value: float, operator: str) -> str:
    """Write a bound in four digits that `value` keeps."""
    if not value or not math.isfinite(value):
        return f"{value:g}"
    digits = 3 - math.floor(math.log10(abs(value)))
    scaled = value * 10.0**digits
    return f"{(math.ceil(scaled) if operator == '<=' else math.floor(scaled)) / 10.0**digits:.4g}"


def _asked(
    baseline: FrontPoint | None, max_accuracy_drop: float | None, limits: Sequence[Limit], *, confident: bool = False
) -> str:
    asked = [f"at {limit.text}" for limit in limits]
    if max_accuracy_drop is not None and baseline is not None:
        within = f"within {metric_points(max_accuracy_drop, baseline)} of the baseline's {baseline.values['accuracy']:.4g}"
        asked.insert(0, f"surely {within}" if confident else within)
    return " and ".join(asked)


def _reason(
    chosen: FrontPoint, eligible: Sequence[FrontPoint], baseline: FrontPoint | None, objective: str, asked: str, *, knee: bool
) -> str:
    rank = "knee" if knee else cost_words(objective)[0]
    count = "the only point" if len(eligible) == 1 else f"{rank} of {len(eligible)} points"
    parts = [f"{count} {asked}".rstrip()]
    if baseline is not None:
        parts.append("the untouched model itself" if chosen.trial == baseline.trial else effect(chosen, baseline, objective))
    tied = [point for point in eligible if point is not chosen and _tied(point, chosen, objective)]
    others = [point for point in eligible if point is not chosen and point not in tied]
    if others and not knee:
        following = _best(others, objective)
        difference = _difference(following.values[objective], chosen.values[objective], objective)
        parts.append(f"next best trial {following.trial} is {difference}")
    if tied:
        trials = ", ".join(str(point.trial) for point in sorted(tied, key=lambda point: point.trial))
        parts.append(f"tied with trial {trials}, preferred for its accuracy, then its size")
    return "; ".join(parts)


def _difference(value: float, than: float, objective: str) -> str:
    """Return such as ``4% dearer``."""
    _, better, worse = cost_words(objective)
    share = f"{abs(value / than - 1) * 100:.0f}%" if than > 0 else f"{abs(value - than):.3g}"
    return f"{share} {worse if value >= than else better}"
