"""Choose one point of a front and give the reason in one line. Arithmetic only, no torch.

An accuracy drop is ABSOLUTE for a metric between 0 and 1: 0.01 is one percentage point (0.978 may become 0.968), not one percent of
0.978. Of any other metric it is a share: with 0.01 an error of 20 may grow to 20.2. The search takes it so too
(`autocut.score.allowed_drop`). The baseline is the untouched model.

Points that the front cannot tell apart (`FrontPoint.ties`) are a tie. Among them the highest accuracy wins, then the smallest file,
and the reason mentions the tie. A baseline may be chosen like any other point.

Without a wish, the choice is the balanced pick (`autocut.picks`): the model that most people should take.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autocut.budget import checked_share
from autocut.counting import format_count
from autocut.deploy.remarks import doubt, limit_doubts, training_alone
from autocut.errors import InputError, NoResultError, unknown_name
from autocut.front import FrontPoint
from autocut.front import knee as knee_of
from autocut.gains import accuracy_drop as accuracy_drop
from autocut.gains import cost_words, effect, metric_points, with_untouched
from autocut.gains import untouched as untouched
from autocut.picks import PICKS, RECOMMENDED, USUAL_DROP, NamedPick, cheapest, cost_of, named_picks, preference, tied
from autocut.score import ALIASES, METRICS, Limit, allowed_drop, check_shares, parse_limit

if TYPE_CHECKING:
    from autocut.study import Study

_ROUNDING = 1e-9
_DROP = "accuracy drop"


@dataclass(frozen=True)
class Selection:
    """The chosen point, the reason in one line, and what the test split and the final timing have against it; None for nothing."""

    point: FrontPoint
    reason: str
    doubt: str | None = None


def select_point(
    points: Sequence[FrontPoint],
    *,
    max_accuracy_drop: float | None = None,
    limits: Sequence[Limit] = (),
    minimize: str | None = None,
    knee: bool = False,
    measured: Sequence[FrontPoint] = (),
    pick: str | None = None,
    searched_drop: float | None = None,
    confident: bool = False,
) -> Selection:
    """Choose the point that minimizes one value, the knee, or a named pick, among those that meet the limits.

    Args:
        points: Front points and baselines. The untouched model should be among them.
        max_accuracy_drop: Largest drop of the metric against the untouched model: 0.01 is one percentage point, or 1% of a metric
            that is not between 0 and 1.
        limits: Bounds on values, such as ``latency_ms<=5``.
        minimize: Name of a value or one of `ALIASES`. Default: "cost".
        knee: Choose the knee of the front between accuracy and `minimize`: beyond it, savings cost much more accuracy.
        measured: Every measured point of the study, to tell what training alone does.
        pick: One of `autocut.picks.PICKS`, with `minimize` as the cost.
        confident: Whether the worse end of the interval of the paired difference must keep `max_accuracy_drop`, not its middle.
        searched_drop: What the search allowed; the picks go by it where `max_accuracy_drop` does not say.

    Raises:
        NoResultError: there is no point, or none meets the limits; the message names the closest one.
        UnknownNameError: `minimize` is not a value of these points, or `pick` not the name of a pick.
        InputError: `max_accuracy_drop` is no share from 0 to 1, the untouched model is not among the points, or both `knee` and
            `pick` are given, or `confident` is asked for without a drop, or a limit asks more of a share than there is.
    """
    baseline = untouched(points)
    _check_question(points, baseline, max_accuracy_drop, pick, knee=knee, confident=confident)
    if baseline is not None and 0 <= baseline.values["accuracy"] <= 1:
        check_shares(limits)
    objective = _objective(points, minimize)
    excess = {point.trial: _excesses(point, baseline, max_accuracy_drop, limits, confident=confident) for point in points}
    eligible = [point for point in points if not excess[point.trial]]
    if not eligible:
        raise _nothing_meets(points, excess, baseline, max_accuracy_drop, limits, confident=confident)
    bound = max_accuracy_drop
    if pick is not None:
        found = _pick(pick, eligible, baseline, objective, searched_drop if bound is None else bound)
        chosen, reason = found.point, f"{found.name} pick, {found.reason}"
        bound = _promised(pick, searched_drop) if bound is None else bound
    else:
        anchor = _knee(eligible, objective) if knee else cheapest(eligible, objective)
        chosen = min((point for point in eligible if tied(point, anchor, objective)), key=preference)
        asked = _asked(baseline, max_accuracy_drop, limits, confident=confident)
        reason = _reason(chosen, eligible, baseline, objective, asked, knee=knee)
    told = "; ".join([reason, *training_alone(measured, chosen)])
    of_drop = doubt(chosen, baseline, bound, confident=confident or max_accuracy_drop is None)
    doubts = [*([of_drop] if of_drop else []), *limit_doubts(chosen, limits)]
    return Selection(chosen, told, "; ".join(doubts) or None)


def select_from_study(study: Study, *, limits: Sequence[str] = (), pick: str | None = None, **choice: Any) -> Selection:
    """Choose a point of a study's front; the untouched model may be chosen too.

    Cost is the study's own, unless `minimize` says otherwise. Without any wish the choice is the balanced pick; in a study whose
    untouched model was not measured yet, the knee of the front.

    Args:
        study: An open study.
        limits: Bounds on values as text, such as "latency_ms<=5".
        pick: One of `autocut.picks.PICKS`.
        **choice: Other arguments of `select_point`, which says what they mean and what this raises.
    """
    if pick is not None and choice.get("minimize") is not None:
        raise InputError(f"a pick must stand without minimize, got {pick} and {choice['minimize']}", "leave one out")
    measured = study.points()
    points = with_untouched(study.front(), measured)
    if not (limits or pick or any(value is not None and value is not False for value in choice.values())):
        pick, choice = (RECOMMENDED, {}) if untouched(points) else (None, {"knee": True})
    choice["minimize"] = choice.get("minimize") or cost_of(study.objectives)
    searched, bounds = study.facts.get("max_accuracy_drop"), [parse_limit(text) for text in limits]
    return select_point(points, limits=bounds, measured=measured, pick=pick, searched_drop=searched, **choice)


def picks_of_study(study: Study) -> tuple[NamedPick, ...]:
    """Return the named picks of a study's front; none before the untouched model is measured."""
    points = with_untouched(study.front(), study.points())
    return named_picks(points, study.objectives, study.facts.get("max_accuracy_drop"))


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
    if max_accuracy_drop is not None:
        checked_share(max_accuracy_drop, "max_accuracy_drop")
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


