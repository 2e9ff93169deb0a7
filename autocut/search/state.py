"""Everything that a search has learned. Events change it, policies read it. It decides nothing."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autocut.measurement import UNTOUCHED_TEST, Accuracy, Cost, Interval, Measurement
from autocut.recipe import UNTOUCHED, Lowering, Recipe, Value
from autocut.score import Limit, accuracy_limit, allowed_drop, costs_of, values_of
from autocut.search import jobs
from autocut.search.cost_model import CostModel
from autocut.search.first_guesses import FirstGuesses
from autocut.search.jobs import Event, Job, JobKind, Phase, Purpose, RecipeFailed
from autocut.search.learning_curves import LearningCurves
from autocut.search.live_front import LiveFront
from autocut.search.planner import Planner
from autocut.search.same_cuts import SameCuts
from autocut.search.settings import SearchSettings
from autocut.search.stage_trainings import StageTrainings
from autocut.search.switched_off import SwitchedOff
from autocut.search.volume import accuracy_unit

Family = tuple[tuple[str, Value], ...]
_MOST_NOISE = 0.2
"""Share of what counts as 1 of the metric that its noise is at most: with few examples, everything would be noise."""


@dataclass
class RunningJob:
    """A job that a worker has, with readings of the budget's clock. `recipe` is the one that the worker works on.

    `waited_s` are its seconds without the machine so far, `once_s` those for what no other finalization has to make. `is_second`
    says that it is the job's second process: another node has trained for it. `leaves_rest`: see `JobEnded`.
    """

    job: Job
    purpose: Purpose
    started: float
    is_up: bool = False
    is_second: bool = False
    recipe: Recipe | None = None
    recipe_started: float | None = None
    waited_s: float = 0.0
    leaves_rest: bool = False
    once_s: float = 0.0


@dataclass(frozen=True)
class OpenTrial:
    """A running trial: its handle in the study, and the sampler's trial; None where the sampler did not propose it."""

    stored: Any = None
    sampled: Any = None


