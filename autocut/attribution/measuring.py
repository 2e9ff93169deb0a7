"""Measures the rungs of a ladder that a study lacks, from its cached stages, and compares rungs on the same examples.

What needs no training is measured first: that takes seconds. A training is begun only if it fits what is left of the budget.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median

from autocut.attribution.effects import LadderRung
from autocut.attribution.evidence import Evidence
from autocut.attribution.ladder import wanted_pairs, wanted_recipes
from autocut.budget import format_duration
from autocut.errors import DeadlineError, TrialError
from autocut.measure.accuracy import Scores, to_accuracy
from autocut.measure.early_verdict import paired
from autocut.measurement import COUNTED_CALL, EARLIER_COUNTED_CALL, Interval
from autocut.pipeline.opened_pipeline import open_pipeline
from autocut.pipeline.pipeline import Pipeline
from autocut.price import Price
from autocut.recipe import Recipe
from autocut.score import values_of
from autocut.search.jobs import StageStarted
from autocut.study import Study

Tell = Callable[[str], None]
_TIMED_OTHERWISE = (
    "an earlier autocut timed this study by another rule, so a step that is timed now would not compare with it; a new search with "
    "--out is timed alike"
)


def measure_evidence(study: Study, recipe: Recipe, evidence: Evidence, budget_s: float, tell: Tell = lambda _: None) -> Evidence:
    """Measure what the ladder to `recipe` still needs, and store it in `study`. What the study has is not measured again.

    Args:
        study: The study of the recipe.
        recipe: The recipe to explain.
        evidence: What the study knows.
        budget_s: Seconds that this may take. A step that has begun may take a little longer.
        tell: Called with what is being done.

    Returns:
        `evidence` and what was found. A recipe that is still not measured has its reason in `missing`.

    Raises:
        StudyError: the stages of the study cannot be used.
    """
    wanted = [rung for rung in wanted_recipes(recipe) if rung not in evidence.known and rung not in evidence.missing]
    if not wanted and not _unpaired(recipe, evidence):
        return evidence
    if wanted and not _is_timed_alike(study):
        return replace(evidence, missing={**evidence.missing, **dict.fromkeys(wanted, _TIMED_OTHERWISE)})
    limit = _Limit(study, time.monotonic() + budget_s)
    pipeline = open_pipeline(study, study.trials(), limit.on_event, limit.is_over)
    trained = {training for known in evidence.known for training in known.trainings}
    for rung in sorted(wanted, key=lambda rung: not trained.issuperset(rung.trainings)):
        evidence = _with_rung(study, pipeline, limit, rung, evidence, tell)
    return _with_pairs(study, pipeline, limit, recipe, evidence, tell)


def _is_timed_alike(study: Study) -> bool:
    """Whether a step that is timed now compares with the timings of `study`: an earlier autocut counted another call of a turn."""
    return bool(study.facts.get("counted_call", EARLIER_COUNTED_CALL) == COUNTED_CALL)


class _Limit:
    """Lets a training begin only if it fits what is left until `deadline`, a reading of `time.monotonic()`."""

    def __init__(self, study: Study, deadline: float) -> None:
        self._study = study
        self._deadline = deadline
        self._epoch_s = _seconds_an_epoch(study)
        self.epochs: int | None = None
        """Of a training that may begin; None where none may."""

    def is_over(self) -> bool:
        """Whether the budget is spent."""
        return time.monotonic() >= self._deadline

    def on_event(self, event: object) -> None:
        """Stop before a training that may not begin, or does not fit.

        Raises:
            DeadlineError: with the reason.
        """
        if not isinstance(event, StageStarted):
            return
        if (event.stage, event.method) == ("baseline", "train"):
            raise DeadlineError(f"the untouched model is gone from the stages of {self._study.folder}")
        if event.stage != "train":
            return
        if self.epochs is None:
            raise DeadlineError(f"its trained model is gone from the stages of {self._study.folder}")
        left, takes = max(0.0, self._deadline - time.monotonic()), self.epochs * self._epoch_s
        if takes > left:
            raise DeadlineError(
                f"it needs a training of about {format_duration(takes)}, and {format_duration(left)} of --budget is left"
            )


def _seconds_an_epoch(study: Study) -> float:
    """Seconds of an epoch as the trainings of the study took them; 0 where it has none, so that one may be tried.

    What a recipe takes to train begins with the training of the untouched model, unless it starts from scratch.
    """
    facts = study.facts
    untouched_s = float(facts.get("baseline_train_seconds") or 0.0)
    took = []
    for trial in study.trials():
        recipe = trial.recipe
        if trial.measured is not None and recipe is not None and recipe.is_trained and "train_seconds" in trial.extras:
            before_s = 0.0 if recipe.changes("train.start") else untouched_s
            took.append((float(trial.extras["train_seconds"]) - before_s) / recipe.all_epochs)
    took = [seconds for seconds in took if seconds > 0]
    if not took and facts.get("untouched_epochs"):
        took = [untouched_s / facts["untouched_epochs"]]
    return median(took) if took else 0.0


def _with_rung(study: Study, pipeline: Pipeline, limit: _Limit, rung: Recipe, evidence: Evidence, tell: Tell) -> Evidence:
    """Measure one recipe. A reason that will stay is stored; a spent budget is none of these."""
    limit.epochs = int(rung["train.epochs"])
    try:
        if limit.is_over():
            raise DeadlineError("the time of --budget was up before")
        tell(f"measuring {rung.describe()}")
        measured = pipeline.measure(rung)
    except DeadlineError as error:
        return replace(evidence, missing={**evidence.missing, rung: error.message})
    except TrialError as error:
        study.rungs.refuse(rung, error.message)
        return replace(evidence, missing={**evidence.missing, rung: error.message})
    reference = study.reference
    if reference is None:
        raise ValueError("a pipeline was opened without a reference")
    values = values_of(measured.measurement, reference, Price(**study.facts["price"]), measured.train_seconds)
    study.rungs.record(rung, values, measured.measurement)
    return replace(evidence, known={**evidence.known, rung: LadderRung(rung, values, measured.measurement)})


def _with_pairs(study: Study, pipeline: Pipeline, limit: _Limit, recipe: Recipe, evidence: Evidence, tell: Tell) -> Evidence:
    """Compare rungs on the same examples, by the scores in the stages. What would need a training stays unpaired."""
    limit.epochs = None
    scores: dict[Recipe, Scores] = {}
    for before, after in _unpaired(recipe, evidence):
        tell(f"comparing {after.describe()} with {before.describe()}")
        try:
            for side in (before, after):
                if side not in scores:
                    scores[side] = pipeline.scores(side)
            difference = _difference(pipeline, scores[before], scores[after])
        except TrialError:
            continue  # the effect then says that it is not paired
        study.rungs.record_pair(before, after, difference)
        evidence = replace(evidence, pairs={**evidence.pairs, (before, after): difference})
    return evidence


def _difference(pipeline: Pipeline, before: Scores, after: Scores) -> Interval:
    """Return the paired difference. Slow scorings may have ended early: then the examples count that both have."""
    if len(before.scores) > len(after.scores):
        before = paired(before, after)
    elif len(after.scores) > len(before.scores):
        after = paired(after, before)
    with pipeline.runner.working():
        difference = to_accuracy("validation", after, pipeline.runner.context.task.metric_kind, before).difference
    if difference is None:
        raise ValueError("two scores were compared without a difference")
    return difference


def _unpaired(recipe: Recipe, evidence: Evidence) -> Sequence[tuple[Recipe, Recipe]]:
    return [pair for pair in wanted_pairs(recipe, evidence.known) if pair not in evidence.pairs]
