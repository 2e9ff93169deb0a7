"""The agent: every decision of a search, and nothing else.

It is asked for the next job and told every event; it has no Ray, no torch and no clock of its own, so that the same code runs
against a real machine and against recorded tables. In order:

1. *Baselines first*: the untouched model, then every lowering (dtype x compile mode) of it, cheap lowerings first. From then on
   there is a front.
2. *Cost first*: each pruning method once without training: does it save anything here?
3. *Learn*: the space's anchors, more ratios of what saves something, then proposals, each with all its promising lowerings
   (`proposing`), and beside them what needs a slow compiler, rationed. A training that cannot reach the front any more ends at a
   rung (`early_stopping`); when nothing else promises more, or many in a row were stopped, it may go on. What is left of the slow
   compilers comes last.
4. *Finalize*: inside the reserve, the front is exported, re-measured on the locked test split and verified. As soon as that
   turns out to take less time than was kept for it, the search goes on; what did not fit before comes first.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from autocut.budget import Budget, format_duration
from autocut.measurement import Cost
from autocut.price import Price
from autocut.recipe import UNTOUCHED, Recipe
from autocut.score import Limit
from autocut.search.early_stopping import Trainings
from autocut.search.finalists import Finalization
from autocut.search.jobs import (
    BaselineReady,
    Event,
    Job,
    JobEnded,
    ModelLoaded,
    RecipeFailed,
    RecipeFinalized,
    RecipeMeasured,
    RecipeStarted,
    RungReached,
    StageBroke,
    StageRan,
    WorkerFault,
    WorkerUp,
)
from autocut.search.knowledge import Knowledge
from autocut.search.phases import BASELINES, COMPILERS, Phase, Request, SlowLowerings, phases
from autocut.search.plan import ladder_line, plan_lines
from autocut.search.progress import Progress
from autocut.search.proposing import Proposing
from autocut.search.results import Scale, Verdicts
from autocut.study.records import StageRun

if TYPE_CHECKING:
    from autocut.search.proposals import Proposer
    from autocut.search.trial_store import Book

_END = Request((), "the phase is over")
_END_S = 3.0
"""Time after the last bundle for the driver's own end: Ray's shutdown, the last notes and plots."""
_SEARCH_ON_S = 5.0
"""Seconds that must be left, besides a process's start and the reserve, for the search to go on after some finalizing."""
_STILLBORN = 3
"""Worker processes in a row that may die before their first word."""
_HANG_S = 120.0
"""A recipe hangs when it takes this much longer than eight times what was predicted."""


