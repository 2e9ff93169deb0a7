"""What earlier sessions of a study found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autocut.recipe import UNTOUCHED, Recipe
from autocut.search.jobs import TASK_FAILED, ScoringPlan, StageRan
from autocut.search.proposals import Proposer
from autocut.search.state import SearchState, untouched_metric
from autocut.study import Study


@dataclass(frozen=True)
class EarlierTrial:
    """The last trial of a recipe in an earlier session."""

    recipe: Recipe
    values: Mapping[str, float] | None  # None: infeasible, failed, or stopped
    train_seconds: float = 0.0
    tested: Mapping[str, float] | None = None  # values on the test split, where it was finalized
    untouched: float | None = None  # the untouched model's metric there, if the two were compared
    is_refused: bool = False  # its bundle was not accepted
    is_stopped: bool = False  # its training was stopped early
    curve: Sequence[float] = ()
    is_disturbed: bool = False  # its timing was disturbed
    failure: str = ""  # why it failed; empty also where it was infeasible


def recall(study: Study, state: SearchState, proposer: Proposer) -> None:
    """Take over the untouched model, the trials and the stages of earlier sessions into `state` and the sampler."""
    if study.reference is not None:
        state.set_reference(study.reference)
        state.untouched_epochs = study.facts.get("untouched_epochs")
    if baseline := study.facts.get("baseline"):
        state.set_baseline(float(baseline["value"]))
    if scoring := study.facts.get("scoring"):
        state.scoring = ScoringPlan(**scoring)
    finals, settled = study.finals(), study.results()
    for recipe, trial in settled.items():
        final = finals.get(trial.trial)
        earlier = EarlierTrial(
            recipe,
            None if trial.measured is None else trial.measured.values,
            train_seconds=float(trial.extras.get("train_seconds", 0.0)),
            tested=None if final is None else final.values,
            untouched=None if final is None else untouched_metric(final.measurement.accuracy),
            is_refused=final is not None and final.refusal is not None,
            is_stopped=trial.state == "PRUNED",
            curve=trial.curve,
            failure=_failure(trial.reason or ""),
            is_disturbed=trial.measured is not None and trial.measured.measurement.cost.is_disturbed,
        )
        recall_trial(earlier, state, proposer)
    recipes = {recipe.fingerprint: recipe for recipe in settled}
    for run in study.stage_runs():
        if run.fingerprint in recipes:
            ran = StageRan(run.key, run.stage, run.method, run.seconds, run.cached, "", run.samples_seen)
            state.planner.observe(ran, recipes[run.fingerprint])


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
    if trial.tested is not None:
        broken = state.broken_limits(trial.tested, trial.untouched)
        state.finish_finalization(recipe, is_refused=trial.is_refused and not broken)
        if recipe != UNTOUCHED and not trial.is_refused:
            state.verified.add(recipe)
