"""Compare two studies: their fronts from a common reference on, and their picks, by what both have measured. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autocut.errors import NoResultError
from autocut.front import FrontPoint, Objectives, hypervolume, reference_point
from autocut.measurement import Measurement
from autocut.score import interval_of
from autocut.study import Study

_VALIDATION, _TEST = "validation", "test"


@dataclass(frozen=True)
class ComparedStudy:
    """One of two studies: its front, the hypervolume of it, and the `share` of the hypervolume of both fronts together.

    Both numbers are None where the studies have no objective in common, or a front is empty.
    """

    study: str
    front: tuple[FrontPoint, ...]
    hypervolume: float | None
    share: float | None
    pick: FrontPoint | None


@dataclass(frozen=True)
class StudyComparison:
    """Two studies. `reference` is the point from which both hypervolumes count, by the `objectives` that both have.

    The picks are compared by the numbers of `split`. `is_pick_tie` says whether their intervals overlap on each of the objectives;
    None where a pick is missing. `not_comparable` says what the two do not share.
    """

    a: ComparedStudy
    b: ComparedStudy
    objectives: Objectives
    reference: Mapping[str, float] | None
    split: str
    is_pick_tie: bool | None
    not_comparable: tuple[str, ...]


def compare_studies(a: Study, b: Study, picks: tuple[FrontPoint | None, FrontPoint | None]) -> StudyComparison:
    """Compare the fronts of two studies; `picks` are the points that most people should take.

    Raises:
        NoResultError: neither has a front.
    """
    fronts = a.front(), b.front()
    if not any(fronts):
        raise NoResultError("two studies must have a front to be compared, got two empty ones", "let autocut search run on")
    objectives = {name: way for name, way in a.objectives.items() if b.objectives.get(name) == way}
    reference: dict[str, float] | None = None
    volumes: list[float | None] = [None, None]
    shares: list[float | None] = [None, None]
    if objectives and all(fronts):
        points = [*fronts[0], *fronts[1]]
        reference = reference_point(points, objectives)
        whole = hypervolume(points, objectives, reference)
        covered = [hypervolume(front, objectives, reference) for front in fronts]
        volumes, shares = [*covered], [volume / whole for volume in covered]
    first, second = (
        ComparedStudy(study.name, tuple(front), volume, share, pick)
        for study, front, volume, share, pick in zip((a, b), fronts, volumes, shares, picks, strict=True)
    )
    split = _TEST if all(pick is not None and pick.tested for pick in picks) else _VALIDATION
    told = _not_comparable(a, b) + _charged_otherwise(picks, split)
    return StudyComparison(first, second, objectives, reference, split, _is_tie(picks, objectives, split), told)


def values_on(point: FrontPoint, split: str) -> Mapping[str, float]:
    """Return the values of a point on `split`."""
    return point.tested.values if split == _TEST and point.tested is not None else point.values


def measurement_on(point: FrontPoint, split: str) -> Measurement:
    """Return the measurement of a point on `split`."""
    return point.tested.measurement if split == _TEST and point.tested is not None else point.measurement


def _is_tie(picks: Sequence[FrontPoint | None], objectives: Objectives, split: str) -> bool | None:
    a, b = picks
    if a is None or b is None or not objectives:
        return None
    spreads = [
        {name: interval_of(name, values_on(pick, split), measurement_on(pick, split)) for name in objectives} for pick in (a, b)
    ]
    return all(
        first.low <= second.high and second.low <= first.high for first, second in zip(*map(dict.values, spreads), strict=True)
    )


def _not_comparable(a: Study, b: Study) -> tuple[str, ...]:
    """Say what two studies do not share, each with what it means for their numbers."""
    told = []
    if a.task_fingerprint != b.task_fingerprint:
        names = f"{a.name} and {b.name}" if a.name != b.name else f"two versions of {a.name}"
        told.append(f"other tasks ({names}): accuracies may be of other data")
    if a.objectives != b.objectives:
        listed = " and ".join(", ".join(study.objectives) for study in (a, b))
        told.append(f"other objectives ({listed}): only those in common count")
    for what, known, consequence in (
        ("machines", _machine, "times and dollars are of two machines"),
        ("numbers of threads", lambda study: study.facts.get("threads"), "times are of two settings"),
        ("prices", _price, "dollars follow two prices"),
    ):
        first, second = known(a), known(b)
        if first != second:
            told.append(f"other {what} ({first} and {second}): {consequence}")
    if changed := _changed_versions(a, b):
        told.append(f"other versions ({changed}): times may differ for them alone")
    return tuple(told)


def _charged_otherwise(picks: tuple[FrontPoint | None, FrontPoint | None], split: str) -> tuple[str, ...]:
    """Say that one pick is charged by what the whole machine serves, and the other one by one process."""
    known = {measurement_on(pick, split).capacity is not None for pick in picks if pick is not None}
    return ("dollars of one pick are of the whole machine, those of the other of one process",) if len(known) > 1 else ()


def _machine(study: Study) -> str:
    reference = study.reference
    return "unknown" if reference is None else reference.machine


def _price(study: Study) -> str:
    price = study.facts.get("price") or {}
    if not price:
        return "unknown"
    utilization = f", {price['utilization']:.0%} busy" if price.get("utilization", 1.0) != 1.0 else ""
    return f"{price['instance']}, ${price['usd_per_hour']:g} per hour of {price['date']}{utilization}"


def _changed_versions(a: Study, b: Study) -> str:
    """List the libraries of which the studies had two versions; a library that one of them did not need is none."""
    first, second = (study.facts.get("libraries") or {} for study in (a, b))
    return ", ".join(
        f"{name} {first[name]} and {second[name]}" for name in sorted({*first} & {*second}) if first[name] != second[name]
    )
