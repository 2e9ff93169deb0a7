"""Explains a trial: the measured ladder from the untouched model to its recipe, what is missing and why, and all of it in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from autocut.attribution.effects import LadderRung
from autocut.attribution.evidence import Evidence, read_evidence
from autocut.attribution.ladder import Ladder, build_ladder, wanted_recipes
from autocut.attribution.sentences import sentences_of
from autocut.errors import NoResultError, StudyError
from autocut.recipe import UNTOUCHED, Recipe
from autocut.study import open_study
from autocut.study.importance import ValueImportance, importances
from autocut.study.trials import measured_trial

_NOT_MEASURED = "it was not measured yet"


@dataclass(frozen=True)
class Explanation:
    """The ladder to the recipe of a trial of `study`, in numbers and in sentences.

    `missing` are the recipes that the ladder lacks, each with its reason. `importance` is that of the settings over the whole
    study; it is empty where `importance_refused` says why.
    """

    study: str
    trial: int
    untouched: LadderRung
    ladder: Ladder
    sentences: tuple[str, ...]
    missing: Mapping[Recipe, str]
    importance: tuple[ValueImportance, ...] = ()
    importance_refused: str | None = None


def explain_trial(folder: Path, trial: int, *, budget_s: float | None, tell: Callable[[str], None] = lambda _: None) -> Explanation:
    """Explain `trial` of the study in `folder`.

    Args:
        folder: Folder of the study.
        trial: Number of a trial that was measured.
        budget_s: Seconds in which missing rungs may be measured; None: nothing is measured, and the task is not needed.
        tell: Called with what is being done.

    Raises:
        StudyError: no such study or trial, the trial or the untouched model was not measured, or something must be measured and the
            stages of the study cannot be used.
    """
    study = open_study(folder)
    try:
        recipe = measured_trial(study.trials(), trial, "TRIAL", study.folder).recipe or UNTOUCHED
        evidence = read_evidence(study)
        if UNTOUCHED not in evidence.known:
            raise StudyError(f"study {study.folder} must have a measured baseline, but has none", "search it a little longer")
        if budget_s is not None:
            from autocut.attribution.measuring import measure_evidence  # needs torch

            evidence = measure_evidence(study, recipe, evidence, budget_s, tell)
        explanation = explain_recipe(study.name, trial, recipe, evidence)
        try:
            return replace(explanation, importance=importances(study))
        except NoResultError as error:
            return replace(explanation, importance_refused=error.message)
    finally:
        study.close()


def explain_recipe(study: str, trial: int, recipe: Recipe, evidence: Evidence) -> Explanation:
    """Explain the recipe of `trial` by `evidence`, which has it and the untouched model."""
    ladder = build_ladder(recipe, evidence.known, evidence.pairs)
    untouched = evidence.known[UNTOUCHED]
    missing = {rung: evidence.missing.get(rung, _NOT_MEASURED) for rung in wanted_recipes(recipe) if rung not in evidence.known}
    told = sentences_of(ladder, trial, untouched) if ladder.steps else (_nothing_to_explain(trial),)
    return Explanation(study, trial, untouched, ladder, told, missing)


def _nothing_to_explain(trial: int) -> str:
    return f"Trial {trial} is the untouched model, so there is nothing to explain."