def _surest_drop(point: FrontPoint, baseline: FrontPoint) -> float:
    """The largest drop that the 95% interval of the paired difference allows. The untouched model itself loses nothing."""
    if point.trial == baseline.trial:
        return 0.0
    accuracy = point.measurement.accuracy
    return baseline.values["accuracy"] - accuracy.metric.low if accuracy.difference is None else -accuracy.difference.low


def _pick(
    name: str, eligible: Sequence[FrontPoint], baseline: FrontPoint | None, objective: str, max_drop: float | None
) -> NamedPick:
    candidates = with_untouched(eligible, [] if baseline is None else [baseline])
    picks = named_picks(candidates, {"accuracy": "maximize", objective: "minimize"}, max_drop)
    return picks[PICKS.index(name)]


def _promised(pick: str, searched_drop: float | None) -> float | None:
    """Return the largest drop that a pick has by its rule; None where the rule names none."""
    if pick == RECOMMENDED:
        return USUAL_DROP if searched_drop is None else min(USUAL_DROP, searched_drop)
    return searched_drop if pick == "compact" else None


def _objective(points: Sequence[FrontPoint], minimize: str | None) -> str:
    name = ALIASES.get(minimize or "cost", minimize or "cost")
    shared = set.intersection(*(set(point.values) for point in points))
    known = {value for value in shared if value not in METRICS or METRICS[value].direction == "minimize"}
    if name not in known:
        raise unknown_name("minimize", minimize or "cost", known | {alias for alias, target in ALIASES.items() if target in known})
    return name


def _knee(eligible: Sequence[FrontPoint], objective: str) -> FrontPoint:
    trial = knee_of(eligible, {"accuracy": "maximize", objective: "minimize"}).trial
    return next(point for point in eligible if point.trial == trial)


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
        allowed, scale = (allowed_drop(share, baseline.values["accuracy"]) for share in (max_accuracy_drop, USUAL_DROP))
        over = (_surest_drop if confident else accuracy_drop)(point, baseline) - allowed
        excesses[_DROP] = 0.0 if over <= _ROUNDING else over / max(allowed, scale)
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
    closest = min(points, key=lambda point: (sum(excess[point.trial].values()), *preference(point)))
    found, relaxed = [], []
    for name in excess[closest.trial]:
        if name == _DROP and baseline is not None:
            drop = (_surest_drop if confident else accuracy_drop)(closest, baseline)
            found.append(f"an accuracy drop of {'up to ' if confident else ''}{metric_points(drop, baseline)}")
            share = drop / allowed_drop(1.0, baseline.values["accuracy"])
            relaxed.append(f"--max-accuracy-drop {math.ceil(share * 1e4 - _ROUNDING) / 100:g}%")
    for limit in limits:
        if limit.text in excess[closest.trial]:
            found.append(f"{limit.name} {closest.values[limit.name]:.4g}")
            relaxed.append(f"--limit '{limit.name}{limit.operator}{_outward(closest.values[limit.name], limit.operator)}'")
    asked = _asked(baseline, max_accuracy_drop, limits, confident=confident)
    named = f"trial {closest.trial} ({closest.recipe.describe()})"
    return NoResultError(
        f"none of {format_count(len(points), 'model')} is {asked}: the closest is {named} with {', '.join(found)}",
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
        allowed = allowed_drop(max_accuracy_drop, baseline.values["accuracy"])
        within = f"within {metric_points(allowed, baseline)} of the untouched model's {baseline.values['accuracy']:.4g}"
        asked.insert(0, f"surely {within}" if confident else within)
    return " and ".join(asked)


def _reason(
    chosen: FrontPoint, eligible: Sequence[FrontPoint], baseline: FrontPoint | None, objective: str, asked: str, *, knee: bool
) -> str:
    rank = "knee" if knee else cost_words(objective)[0]
    count = "the only model" if len(eligible) == 1 else f"{rank} of {format_count(len(eligible), 'model')}"
    parts = [f"{count} {asked}".rstrip()]
    if baseline is not None:
        parts.append("the untouched model itself" if chosen.trial == baseline.trial else effect(chosen, baseline, objective))
    same = [point for point in eligible if point is not chosen and tied(point, chosen, objective)]
    others = [point for point in eligible if point is not chosen and point not in same]
    if others and not knee:
        following = cheapest(others, objective)
        difference = _difference(following.values[objective], chosen.values[objective], objective)
        parts.append(f"the next best, trial {following.trial}, is {difference}")
    if same:
        trials = ", ".join(str(point.trial) for point in sorted(same, key=lambda point: point.trial))
        parts.append(f"tied with trial {trials}, preferred for its accuracy, then its size")
    return "; ".join(parts)


def _difference(value: float, than: float, objective: str) -> str:
    """Return such as ``4% dearer``."""
    _, better, worse = cost_words(objective)
    share = f"{abs(value / than - 1) * 100:.0f}%" if than > 0 else f"{abs(value - than):.3g}"
    return f"{share} {worse if value >= than else better}"