class SearchState:
    """What one search knows."""

    def __init__(self, settings: SearchSettings, planner: Planner) -> None:
        self.settings = settings
        self.planner = planner
        self.phase = Phase.LEARNED if settings.learned else Phase.BASELINES
        self.is_relaxed = False  # relaxed: it also runs what it expected nothing of, and lets every training end
        self.prepared: Lowering | None = None  # made while the untouched model was measured
        self.is_rehearsed = False  # one point was chosen for an early finalization
        self.reference: Cost | None = None  # of the untouched model
        self.untouched_epochs: int | None = None  # that the untouched model was trained for, once it is
        self.training_ends: float | None = None  # expected reading of the clock, while a long training of it runs
        self.training_s = 0.0  # its seconds, as they were expected first
        self.priced: dict[Recipe, dict[str, float]] = {}  # costs of structures that were timed before there were weights
        self.scoring: jobs.ScoringPlan | None = None  # where scoring is slow
        self.finished: dict[Recipe, dict[str, float]] = {}  # measured, with values, in the order of the measurements
        self.infeasible: set[Recipe] = set()  # they failed here and never run again
        self.switched_off = SwitchedOff()  # methods that fail again and again
        self.given_up: set[Recipe] = set()  # their training was stopped; they may run again once the search is relaxed
        self.refused: set[Recipe] = set()  # measured, but cannot be deployed
        self.finalized: set[Recipe] = set()
        self.verified: set[Recipe] = set()  # finalized, with a bundle that was accepted
        self.running: dict[int, RunningJob] = {}  # by the job's number
        self.elsewhere: dict[Recipe, Purpose] = {}  # what other searches of the study work on
        self.open: dict[Recipe, OpenTrial] = {}  # proposed recipes that are running trials of the study
        self.trained: set[Recipe] = set()  # prefixes of measured recipes, and what was trained for them
        self.stage_trainings = StageTrainings()
        self.trained_ratios: dict[Family, set[float]] = defaultdict(set)  # of trained prefixes without a parent
        self.stopped: set[Recipe] = set()  # prefixes whose training was stopped
        self.stopped_in_a_row = 0
        self.limits = settings.limits  # with the untouched model's metric known, also the lowest one that counts
        self.untouched_metric: float | None = None  # on the validation split
        self.metric_noise = 0.0  # its standard error, within reason
        self.front = LiveFront(settings.objectives, settings.limits)
        self.best_seen: dict[str, float] = {}  # accuracy and speed-up, each over all finished recipes
        self.costs = CostModel()
        self.same_cuts = SameCuts()
        self.is_scored_slowly = False  # and it has begun: known before the untouched model is measured
        self.curves = LearningCurves()
        self.revision = 0  # grows with every finished and every infeasible recipe
        self._train_seconds: dict[Recipe, float] = {}
        self._rungs: dict[Recipe, dict[int, float]] = {}

    # ---- events change the state ----------------------------------------

    def apply(self, job: Job, event: Event, now: float) -> None:
        """Take in what a worker reported of `job`; `now` is a reading of the budget's clock."""
        match event:
            case jobs.StageRan():
                self.planner.observe(event, self.stage_trainings.take_in(event, self.recipe_of(job)))
                if event.method == UNTOUCHED_TEST and not event.cached and job.number in self.running:
                    self.running[job.number].once_s = event.seconds
            case jobs.ModelLoaded():
                self.planner.observe_loading(event)
            case jobs.TrainingPaced() if job.kind == JobKind.BASELINE:
                self.training_ends = now + event.seconds_left
                self.training_s = self.training_s or event.seconds_left
            case jobs.ScoringPlanned():
                self.planner.observe_size(event.model_bytes)
                self.is_scored_slowly = True
            case jobs.RecipePriced():
                self.set_price(event.recipe, event.cost)
            case jobs.BaselineReady():
                self.untouched_epochs = event.epochs
                self.set_reference(event.reference)
                self.set_baseline(event.accuracy.metric)
                self.scoring = event.scoring
            case jobs.WorkerUp() if job.number in self.running:
                self._take_in_start(self.running[job.number])
            case jobs.Waited() if job.number in self.running:
                self.running[job.number].waited_s += event.seconds
            case jobs.RecipeStarted() if job.number in self.running:
                self._begin(self.running[job.number], event.recipe, now)
            case jobs.JobEnded():
                self.planner.observe_memory(event.peak_memory_bytes, has_lowered=job.kind in (JobKind.MEASURE, JobKind.FINALIZE))
                if job.number in self.running:
                    self.running[job.number].leaves_rest = event.leaves_rest
            case jobs.RungReached():
                self._rungs.setdefault(event.recipe.last_trained, {})[event.rung.epoch] = event.rung.metric
            case jobs.RecipeMeasured():
                values = self.values(event.measured.measurement, event.measured.train_seconds)
                seconds, curve = event.measured.train_seconds, self.curve(event.recipe)
                self.same_cuts.learn(event.recipe, event.measured.structure)
                self.finish(event.recipe, values, seconds, curve, is_disturbed=event.measured.measurement.cost.is_disturbed)
            case jobs.RecipeFailed() if job.kind in (JobKind.PRICE, JobKind.PREPARE):
                pass
            case jobs.RecipeFailed() if job.kind == JobKind.FINALIZE:
                if event.outcome != "interrupted":
                    self.finish_finalization(event.recipe, is_refused=True)
            case jobs.RecipeFailed():
                self.fail(event)
            case jobs.RecipeFinalized():
                if event.bundle is not None:
                    running = self.running[job.number]
                    took_s = now - (running.recipe_started or now) - running.once_s
                    self.planner.observe_finalization(took_s, running.waited_s)
                # A limit that the final measurement breaks counts nothing here: the next recipe must not depend on it.
                broken = self.broken_costs(self.values(event.measurement, self.train_seconds(event.recipe)))
                self.finish_finalization(event.recipe, is_refused=event.refusal is not None and not broken)
                if event.recipe != UNTOUCHED and event.bundle is not None and event.refusal is None and not broken:
                    self.verified.add(event.recipe)

    def start(self, job: Job, purpose: Purpose, now: float) -> None:
        """Take in that a worker gets `job`."""
        self.running[job.number] = RunningJob(job, purpose, now)

    def _take_in_start(self, running: RunningJob) -> None:
        """Take in that a process of the job has started. What the process before it has begun, it has ended: nobody hangs."""
        if running.is_up:
            running.is_second, running.recipe, running.recipe_started = True, None, None
        running.is_up = True

    def _begin(self, running: RunningJob, recipe: Recipe, now: float) -> None:
        # The first workers also wait for what starts only once: Ray, and the process that workers are forked from. A second process
        # of a job has waited for its node.
        if running.recipe is None and running.job.number > self.settings.workers and not running.is_second:
            self.planner.observe_process(now - running.started)
        running.recipe, running.recipe_started, running.waited_s, running.once_s = recipe, now, 0.0, 0.0

    def set_reference(self, reference: Cost) -> None:
        """Take in what the untouched model costs."""
        self.reference = reference
        self.planner.observe_reference(reference)

    def set_price(self, recipe: Recipe, cost: Cost) -> None:
        """Take in what a recipe costs whose weights are not there yet; the untouched model's cost comes first."""
        if self.reference is None:
            self.set_reference(cost)
        self.priced[recipe] = costs_of(cost, self.reference or cost, self.settings.price)
        if recipe == UNTOUCHED or not cost.is_disturbed:
            self._learn_cost(recipe, self.priced[recipe])
        self.revision += 1

    def _learn_cost(self, recipe: Recipe, values: Mapping[str, float]) -> None:
        """A smaller model that was timed also tells how long its training will take, if the untouched one has the same lowering."""
        self.costs.learn(recipe, values)
        own, whole = (self.costs.predict(one) for one in (recipe, UNTOUCHED.with_lowering(*recipe.lowering)))
        if recipe.cut != UNTOUCHED.cut and own and whole:
            self.planner.observe_structure(recipe.cut, own["usd_per_million"] / whole["usd_per_million"])

    def set_baseline(self, metric: Interval) -> None:
        """Take in the untouched model's metric, and with it the limit that keeps useless models off the front."""
        self.untouched_metric = metric.value
        self.metric_noise = min(metric.standard_error, _MOST_NOISE * accuracy_unit(metric.value, self.allowed_drop))
        self.limits = self._limits_beside(metric.value)
        self._renew_front()

    def _limits_beside(self, untouched: float) -> tuple[Limit, ...]:
        """The user's limits, and the lowest metric that counts beside an untouched model that has `untouched`."""
        lowest = accuracy_limit(untouched, self.settings.max_drop)
        return self.settings.limits if lowest is None else (*self.settings.limits, lowest)

    def _renew_front(self) -> None:
        # An old study goes on as it began: useless points beat others there, though they are on no front that users see.
        limits = self.settings.limits if self.settings.max_drop is None else self.limits
        self.front = LiveFront(self.settings.objectives, limits)
        for recipe, values in self.finished.items():
            if recipe not in self.refused:
                self.front.add(recipe, values)

    def finish(
        self,
        recipe: Recipe,
        values: Mapping[str, float],
        train_seconds: float = 0.0,
        curve: Sequence[float] = (),
        *,
        is_disturbed: bool = False,
    ) -> None:
        """Take in a measured recipe; the curve of a prefix counts once, and the untouched model's own curve does not count.

        The values of a disturbed timing are cautious, so they beat nothing that is better. Its costs say nothing of other recipes:
        whoever needs them has the structure timed again.
        """
        if not self.trained.issuperset(recipe.trainings):
            if recipe.student is None:
                self.curves.learn(curve)  # what a student gains in an epoch says nothing of a model that has been trained before
            self.stopped_in_a_row = 0
        self.finished[recipe] = dict(values)
        self.switched_off.learn_success(recipe)
        self.given_up.discard(recipe)
        self.open.pop(recipe, None)
        for name in ("accuracy", "speedup"):
            self.best_seen[name] = max(self.best_seen.get(name, values[name]), values[name])
        self.front.add(recipe, self.finished[recipe])
        if recipe.prefix not in self.trained:
            self.trained.update((*recipe.trainings, recipe.prefix))
            if "prune.ratio" in recipe and recipe.parent is None:
                self.trained_ratios[family(recipe.prefix)].add(float(recipe["prune.ratio"]))
        if recipe == UNTOUCHED or not is_disturbed:
            self._learn_cost(recipe, values)
        self._train_seconds[recipe] = train_seconds
        self.revision += 1

    def fail(self, failure: RecipeFailed) -> None:
        """Take in a recipe that ended without a measurement; an interrupted one may be run again."""
        if failure.outcome == "stopped":
            self.stopped_in_a_row += failure.recipe.prefix not in self.stopped
            self.stopped.add(failure.recipe.prefix)
            if not self.is_relaxed:
                self.given_up.add(failure.recipe)
        elif failure.outcome != "interrupted":
            self.mark_infeasible(failure.recipe)
            if failure.outcome == "infeasible":
                self.switched_off.learn_infeasible(failure.recipe, failure.reason)
            elif not failure.reason.startswith(jobs.TASK_FAILED):
                self.switched_off.learn_failure(failure.recipe, failure.reason)
        self.open.pop(failure.recipe, None)

    def recall_stopped(self, recipe: Recipe) -> None:
        """Take over that an earlier session stopped the training of `recipe`; it does not count as stopped in a row."""
        self.given_up.add(recipe)
        self.stopped.add(recipe.prefix)

    def mark_infeasible(self, recipe: Recipe) -> None:
        """Take in a recipe that cannot run here, or failed: it never runs again."""
        self.infeasible.add(recipe)
        self.revision += 1

    def finish_finalization(self, recipe: Recipe, *, is_refused: bool) -> None:
        """Take in that finalization has dealt with `recipe`."""
        self.finalized.add(recipe)
        if is_refused:
            self.refuse(recipe)

    def refuse(self, recipe: Recipe) -> None:
        """Take in that a measured recipe cannot be deployed: it beats no other recipe any more."""
        self.refused.add(recipe)
        if recipe in self.front.values:
            self._renew_front()

    def relax(self) -> None:
        """From now on expect a little more than the best accuracy seen, and let every training end; stopped ones may go on."""
        self.is_relaxed = True
        self.given_up.clear()

    # ---- policies read it ----------------------------------------

    def is_settled(self, recipe: Recipe) -> bool:
        """Whether `recipe` is done, or its model was measured under another ratio. A recipe of the user runs even so."""
        is_wanted = recipe in self.settings.user_recipes
        return self.is_done(recipe) or (not is_wanted and any(twin in self.finished for twin in self.same_cuts.twins(recipe)))

    def is_done(self, recipe: Recipe) -> bool:
        """Whether `recipe` has a result, measured, infeasible, or stopped, or can have none: a method of it is switched off."""
        return self.has_result(recipe) or self.switched_off.covers(recipe)

    def has_result(self, recipe: Recipe) -> bool:
        """Whether `recipe` was measured, is infeasible, or its training was stopped."""
        return recipe in self.finished or recipe in self.infeasible or recipe in self.given_up

    def runs(self, purpose: Purpose) -> bool:
        """Whether a job with this purpose runs, here or in another search of the study."""
        return purpose in self.elsewhere.values() or any(running.purpose is purpose for running in self.running.values())

    def is_running(self, recipe: Recipe) -> bool:
        """Whether a running job measures or finalizes `recipe`, here or in another search of the study."""
        return recipe in self.elsewhere or any(recipe in job.recipes for job in self._running_jobs())

    def is_in_training(self, prefix: Recipe) -> bool:
        """Whether a running job trains `prefix`; a recipe that needs the prefix waits until it is trained."""
        worked_on = itertools.chain(self.elsewhere, *(job.recipes for job in self._running_jobs()))
        return prefix not in self.trained and any(prefix in recipe.trainings for recipe in worked_on)

    def _running_jobs(self) -> list[Job]:
        """Return the running jobs but those that give no result of a recipe: they only time a structure, or only lower a model."""
        without = (Purpose.PRICING, Purpose.PREPARATION)
        return [running.job for running in self.running.values() if running.purpose not in without]

    def recipe_of(self, job: Job) -> Recipe:
        """Return the recipe that the worker of `job` works on; the first one before it begins."""
        running = self.running.get(job.number)
        return job.recipes[0] if running is None or running.recipe is None else running.recipe

    def curve(self, recipe: Recipe) -> tuple[float, ...]:
        """Metric after each epoch; empty where an earlier session saw the first epochs of a resumed training."""
        rungs = self._rungs.get(recipe.last_trained, {})
        return tuple(rungs[epoch] for epoch in sorted(rungs)) if 1 in rungs else ()

    def train_seconds(self, recipe: Recipe) -> float:
        """Seconds that the model of a finished recipe took to train."""
        return self._train_seconds.get(recipe, 0.0)

    def values(self, measurement: Measurement, train_seconds: float) -> dict[str, float]:
        """Return the values of a measurement.

        Raises:
            RuntimeError: the untouched model was not measured yet.
        """
        if self.reference is None:
            raise RuntimeError("a recipe was measured before the untouched model")
        return values_of(measurement, self.reference, self.settings.price, train_seconds)

    def violations(self, values: Mapping[str, float]) -> dict[str, float]:
        """By how much `values` break each limit; 0 or less where they keep it."""
        return {str(limit): limit.violation(values) for limit in self.limits}

    def broken_costs(self, values: Mapping[str, float]) -> list[str]:
        """Return the limits on costs that `values` break."""
        return [str(limit) for limit in self.limits if limit.name != "accuracy" and limit.violation(values) > 0]

    def broken_limits(self, values: Mapping[str, float], untouched: float | None = None) -> list[str]:
        """Return the limits that `values` break; `untouched` is the untouched model's metric where it is not of validation."""
        limits = self.limits if untouched is None else self._limits_beside(untouched)
        return [str(limit) for limit in limits if limit.violation(values) > 0]

    @property
    def first_guesses(self) -> FirstGuesses:
        """What methods will probably bring to this model, by as much as is known of it."""
        guesses = self.settings.first_guesses
        return guesses if self.reference is None else guesses.at(self.reference.busiest.p50_ms.value)

    @property
    def allowed_drop(self) -> float | None:
        """What a point may lose of the metric; None without such a limit, or before the untouched model is measured."""
        if self.settings.max_drop is None or self.untouched_metric is None:
            return None
        return allowed_drop(self.settings.max_drop, self.untouched_metric)

    @property
    def least_accuracy(self) -> float:
        """The lowest metric within the limits; -inf where none limits it."""
        return max((limit.bound for limit in self.limits if limit.name == "accuracy"), default=-math.inf)


def untouched_metric(accuracy: Accuracy) -> float | None:
    """Return the untouched model's metric on the examples of `accuracy`; None where the two were not compared."""
    return None if accuracy.difference is None else accuracy.metric.value - accuracy.difference.value


def family(prefix: Recipe) -> Family:
    """Return what prefixes have in common that differ only in their prune ratio."""
    return tuple((name, value) for name, value in prefix.items() if name != "prune.ratio")
