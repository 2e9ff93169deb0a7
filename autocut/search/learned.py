"""What an earlier study of a similar task teaches: recipes to begin with, and what its methods brought (`--learn-from`).

Its front becomes the first trials, as far as the space has them. What each lowering did to its untouched model, and each pruner
with a training after it, becomes the first guess. Everything is measured again here: no number of the other study counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autocut.counting import format_count
from autocut.errors import InputError, quoted
from autocut.front import FrontPoint
from autocut.recipe import UNTOUCHED, Recipe
from autocut.search.first_guesses import MethodEffect, ModelFamily, kept_of, own_family
from autocut.search.volume import Volume
from autocut.space import Space
from autocut.study import open_study

if TYPE_CHECKING:
    from autocut.study import Study

_MOST_PREFIXES = 8
"""Models of the other study's front that are made first. Those that its front would miss the most."""
_USUAL_RATIO = 0.5
"""Pruners are compared at the ratio that is nearest to this one, as in `first_guesses.json`."""
_MAKING = ("compile", "quantize")
_LEAST_S = 0.05


@dataclass(frozen=True)
class Lessons:
    """What a search takes from another study. `jobs` are recipes by model, `left_out` says why others do not fit the space."""

    source: str
    jobs: tuple[tuple[Recipe, ...], ...]
    family: ModelFamily
    left_out: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """What the user should know of it."""
        recipes = sum(map(len, self.jobs))
        methods = sum(map(len, self.family.effects.values()))
        told = (
            f"learned from {self.source}: {format_count(recipes, 'recipe')} of its front to try first, "
            f"and what {format_count(methods, 'method')} brought there"
        )
        return told + (f"; not in this space: {'; '.join(self.left_out)}" if self.left_out else "")


def learn_from(folder: Path, space: Space) -> Lessons:
    """Read the lessons of the study in `folder` for a search of `space`.

    Raises:
        StudyError: the folder has no study, or one of another version.
        InputError: nothing was measured there.
    """
    study = open_study(folder)
    try:
        return lessons_of(study, space)
    finally:
        study.close()


def require_another_study(folder: Path, out: Path) -> None:
    """Refuse to learn from the study that is searched.

    Raises:
        InputError: both are one folder.
    """
    if folder.expanduser().resolve() == out.expanduser().resolve():
        raise InputError(
            f"--learn-from must be another study than the one that is searched, got {quoted(str(folder))}",
            "leave it out: the same command goes on from what this study has found",
        )


def lessons_of(study: Study, space: Space) -> Lessons:
    """Return what `study` teaches a search of `space`.

    Raises:
        InputError: nothing was measured in it.
    """
    points = study.candidates()
    known = {point.recipe: point for point in points}
    if UNTOUCHED not in known or len(known) == 1:
        raise InputError(
            f"--learn-from must be a study with measured models, got {quoted(str(study.folder))} with {len(known)}",
            "search there first, or leave it out",
        )
    jobs, left_out = _jobs(study, known[UNTOUCHED], space)
    family = own_family(_lowerings(study, known), _recoveries(known))
    return Lessons(str(study.folder), jobs, family, left_out)


def _jobs(study: Study, untouched: FrontPoint, space: Space) -> tuple[tuple[tuple[Recipe, ...], ...], tuple[str, ...]]:
    """The recipes of the front by model: those without a training first, then those that the front would miss the most."""
    front = [point for point in study.front() if point.recipe != UNTOUCHED]
    volume = Volume(study.objectives, untouched.values, [point.values for point in front])
    shares = volume.contributions([volume.losses(point.values) for point in front]) if front else []
    of_prefix: dict[Recipe, list[Recipe]] = {}
    left_out = []
    for _, point in sorted(zip(shares, front, strict=True), key=lambda ranked: (ranked[1].recipe.is_trained, -ranked[0])):
        if reason := space.why_not(_without_parent(point.recipe, space)):
            left_out.append(f"trial {point.trial} ({reason})")
        else:
            of_prefix.setdefault(point.recipe.prefix, []).append(point.recipe)
    return tuple(tuple(recipes) for recipes in list(of_prefix.values())[:_MOST_PREFIXES]), tuple(left_out)


def _without_parent(recipe: Recipe, space: Space) -> Recipe:
    """A child of iterative pruning lies in the space if its own settings do: the agent makes children itself."""
    own = {name: value for name, value in recipe.items() if name != "prune.parent_ratio"}
    return Recipe(own) if space.axis("prune.parent_ratio") is None else recipe


def _lowerings(study: Study, known: Mapping[Recipe, FrontPoint]) -> dict[str, MethodEffect]:
    """What each lowering of the untouched model brought. What its mode made once for all dtypes counts for each of them."""
    own = [recipe for recipe in known if recipe.prefix == UNTOUCHED and recipe != UNTOUCHED]
    seconds, shared = defaultdict[str, float](float), defaultdict[str, float](float)
    for run in study.stage_runs(own):
        if run.stage == "convert":
            mode = run.method.rpartition("/")[2]
            shared[mode] = max(shared[mode], run.seconds)
        elif run.stage in _MAKING and not run.cached:
            seconds[run.fingerprint] += run.seconds
    return {
        "/".join(recipe.lowering): _effect(
            known[recipe], known[UNTOUCHED], seconds[recipe.fingerprint] + shared[recipe.lowering[1]]
        )
        for recipe in own
    }


def _recoveries(known: Mapping[Recipe, FrontPoint]) -> dict[str, MethodEffect]:
    """What each pruner with a training after it brought, against the untouched model with the same lowering."""
    found: dict[str, MethodEffect] = {}
    for method, recipes in _pruned(known).items():
        nearest = min(abs(float(recipe["prune.ratio"]) - _USUAL_RATIO) for recipe in recipes)
        alike = [recipe for recipe in recipes if abs(float(recipe["prune.ratio"]) - _USUAL_RATIO) == nearest]
        best = max(alike, key=lambda recipe: known[recipe].values["accuracy"])
        found[method] = _effect(known[best], known[UNTOUCHED.with_lowering(*best.lowering)], _LEAST_S)
    return found


def _pruned(known: Mapping[Recipe, FrontPoint]) -> dict[str, list[Recipe]]:
    """The trained and pruned recipes by pruner, as far as the untouched model has their lowering too."""
    found: dict[str, list[Recipe]] = {}
    for recipe in known:
        has_base = UNTOUCHED.with_lowering(*recipe.lowering) in known
        recovers = recipe.is_trained and recipe.changes("prune.method") and not recipe.prunes_last
        if recovers and recipe.student is None and has_base:
            found.setdefault(str(recipe["prune.method"]), []).append(recipe)
    return found


def _effect(point: FrontPoint, base: FrontPoint, seconds: float) -> MethodEffect:
    speedup = point.values["speedup"] / base.values["speedup"]
    change = point.values["accuracy"] - base.values["accuracy"]
    size = point.values["size_bytes"] / base.values["size_bytes"]
    return MethodEffect(speedup, speedup, size, kept_of(change, base.values["accuracy"]), max(seconds, _LEAST_S))
