"""What a study knows of the recipes of a ladder: its trials, and the rungs that were measured to explain one. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autocut.attribution.effects import LadderRung
from autocut.attribution.ladder import Pairs
from autocut.recipe import Recipe

if TYPE_CHECKING:
    from autocut.study import Study

_ENDED = "FAIL"
"""State of a trial that could not be measured. One that was stopped early could be, if it were trained to the end."""


@dataclass(frozen=True)
class Evidence:
    """The recipes that were measured, pairs of them that were compared on the same examples, and reasons why others were not."""

    known: Mapping[Recipe, LadderRung]
    pairs: Pairs
    missing: Mapping[Recipe, str]


def read_evidence(study: Study) -> Evidence:
    """Read what `study` knows. Its trials come before the rungs that were measured later."""
    stored = study.rungs.all()
    known = {rung.recipe: LadderRung(rung.recipe, rung.values, rung.measurement) for rung in stored if rung.measurement is not None}
    known |= {point.recipe: LadderRung(point.recipe, point.values, point.measurement) for point in study.points()}
    missing = {rung.recipe: rung.reason for rung in stored if rung.reason is not None}
    missing |= {
        recipe: trial.reason or "it failed in the search"
        for recipe, trial in study.results().items()
        if trial.state == _ENDED and recipe not in known
    }
    by_fingerprint = {recipe.fingerprint: recipe for recipe in known}
    pairs = {
        (by_fingerprint[before], by_fingerprint[after]): difference
        for (before, after), difference in study.rungs.pairs().items()
        if before in by_fingerprint and after in by_fingerprint
    }
    return Evidence(known, pairs, missing)
