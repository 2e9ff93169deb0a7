"""What earlier sessions of a study found, or other searches find at the same time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autocut.measurement import Interval
from autocut.recipe import UNTOUCHED, Recipe
from autocut.search.jobs import TASK_FAILED, ScoringPlan, StageRan
from autocut.search.proposals import Proposer
from autocut.search.state import SearchState, untouched_metric
from autocut.study import Final, Study
from autocut.study.results import StudyResults


@dataclass(frozen=True)
class EarlierTrial:
    """The last trial of a recipe in another session."""

    recipe: Recipe
    values: Mapping[str, float] | None  # None: infeasible, failed, or stopped
    train_seconds: float = 0.0
    is_stopped: bool = False  # its training was stopped early
    curve: Sequence[float] = ()
    is_disturbed: bool = False  # its timing was disturbed
    failure: str = ""  # why it failed; empty also where it was infeasible


def recall(study: Study, state: SearchState, proposer: Proposer) -> None:
    """Take over the untouched model, the trials and the stages of earlier sessions into `state` and the sampler."""
    recall_untouched(study, state)
    trials = {trial.trial: trial for trial in study.results().values()}
    recall_results(study, StudyResults(trials, study.finals()), state, proposer)


def recall_untouched(study: Study, state: SearchState) -> None:
    """Take over the untouched model, if it is measured."""
    if study.reference is not None:
        state.set_reference(study.reference)
        state.untouched_epochs = study.facts.get("untouched_epochs")
    if baseline := study.facts.get("baseline"):
        state.set_baseline(Interval(*(baseline[name] for name in ("value", "low", "high"))))
    if scoring := study.facts.get("scoring"):
        state.scoring = ScoringPlan(**scoring)


def recall_results(study: Study, found: StudyResults, state: SearchState, proposer: Proposer) -> None:
    """Take over trials with their stages, and what finalization found, also of trials that were taken over before."""
    recipes: dict[str, Recipe] = {}
    for trial in found.trials.values():
        if trial.recipe is None or not trial.is_done:
            continue
        earlier = EarlierTrial(
            trial.recipe,
            None if trial.measured is None else trial.measured.values,
            train_seconds=float(trial.extras.get("train_seconds", 0.0)),
            is_stopped=trial.state == "PRUNED",
            curve=trial.curve,
            failure=_failure(trial.reason or ""),
            is_disturbed=trial.measured is not None and trial.measured.measurement.cost.is_disturbed,
        )
        state.same_cuts.learn(trial.recipe, str(trial.extras.get("structure", "")))
        recall_trial(earlier, state, proposer)
        recipes[trial.recipe.fingerprint] = trial.recipe
    known = {trial.trial: trial.recipe for trial in study.trials()} if found.finals else {}
    for number, final in found.finals.items():
        if (recipe := known[number]) is not None:
            recall_final(recipe, final, state)
    for run in study.stage_runs(recipes.values()) if recipes else []:
        ran = StageRan(run.key, run.stage, run.method, run.seconds, run.cached, "", run.samples_seen)
        state.planner.observe(ran, state.stage_trainings.trained_by(ran, recipes[run.fingerprint]))


def _failure(reason: str) -> str:
    """Return what follows the outcome in the reason of a trial that failed."""
    outcome, _, why = reason.partition(": ")
    return why if outcome in ("failed", "bug") and not why.startswith(TASK_FAILED) else ""


def recall_trial(trial: EarlierTrial, state: SearchState, proposer: Proposer) -> None:
    """Take over one trial. An early stop does not count against a recipe that the user asked for."""
    recipe, values = trial.recipe, trial.values
    if values is None:
        proposer.learn(recipe, None, {})
        if not trial.is_stopped:
            state.mark_infeasible(recipe)
            if trial.failure:
                state.switched_off.learn_failure(recipe, trial.failure)
        elif recipe not in state.settings.user_recipes:
            state.recall_stopped(recipe)
        return
    state.finish(recipe, values, trial.train_seconds, trial.curve, is_disturbed=trial.is_disturbed)
    proposer.learn(recipe, state.settings.objective_values(values), state.violations(values))


def recall_final(recipe: Recipe, final: Final, state: SearchState) -> None:
    """Take over what finalization found of a measured recipe."""
    broken = state.broken_limits(final.values, untouched_metric(final.measurement.accuracy))
    is_refused = final.refusal is not None
    # Another refusal counts as in the session that saw it, though accuracy may have broken its limit on the test split too.
    is_for_limit = any((final.refusal or "").startswith(f"{limit} does not hold") for limit in broken)
    state.finish_finalization(recipe, is_refused=is_refused and not is_for_limit)
    if recipe != UNTOUCHED and not is_refused:
        state.verified.add(recipe)
