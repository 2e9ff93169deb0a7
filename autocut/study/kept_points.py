"""What a growing study need not work out again: the points of its trials, and its front.

A search looks at the front about once a second, and between two looks few trials end. The results are those of making every point
anew and comparing all of them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autocut.front import Final, FrontPoint, Objectives, unbeaten, with_ties
from autocut.gains import with_untouched
from autocut.recipe import RATIO, RATIO_TOLD_APART
from autocut.study.results import StudyResults
from autocut.study.scores import TrialScores
from autocut.study.trials import TrialRecord, to_point


@dataclass(frozen=True)
class ComparedFront:
    """The front, and `points`: the front and the untouched model. Both have their ties. `untested` as in `scores.Compared`."""

    front: list[FrontPoint]
    points: list[FrontPoint]
    untested: tuple[int, ...]


@dataclass(frozen=True)
class KeptPoint:
    """A point, and what it was made of. A candidate is feasible, and its bundle was not refused.

    `model` is the same for trials of one model: recipes that differ in their prune ratio alone, whose cuts have the same structure
    and whose models have the same accuracy. None where a recipe has no ratio.
    """

    record: TrialRecord
    final: Final | None
    point: FrontPoint
    is_candidate: bool
    model: Hashable = None


class KeptPoints:
    """The measured trials of the study in `folder` as points. A point is made once, and again when its trial is finalized."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[int, KeptPoint] = {}

    def of(self, found: StudyResults) -> list[KeptPoint]:
        """Return every measured trial of `found`, in the order of the numbers.

        Of several trials of one model one is a candidate: the first, or the first that has a bundle. None is, if one was refused.
        """
        made = [self._make(found.trials[trial], found.finals.get(trial)) for trial in found.measured]
        chosen: dict[Hashable, KeptPoint] = {}
        for one in made:
            if one.model is not None and one.is_candidate:
                before = chosen.setdefault(one.model, one)
                if before.final is None and one.final is not None:
                    chosen[one.model] = one
        refused = {one.model: one for one in made if one.final is not None and not one.final.verified}
        return [_without_copies(one, chosen, refused) for one in made]

    def _make(self, record: TrialRecord, final: Final | None) -> KeptPoint:
        made = self._made.get(record.trial)
        if made is None or made.record is not record or made.final is not final:
            is_candidate = record.is_feasible and (final is None or final.verified)
            point = to_point(record, final, self._folder)
            made = self._made[record.trial] = KeptPoint(record, final, point, is_candidate, _model_of(record, point))
        return made


def _without_copies(one: KeptPoint, *others: Mapping[Hashable, KeptPoint]) -> KeptPoint:
    """Return `one`, no candidate if a point of `others` is its model under another ratio."""
    for points in others if one.model is not None else ():
        other = points.get(one.model, one)
        if abs(float(other.point.recipe[RATIO]) - float(one.point.recipe[RATIO])) > RATIO_TOLD_APART:
            return replace(one, is_candidate=False)
    return one


def _model_of(record: TrialRecord, point: FrontPoint) -> Hashable:
    structure = record.extras.get("structure")
    if not structure or RATIO not in point.recipe:
        return None
    settings = tuple((name, value) for name, value in point.recipe.items() if name != RATIO)
    return structure, point.values["accuracy"], settings


class KeptFront:
    """The front of a study, with ties by paired tests of `scores`. It is compared again where something has changed."""

    def __init__(self, objectives: Objectives, scores: TrialScores) -> None:
        self._objectives = objectives
        self._scores = scores
        self._candidates: dict[int, FrontPoint] = {}
        self._unbeaten: list[FrontPoint] = []
        self._last: tuple[int, list[FrontPoint], ComparedFront] | None = None

    def compare(self, measured: Sequence[FrontPoint], candidates: Sequence[FrontPoint]) -> ComparedFront:
        """Return the front of `candidates`, sorted by trial. The untouched model from `measured` is compared too."""
        is_known = self._take_in(candidates)
        points = with_untouched(self._unbeaten, measured)
        if is_known and self._last is not None:
            version, before, found = self._last
            if version == self._scores.version and len(before) == len(points) and all(map(_is, before, points)):
                return found
        compared = self._scores.compare(points, candidates)
        tied = with_ties(points, self._objectives, compared.p_values)
        found = ComparedFront(tied[: len(self._unbeaten)], tied, compared.untested)
        self._last = self._scores.version, points, found
        return found

    def _take_in(self, candidates: Sequence[FrontPoint]) -> bool:
        """Bring the front up to date; return whether all candidates were known, and none is gone."""
        known = self._candidates
        new = [point for point in candidates if known.get(point.trial) is not point]
        if not new and len(known) == len(candidates):
            return True
        if len(known) + len(new) == len(candidates):  # none is gone or replaced: who was beaten stays beaten
            known |= {point.trial: point for point in new}
            rivals = sorted([*self._unbeaten, *new], key=lambda point: point.trial)
        else:
            self._candidates = {point.trial: point for point in candidates}
            rivals = list(candidates)
        self._unbeaten = unbeaten(rivals, self._objectives)
        return False


def _is(one: FrontPoint, other: FrontPoint) -> bool:
    return one is other
