"""Result handling: each result goes to the study, to the sampler and to the user."""

from __future__ import annotations

from dataclasses import replace

from autocut.counting import format_count
from autocut.recipe import UNTOUCHED
from autocut.score import costs_of
from autocut.search import jobs
from autocut.search.jobs import Event, Job, JobKind, RecipeFailed, RecipeFinalized, RecipeMeasured
from autocut.search.progress import Progress, cost_line, headline, training_line
from autocut.search.proposals import Proposer
from autocut.search.state import OpenTrial, SearchState, untouched_metric
from autocut.search.trial_store import TrialStore


class Results:
    """Records events. It reads the state as it was before the event, and changes nothing of it."""

    def __init__(self, state: SearchState, store: TrialStore, proposer: Proposer, progress: Progress) -> None:
        self._state = state
        self._store = store
        self._proposer = proposer
        self._progress = progress

    def record(self, job: Job, event: Event) -> None:
        """Record what a worker reported of `job`."""
        match event:
            case jobs.StageRan():
                self._store.record_stage(event, self._state.recipe_of(job))
            case jobs.StageStarted(stage=jobs.TEST_SCORING):
                self._store.look(self._state.recipe_of(job))
            case jobs.TrainingPlanned():
                if told := training_line(event):
                    self._progress.lines.append(told)
            case jobs.RecipePriced():
                reference = self._state.reference or event.cost
                self._progress.lines.append(cost_line(event.recipe, costs_of(event.cost, reference, self._state.settings.price)))
            case jobs.BaselineReady():
                self._store.set_baseline(event)
            case jobs.RecipeStarted():
                self._store.start(event.recipe)
            case jobs.RecipeMeasured():
                self._record_measured(event)
            case jobs.RecipeFailed() if job.kind in (JobKind.PRICE, JobKind.PREPARE):
                pass  # its trial will tell
            case jobs.RecipeFailed() if job.kind == JobKind.FINALIZE:
                self._record_not_finalized(event)
            case jobs.RecipeFailed():
                self.record_failed(event)
            case jobs.RecipeFinalized():
                self._record_finalized(event)

    def _record_measured(self, event: RecipeMeasured) -> None:
        state, recipe = self._state, event.recipe
        values = state.values(event.measured.measurement, event.measured.train_seconds)
        violations, objectives = state.violations(values), state.settings.objective_values(values)
        trial = state.open.get(recipe, OpenTrial())
        number = self._store.complete(trial.stored, event, values, violations, state.curve(recipe))
        if trial.sampled is not None:
            self._proposer.tell(trial.sampled, objectives, violations)
        else:
            self._proposer.learn(recipe, objectives, violations)
        self._progress.done += 1
        scored = event.measured.measurement.accuracy.examples
        is_cut_short = state.scoring is not None and scored < state.scoring.examples
        note = f"; too far off after {format_count(scored, 'example')}, the rest was not scored" if is_cut_short else ""
        twins = state.same_cuts.measured_twins(recipe, event.measured.structure)
        if same := next((twin for twin in twins if twin in state.finished), None):
            note += f"; the same model as {same.describe()}"
        self._progress.lines.append(f"trial {number}: {recipe.describe()}: {headline(values)}{note}")

    def record_failed(self, event: RecipeFailed) -> None:
        """Record a recipe that ended without a measurement."""
        state, recipe = self._state, event.recipe
        is_stopped, is_interrupted = event.outcome == "stopped", event.outcome == "interrupted"
        if is_stopped and recipe.prefix in state.stopped and recipe not in state.open:
            return  # one trial tells that the training was stopped; the other lowerings of its prefix get none
        if self._is_told(event):
            return
        trial = state.open.get(recipe, OpenTrial())
        number = self._store.fail(trial.stored, event, state.curve(recipe))
        if trial.sampled is not None:
            (self._proposer.forget if is_interrupted else self._proposer.reject)(trial.sampled)
        self._progress.bugs += event.outcome == "bug"
        self._progress.stopped += is_stopped
        self._progress.failed += not (is_stopped or is_interrupted)
        self._progress.lines.append(f"trial {number}: {_ending(event)}{self._late(event)}")

    def _is_told(self, event: RecipeFailed) -> bool:
        """Whether another lowering of the same prefix has told what a method needs, and it is switched off: one trial is enough."""
        state, recipe = self._state, event.recipe
        has_own_trial = recipe in state.open or recipe in state.settings.user_recipes
        told = any(other.prefix == recipe.prefix for other in state.infeasible)
        return told and not has_own_trial and event.outcome == "infeasible" and event.reason in state.switched_off.methods.values()

    def _late(self, event: RecipeFailed) -> str:
        """Say of a recipe that fails after its method was switched off why it ran at all: a worker had it already."""
        off = self._state.switched_off.why(event.recipe)
        is_late = bool(off) and event.outcome in ("infeasible", "failed") and self._state.is_running(event.recipe)
        return f"; a worker had it before {off} was switched off" if is_late else ""

    def _record_not_finalized(self, event: RecipeFailed) -> None:
        """A point that cannot be deployed leaves the front; an interrupted one stays, and the next session finalizes it."""
        if event.outcome != "interrupted":
            self._store.refuse(event.recipe, f"{event.outcome}: {event.reason}")
        self._progress.lines.append(f"bundle: {_ending(event)}")

    def _record_finalized(self, event: RecipeFinalized) -> None:
        """Record the numbers of the locked test split. A limit on costs that the final measurement breaks refuses the bundle.

        A limit on accuracy was kept on the validation split, by which models are chosen. Where it breaks on the test split, that is
        told: refusing the bundle would be a choice by the test split.
        """
        values = self._state.values(event.measurement, self._state.train_seconds(event.recipe))
        broken, untouched = self._state.broken_costs(values), untouched_metric(event.measurement.accuracy)
        if broken and event.recipe != UNTOUCHED:
            event = replace(event, refusal=f"{broken[0]} does not hold in the final measurement")
        self._store.finalize(event, values)
        done = "verified" if event.bundle else "measured"
        numbers = headline(values, event.measurement.charged_as)
        lost = [limit for limit in self._state.broken_limits(values, untouched) if limit not in broken]
        doubt = f"; {lost[0]} does not hold there" if lost else ""
        told = f"refused: {event.refusal}" if event.refusal else f"{done}, on the locked test split: {numbers}{doubt}"
        self._progress.lines.append(f"bundle: {event.recipe.describe()}: {told}")


def _ending(event: RecipeFailed) -> str:
    """One line about a failure: the first line of its reason."""
    return f"{event.recipe.describe()}: {event.outcome}: {event.reason.partition(chr(10))[0]}"