class Agent:
    """Decides what runs next.

    `next_job` returns a job, None while it has to wait, and raises `StopIteration` when the search is over.
    """

    def __init__(
        self,
        *,
        known: Knowledge,
        book: Book,
        proposer: Proposer,
        budget: Budget,
        price: Price,
        limits: Sequence[Limit] = (),
        tries: Sequence[Recipe] = (),
        workers: int = 1,
        reference: Cost | None = None,
        trainings: Trainings | None = None,
    ) -> None:
        self.known = known
        self.space = known.space
        self.planner = known.planner
        self.book = book
        self.proposer = proposer
        self.budget = budget
        self.reference = reference
        self.progress = Progress()
        self.fault: WorkerFault | None = None
        self._workers = workers
        self._queue: deque[Request] = deque()
        self._asked = frozenset(tries)
        self._running: dict[int, Job] = {}
        self._phases = phases(known, tries, self._has_job)
        self._phase: Phase | None = next(self._phases)
        self._slow = SlowLowerings(known)
        self._started: dict[int, float] = {}
        self._up: set[int] = set()
        self._current: dict[int, Recipe] = {}
        self._began: dict[int, float] = {}
        self.trainings = trainings or Trainings(known)
        self.finalization = Finalization(book, known.planner, known.space.objectives, workers, self._is_running)
        self.proposing = Proposing(known, proposer, book.begin, self._is_running, self._is_in_training, lambda: self.budget.clock())
        self.verdicts = Verdicts(
            known=known, book=book, proposer=proposer, proposing=self.proposing, trainings=self.trainings,
            finalization=self.finalization, progress=self.progress, scale=Scale(price, tuple(limits)), asked=self._asked,
        )  # fmt: skip
        self._finalizing, self._goes_on = False, False
        self._too_little_s = 0.0
        self._postponed: list[Request] = []
        self._made: set[Recipe] = set()
        self._told_too_long: set[Recipe] = set()
        self._baselines_done = False
        self._stillborn = 0
        self._numbers = itertools.count(1)

    # ---- what earlier sessions found ----------------------------------------

    def recall_stage(self, run: StageRun, recipe: Recipe) -> None:
        """Learn from a stage of an earlier session how long it takes."""
        self.planner.observe(StageRan(run.key, run.stage, run.method, run.seconds, run.cached, "", run.samples_seen), recipe)

    def plan_lines(self) -> list[str]:
        """Return what a person should know before the search begins."""
        self._plan_reserve()
        return plan_lines(self.known, self.budget)

    # ---- decisions ----------------------------------------

    def next_job(self) -> Job | None:
        """Return the next job, or None while nothing can start.

        Raises:
            StopIteration: the search is over and nothing runs.
        """
        if self.fault is not None:
            raise StopIteration
        if self.reference is None or self.book.trial_number(UNTOUCHED) is None:
            if self._running:
                return None
            if self.budget.left() <= self.planner.process_s():
                raise StopIteration
            return self._start("baseline", (UNTOUCHED,), self.budget.deadline, "the untouched model")
        self._plan_reserve()
        if self._finalizing and self._may_search_on():
            self._finalizing, self._goes_on = False, True
            self.proposing.start_afresh()
            self._queue.extend(self._postponed)
            self._postponed.clear()
        if not self._finalizing:
            if self.budget.search_left() > self.planner.process_s():
                if rehearsal := self._rehearsal():
                    return rehearsal
                if self.trainings.are_in_vain:
                    self._hope()
                if request := self._next_request():
                    return self._start(
                        "measure", request.recipes, self.budget.search_deadline, request.why, may_skip=request.may_skip
                    )
                if not (self._goes_on and self.finalization.is_anything_waiting):
                    # What is running may make another recipe worth running, and the sampler may have another idea.
                    if self._running or not self.proposing.is_dry:
                        return None
                    if not self.proposing.is_short_of_time:
                        left = format_duration(self.budget.search_left())
                        self.progress.lines.append(f"the space counts as explored: the search ends with {left} of its time left")
            self._finalizing, self._too_little_s = True, self.budget.search_left()
        return self._next_finalization()

    def on_event(self, job: Job, event: Event) -> None:
        """Take in what a worker reports."""
        match event:
            case StageRan():
                self.planner.observe(event, self._current.get(job.number, job.recipes[0]))
                self.book.record_stage(event, job, self._current.get(job.number, job.recipes[0]))
                if event.stage == "train":
                    self._made.add(self._current.get(job.number, job.recipes[0]).prefix)
                self.progress.stage = f"{event.stage} {event.method}"
            case BaselineReady():
                self.reference = event.reference
                self.verdicts.set_floor(event.accuracy.metric.value)
                self.book.set_baseline(event)
                if ladder := ladder_line(self.known):
                    self.progress.lines.append(f"plan: {ladder}")
            case WorkerUp():
                self._up.add(job.number)
            case RecipeStarted():
                # The first ones also wait for what starts only once: Ray, and the process that workers are forked from.
                if job.number not in self._current and job.number > self._workers:
                    self.planner.observe_process(self.budget.clock() - self._started[job.number])
                self._current[job.number] = event.recipe
                self._began[job.number] = self.budget.clock()
                self.book.start(event.recipe)
            case RungReached():
                self.trainings.reached(event.recipe, event.rung)
            case RecipeMeasured():
                self.verdicts.measured(event, self._reference())
            case RecipeFailed() if job.kind == "finalize":
                self.verdicts.not_finalized(event)
            case RecipeFailed():
                self.verdicts.failed(event)
            case RecipeFinalized():
                if event.bundle is not None:
                    self.planner.observe_finalization(self.budget.clock() - self._began[job.number])
                self.verdicts.finalized(event, self._reference())
            case WorkerFault():
                self.fault = event
            case StageBroke():
                self.book.record_work(event.seconds, event.category, job)
            case ModelLoaded():
                self.planner.observe_loading(event)
                self.book.record_work(event.seconds, "compiling", job)
            case JobEnded():
                self.book.end_job(job, event)

    def on_job_end(self, job: Job, error: str | None) -> None:
        """Take in that a worker process is gone; `error` says how it died, None that it ended by itself."""
        self._running.pop(job.number, None)
        current = self._current.pop(job.number, None)
        worked_s = self.budget.clock() - self._began.pop(job.number, self.budget.clock())
        unfinished = [recipe for recipe in job.recipes if not self.known.is_settled(recipe)]
        if error is not None and self.budget.clock() < job.deadline:
            if worked_s >= job.patience_s:
                error = f"it hung: it was stopped after {format_duration(worked_s)}, eight times what was expected and more"
            self._on_death(job, current, unfinished, error)
            return
        self._stillborn = 0
        if job.kind == "measure" and unfinished:
            self._interrupt(unfinished)
            self._postponed.append(Request(tuple(unfinished), job.why, job.may_skip))

    def close(self) -> None:
        """Tell the trials that are still open as interrupted: however the search ended, none is left running."""
        self._interrupt(list(self.proposing.open))

    def _on_death(self, job: Job, current: Recipe | None, unfinished: list[Recipe], error: str) -> None:
        """Blame the recipe that was being worked on, and queue the others again; a process that never gets to work is nobody's."""
        self._stillborn = 0 if current else self._stillborn + 1
        if self._stillborn >= _STILLBORN:
            self.fault = WorkerFault(
                f"a worker process must start, but {self._stillborn} in a row died at once", "autocut check; is memory free?"
            )
        if job.kind == "baseline" and job.number in self._up:
            self.fault = WorkerFault(
                f"the untouched model must run and be measured, but its process died: {error}", "autocut check"
            )
        if job.kind == "finalize" and current is not None and current not in self.finalization.done:
            self.verdicts.not_finalized(RecipeFailed(current, "failed", error))
        if job.kind == "measure":
            if current is not None:
                # Where it died of a training, the recipes that share it would die of it again.
                shares_it = current.is_trained and not self.known.is_trained(current.prefix) and current.prefix not in self._made
                for recipe in [one for one in unfinished if one == current or (shares_it and one.prefix == current.prefix)]:
                    self.verdicts.failed(RecipeFailed(recipe, "failed", error))
                    unfinished.remove(recipe)
            if unfinished:
                self._queue.appendleft(Request(tuple(unfinished), job.why, job.may_skip))

    def _interrupt(self, recipes: Sequence[Recipe]) -> None:
        for recipe in recipes:
            if recipe in self.proposing.open:
                self.verdicts.failed(RecipeFailed(recipe, "interrupted", "the time of the search was up"))

    # ---- phases ----------------------------------------

    def _next_request(self) -> Request | None:
        while True:
            while self._queue:
                if request := self._still_worth(self._queue.popleft()):
                    return request
            if self._phase is None:
                slow = self._slow.next(self._workers * self.budget.spent())
                if slow is None:
                    if proposed := self.proposing.next_request(self._time_for_recipes(), others_run=bool(self._running)):
                        return proposed
                    if self._is_explored() and self._hope():
                        continue
                    slow = self._slow.next(math.inf)
                if slow is None:
                    return None
                self._queue.append(slow)
                continue
            request = next(self._phase, _END)
            if request is None:
                return None
            if request is _END:
                self._phase = next(self._phases, None)
                self._baselines_done = True
            else:
                self._queue.append(request)

    def _is_explored(self) -> bool:
        """Whether nothing is worth running, nor likely to be after what runs: finalizing, or the untouched model in a slow form."""
        tells_little = all(job.kind == "finalize" or job.why.startswith(COMPILERS) for job in self._running.values())
        return tells_little and self.proposing.is_dry and not self.proposing.is_short_of_time

    def _hope(self) -> bool:
        """Spend the time that is left on what looked hopeless; False if that is so already."""
        if not self.known.hope():
            return False
        self.proposing.start_afresh()
        self.progress.lines.append("little else promises more: what looked beaten is tried too, and stopped trainings go on")
        return True

    def _rehearsal(self) -> Job | None:
        if not self._baselines_done or self._has_job(BASELINES):
            return None
        points = self.finalization.rehearsal(self.budget)
        return self._finalize(points) if points else None

    def _next_finalization(self) -> Job | None:
        if points := self.finalization.next(self.budget.left() - _END_S - self.planner.process_s()):
            return self._finalize(points)
        if self._running:
            return None
        raise StopIteration

    def _finalize(self, points: Mapping[Recipe, int]) -> Job:
        why = f"finalize: {', '.join(recipe.describe() for recipe in points)}"
        return self._start("finalize", tuple(points), self.budget.deadline - _END_S, why, trials=tuple(points.values()))

    def _still_worth(self, request: Request) -> Request | None:
        if not request.may_skip:
            self._tell_impossible(request.recipes)
        recipes = [
            recipe
            for recipe in request.recipes
            if not self.known.is_settled(recipe) and not self._is_running(recipe) and self._is_affordable(recipe)
        ]
        if request.may_skip:
            recipes = [recipe for recipe in recipes if not self.known.is_beaten(recipe)]
        fitting = self.known.fitting(tuple(recipes), self._time_for_recipes())
        if late := tuple(recipe for recipe in recipes if recipe not in fitting):
            self._tell_too_long(late)
            self._postponed.append(replace(request, recipes=late))
        self._interrupt([recipe for recipe in request.recipes if recipe not in fitting and not self._is_running(recipe)])
        return Request(fitting, request.why, request.may_skip) if fitting else None

    def _tell_impossible(self, recipes: Sequence[Recipe]) -> None:
        """What somebody asked for does not vanish without a word; what is only too slow for this budget may be asked for again."""
        for recipe in recipes:
            if recipe not in self._asked or self.known.is_settled(recipe) or self._is_affordable(recipe):
                continue
            dtype, mode = recipe.lowering
            if self.known.is_feasible(recipe.lowering):
                takes = f"{mode} takes {self.planner.lowering_s(recipe.lowering):.0f} s"
                self.progress.lines.append(f"not run: {recipe.describe()}: {takes}, too long for this budget")
            else:
                reason = f"{dtype} with {mode} cannot run on this machine; see: autocut methods"
                self.verdicts.failed(RecipeFailed(recipe, "infeasible", reason))

    def _tell_too_long(self, recipes: Sequence[Recipe]) -> None:
        left = format_duration(max(0.0, self._time_for_recipes()))
        for recipe in self._asked.intersection(recipes) - self._told_too_long:
            self._told_too_long.add(recipe)
            takes = format_duration(self.known.seconds(recipe))
            self.progress.lines.append(f"not run: {recipe.describe()}: it takes about {takes}, and {left} is left")

    def _is_affordable(self, recipe: Recipe) -> bool:
        return recipe.lowering in self.known.affordable_lowerings()

    def _time_for_recipes(self) -> float:
        return self.budget.search_left() - self.planner.process_s()

    def _has_job(self, why: str) -> bool:
        return any(job.why.startswith(why) for job in self._running.values())

    def _is_running(self, recipe: Recipe) -> bool:
        return any(recipe in job.recipes for job in self._running.values())

    def _is_in_training(self, prefix: Recipe) -> bool:
        """Whether a running job trains `prefix`: whoever needs it waits until it is there."""
        return not self.known.is_trained(prefix) and any(
            prefix in (recipe.prefix, recipe.parent) for job in self._running.values() for recipe in job.recipes
        )

    def _reference(self) -> Cost:
        if self.reference is None:
            raise RuntimeError("a recipe was measured before the untouched model")
        return self.reference

    def _plan_reserve(self) -> None:
        self.budget = self.budget.with_reserve(self.finalization.reserve_s(self.budget.total_s))

    def _may_search_on(self) -> bool:
        """Whether finalizing turns out to take less than was kept for it: more time is left for finding more than when it began."""
        worth_it = self.budget.search_left() > max(self._too_little_s, self.planner.process_s()) + _SEARCH_ON_S
        is_explored = self.known.is_hopeful and self.proposing.is_dry and not self.proposing.is_short_of_time
        return worth_it and not is_explored and self.finalization.is_open_for_more

    def _start(
        self,
        kind: str,
        recipes: tuple[Recipe, ...],
        deadline: float,
        why: str,
        *,
        trials: tuple[int, ...] = (),
        may_skip: bool = True,
    ) -> Job:
        expected = self.planner.finalize_s() if kind == "finalize" else max(map(self.known.seconds, recipes))
        patience_s = math.inf if kind == "baseline" else _HANG_S + 8 * expected
        number, planned_s = next(self._numbers), self.budget.total_s
        floors = self.trainings.floors(recipes) if kind == "measure" and may_skip else {}
        job = Job(number, kind, recipes, deadline, why, trials, self.reference, planned_s, patience_s, may_skip, floors)
        self._running[job.number] = job
        self._started[job.number] = self.budget.clock()
        self.progress.stage = why
        return job
