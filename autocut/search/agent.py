"""The agent: it asks the policies for the next job, and takes in what workers report.

It has no Ray, no torch and no clock of its own, so the same code runs against a real machine and against recorded tables. In order:

1. *Baselines first*: the untouched model, then every lowering (dtype x compile mode) of it, cheap lowerings first. From then on
   there is a front. Where the untouched model is trained or scored for long, other workers do something useful (`meanwhile`).
2. *Cost first*: each pruning method once without training: does it save anything here? And what does each student cost?
3. *Learn*: the space's anchors, more ratios of what saves something, the most promising cuts trained (`recoveries`), then proposals
   (`proposing`). Each has all its promising lowerings, and beside them come the slow compilers, rationed. A training that cannot
   reach the front any more ends at a rung (`early_stopping`). When nothing else promises more, or many trainings in a row were
   stopped, the search is relaxed: stopped trainings may go on. The slow compilers that are left come last. Late in the search the
   untouched model is trained as long as the leading point, because more epochs help any model.
4. *Finalize*: inside the reserve, the front is exported, measured again on the locked test split and verified. If that takes less
   time than was kept for it, the search goes on; what did not fit before comes first.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from autocut.budget import Budget, format_duration
from autocut.measurement import Accuracy
from autocut.recipe import UNTOUCHED, Recipe
from autocut.search import early_bundles, early_stopping, finalists
from autocut.search.asked_for import AskedFor
from autocut.search.companions import Companions, NoCompanions
from autocut.search.deaths import Deaths, Verdict
from autocut.search.early_stopping import StoppingRule, is_beaten
from autocut.search.estimates import fitting, recipe_s
from autocut.search.jobs import BaselineReady, Event, Job, JobKind, Phase, PlannedJob, Purpose, RecipeFailed, WorkerFault
from autocut.search.lowerings import LoweringChoice, affordable_lowerings
from autocut.search.meanwhile import Meanwhile
from autocut.search.memory import EndlessMemory, Memory, MemoryWatch
from autocut.search.opening import SlowLowerings, TrainedBaseline, opening
from autocut.search.progress import Progress, measured_plan_lines, plan_lines
from autocut.search.proposals import Proposer
from autocut.search.proposing import ProposedJob, Proposing
from autocut.search.results import Results
from autocut.search.state import OpenTrial, RunningJob, SearchState
from autocut.search.trial_store import TrialStore

_END_S = 3.0
"""Time after the last bundle for the driver's own end: Ray's shutdown, the last notes and plots."""
_SEARCH_ON_S = 5.0
"""Seconds that must be left, besides a process's start and the reserve, for the search to go on after some finalizing."""
_HANG_S = 120.0
"""A recipe hangs when it takes this much longer than eight times what was predicted."""


class Agent:
    """Decides what runs next.

    `next_job` returns a job, None while it has to wait, and raises `StopIteration` when the search is over.
    """

    def __init__(
        self, *, state: SearchState, store: TrialStore, proposer: Proposer, budget: Budget, memory: Memory | None = None,
        companions: Companions | None = None,
    ) -> None:  # fmt: skip
        self.state = state
        self.store = store
        self.budget = budget
        self.progress = Progress()
        self.fault: WorkerFault | None = None
        self.results = Results(state, store, proposer, self.progress)
        self.choice = LoweringChoice(state)
        self.proposing = Proposing(state, self.choice, proposer, budget.clock)
        self.stopping_rule: StoppingRule = early_stopping.floors
        self._opening = opening(state, self.choice)
        self._slow = SlowLowerings(state, self.choice)
        self._trained_baseline = TrainedBaseline(state, lambda: finalists.finalists(state, store))
        self._meanwhile = Meanwhile(state, self.choice)
        self._queue: deque[PlannedJob] = deque()
        self._postponed: list[PlannedJob] = []
        self._asked_for = AskedFor(state, self.progress)
        self._finalizing, self._goes_on = False, False
        self._too_little_s = 0.0
        self._memory = MemoryWatch(state, memory or EndlessMemory())
        self._deaths = Deaths(state, self._memory)
        self.companions = companions or NoCompanions()
        self._numbers = itertools.count(1)

    def plan_lines(self) -> list[str]:
        """Return what the user should know before the search begins."""
        self._plan_reserve()
        return [*plan_lines(self.state, self.budget), finalists.drop_line(self.state)]

    def next_job(self) -> Job | None:
        """Return the next job, or None while nothing can start.

        Raises:
            StopIteration: the search is over and nothing runs.
        """
        if self.fault is not None:
            raise StopIteration
        if not self._memory.has_room():
            self.progress.lines.extend(filter(None, [self._memory.tell()]))
            return None
        self._queue.extend(self.companions.look(self.budget.clock()))
        if self.state.reference is None or self.store.trial_number(UNTOUCHED) is None:
            return self._baseline()
        self._plan_reserve()
        if self._finalizing and self._may_search_on():
            self._finalizing, self._goes_on = False, True
            self.proposing.start_afresh()
            self._queue.extend(self._postponed)
            self._postponed.clear()
        if not self._finalizing:
            if self.budget.search_left() > self.state.planner.process_s():
                if job := self._early_bundle() or self._score_untouched() or self._search():
                    return job
                if not (self._goes_on and finalists.is_anything_waiting(self.state, self.store)):
                    # What is running may make another recipe worth running, and the sampler may have another idea.
                    if self.state.running or not self.proposing.is_dry:
                        return self._finalize_meanwhile()
                    if self.proposing.is_explored:
                        left = format_duration(self.budget.search_left())
                        self.progress.lines.append(f"the space counts as explored: the search ends with {left} of its time left")
            self._finalizing, self._too_little_s = True, self.budget.search_left()
        return self._next_finalization()

    def _baseline(self) -> Job | None:
        if self.state.runs(Purpose.BASELINE):
            beside = self._meanwhile.next(self.budget.clock())
            return None if beside is None else self._start_recipes(*beside)
        if self.state.running:
            return None
        if self.budget.left() <= self.state.planner.process_s():
            raise StopIteration
        if not self.companions.book((UNTOUCHED,), Purpose.BASELINE):
            return None
        untouched = PlannedJob((UNTOUCHED,), Purpose.BASELINE, "the untouched model")
        return self._start(JobKind.BASELINE, untouched, self.budget.deadline, patience_s=math.inf)

    def _search(self) -> Job | None:
        if early_stopping.are_in_vain(self.state):
            self._relax()
        planned = self._next_planned()
        if planned is None:
            return None
        kind = JobKind.PRICE if planned.purpose is Purpose.PRICING else JobKind.MEASURE
        return self._start_recipes(kind, planned)

    def _next_planned(self) -> PlannedJob | None:
        """The queue first, then the opening, then proposals, with slow compilers and the last baseline when their turn has come."""
        while True:
            while self._queue:
                if planned := self._still_worth(self._queue.popleft()):
                    return planned
            if self.state.phase is not Phase.PROPOSALS:
                self.state.phase, opened = next(self._opening, (Phase.PROPOSALS, None))
                if opened is not None:
                    self._queue.append(opened)
                elif self.state.phase is not Phase.PROPOSALS:
                    return None
                continue
            beside = self._slow.next(self.state.settings.workers * self.budget.spent()) or self._trained_baseline.next(
                self.budget.spent(), self._left_s()
            )
            if beside is None:
                if proposed := self.proposing.next_job(self._left_s()):
                    if begun := self._begun(proposed):
                        return begun
                    continue
                if self._is_explored() and self._relax():
                    continue
                beside = self._slow.next(math.inf) or self._trained_baseline.next(math.inf, self._left_s())
            if beside is None:
                return None
            self._queue.append(beside)

    def _still_worth(self, planned: PlannedJob) -> PlannedJob | None:
        for failure in () if planned.may_skip else self._asked_for.impossible(planned.recipes):
            self._fail(failure)
        recipes = tuple(recipe for recipe in planned.recipes if self._is_worth(recipe, may_skip=planned.may_skip))
        fits = fitting(self.state, recipes, self._left_s())
        if late := tuple(recipe for recipe in recipes if recipe not in fits):
            self._asked_for.tell_too_long(late, self._left_s())
            self._postponed.append(replace(planned, recipes=late))
        left_out = [recipe for recipe in planned.recipes if recipe not in fits and not self.state.is_running(recipe)]
        self._interrupt(left_out)
        self.companions.free(left_out)
        fits = self.companions.book(fits, planned.purpose) if fits else ()
        return replace(planned, recipes=fits) if fits else None

    def _begun(self, proposed: ProposedJob) -> PlannedJob | None:
        """Make the recipes of `proposed` running trials, but for those that another search is quicker with."""
        recipes = self.companions.book(proposed.planned.recipes, proposed.planned.purpose)
        for recipe, trial in proposed.trials.items():
            if recipe in recipes:
                self.state.open[recipe] = OpenTrial(self.store.begin(recipe), trial)
            else:
                self.proposing.forget(trial)
        return replace(proposed.planned, recipes=recipes) if recipes else None

    def _is_worth(self, recipe: Recipe, *, may_skip: bool) -> bool:
        """Whether `recipe` is new, affordable, and not beaten where beaten recipes may be skipped."""
        is_affordable = recipe.lowering in affordable_lowerings(self.state)
        if self.state.is_settled(recipe) or self.state.is_running(recipe) or not is_affordable:
            return False
        return not (may_skip and is_beaten(self.state, recipe))

    def _is_explored(self) -> bool:
        """Whether nothing is worth running, and the running jobs will hardly change that."""
        tells_little = all(
            running.purpose in (Purpose.FINALIZATION, Purpose.SLOW_LOWERING) for running in self.state.running.values()
        )
        return tells_little and self.proposing.is_explored

    def _relax(self) -> bool:
        """Spend the time that is left on recipes without an expected gain; False if the search does so already."""
        if self.state.is_relaxed:
            return False
        self.state.relax()
        self.proposing.start_afresh()
        self.progress.lines.append("little else promises more: what looked beaten is tried too, and stopped trainings go on")
        return True

    def _early_bundle(self) -> Job | None:
        waits = self.state.phase is Phase.BASELINES or self.state.runs(Purpose.QUICK_LOWERINGS)
        if waits and not finalists.is_slow(self.state):
            return None
        points = early_bundles.early_bundle(self.state, self.store, self.budget)
        self.state.is_rehearsed = self.state.is_rehearsed or points is not None
        return self._finalize(points) if points else None

    def _score_untouched(self) -> Job | None:
        """Of a slow model: score the untouched one on the test split while the first lowering is made. Each bundle needs that."""
        first = self.state.phase is Phase.BASELINES and self.state.runs(Purpose.QUICK_LOWERINGS)
        points = early_bundles.untouched_alone(self.state, self.store) if first else {}
        return self._finalize(points) if points else None

    def _finalize_meanwhile(self) -> Job | None:
        """A finalization for a worker that would wait for others.

        With a fast model it waits: what runs may still beat what would be finalized.
        """
        return self._next_finalization() if self.state.running and finalists.is_slow(self.state) else None

    def _next_finalization(self) -> Job | None:
        left_s = self.budget.left() - _END_S - self.state.planner.process_s()
        if points := finalists.next_finalists(self.state, self.store, left_s, self.budget.clock()):
            return self._finalize(points)
        if self.state.running:
            return None
        raise StopIteration

    def _finalize(self, points: Mapping[Recipe, int]) -> Job | None:
        points = {recipe: points[recipe] for recipe in self.companions.book(tuple(points), Purpose.FINALIZATION)}
        if not points:
            return None  # another search is quicker
        why = f"finalize: {', '.join(recipe.describe() for recipe in points)}"
        patience_s = _HANG_S + 8 * self.state.planner.finalize_s()
        planned = PlannedJob(tuple(points), Purpose.FINALIZATION, why)
        return self._start(JobKind.FINALIZE, planned, self.budget.deadline - _END_S, patience_s, tuple(points.values()))

    def _may_search_on(self) -> bool:
        """Whether finalizing takes less than was kept for it: more time is left for the search than when finalizing began."""
        worth_it = self.budget.search_left() > max(self._too_little_s, self.state.planner.process_s()) + _SEARCH_ON_S
        nothing_left = self.state.is_relaxed and self.proposing.is_explored
        return worth_it and not nothing_left and finalists.is_open_for_more(self.state)

    def _plan_reserve(self) -> None:
        self.budget = self.budget.with_reserve(finalists.reserve_s(self.state, self.store, self.budget.total_s))

    def _left_s(self) -> float:
        """Seconds for the recipes of a job that starts now."""
        return self.budget.search_left() - self.state.planner.process_s()

    def _start_recipes(self, kind: JobKind, planned: PlannedJob) -> Job:
        patience_s = _HANG_S + 8 * max(recipe_s(self.state, recipe) for recipe in planned.recipes)
        return self._start(kind, planned, self.budget.search_deadline, patience_s)

    def _start(self, kind: JobKind, planned: PlannedJob, deadline: float, patience_s: float, trials: tuple[int, ...] = ()) -> Job:
        may_stop = kind is JobKind.MEASURE and planned.may_skip
        job = Job(
            next(self._numbers),
            kind,
            planned.recipes,
            deadline,
            planned.why,
            trials=trials,
            validation=self._validation(trials),
            reference=self.state.reference,
            search_seconds=self.budget.total_s,
            spent_s=self.budget.spent(),
            patience_s=patience_s,
            may_skip=planned.may_skip,
            floors=self.stopping_rule(self.state, planned.recipes) if may_stop else {},
            is_urgent=kind is JobKind.FINALIZE and early_bundles.is_urgent(self.state, planned.recipes),
            untouched_epochs=self.state.untouched_epochs,
            scoring=self.state.scoring,
            max_drop=self.state.allowed_drop,
        )
        self.state.start(job, planned.purpose, self.budget.clock())
        return job

    def _validation(self, trials: Collection[int]) -> dict[Recipe, Accuracy]:
        """Return the validation accuracies of `trials`, by recipe."""
        points = self.store.candidates() if trials else []
        return {point.recipe: point.measurement.accuracy for point in points if point.trial in trials}

    # ---- what workers report ----------------------------------------

    def on_event(self, job: Job, event: Event) -> None:
        """Take in what a worker reports."""
        self.results.record(job, event)
        self.state.apply(job, event, self.budget.clock())
        self.progress.lines.extend(self.state.switched_off.take_news())
        match event:
            case BaselineReady():
                self.fault = self._asked_for.wrong_limit()
                self._plan_reserve()
                told = [event.scoring.describe() if event.scoring else "", finalists.drop_line(self.state)]
                self.progress.lines.extend(measured_plan_lines(self.state, self.budget))
                self.progress.lines.extend(f"plan: {line}" for line in told if line)
            case WorkerFault():
                self.fault = event

    def on_job_end(self, job: Job, error: str | None, *, is_blameless: bool = False) -> None:
        """Take in that a worker process is gone.

        Args:
            job: Its job.
            error: How it died; None: it ended by itself.
            is_blameless: Something else than its job ended it. Then no recipe is blamed, unless it is lost again and again.
        """
        ended = self.state.running.pop(job.number, None)
        if ended is None:
            return
        self._take_in_end(ended, error, is_blameless=is_blameless)
        again = {recipe for planned in self._queue for recipe in planned.recipes}
        self.companions.free(one for one in job.recipes if one not in again and not self.state.is_running(one))

    def _take_in_end(self, ended: RunningJob, error: str | None, *, is_blameless: bool) -> None:
        job, now = ended.job, self.budget.clock()
        unfinished = [recipe for recipe in job.recipes if not self.state.is_done(recipe)]
        if error is not None and now < job.deadline:
            self._carry_out(job, self._deaths.judge(ended, unfinished, error, now, is_blameless=is_blameless))
            return
        self._deaths.forget_failed_starts()
        if job.kind == JobKind.MEASURE and unfinished:
            rest = PlannedJob(tuple(unfinished), ended.purpose, job.why, job.may_skip)
            if ended.leaves_rest:
                self._queue.appendleft(rest)
            else:
                self._interrupt(unfinished)
                self._postponed.append(rest)

    def _carry_out(self, job: Job, verdict: Verdict) -> None:
        self.progress.lines.extend(filter(None, [verdict.line]))
        self.fault = verdict.fault or self.fault
        for failure in verdict.failed:
            self.on_event(job, failure)
        self._queue.extendleft(filter(None, [verdict.again]))

    def close(self) -> None:
        """End the open trials as interrupted: however the search ended, no trial is left running."""
        self._interrupt(list(self.state.open))

    def _interrupt(self, recipes: Sequence[Recipe]) -> None:
        for recipe in recipes:
            if recipe in self.state.open:
                self._fail(RecipeFailed(recipe, "interrupted", "the time of the search was up"))

    def _fail(self, failure: RecipeFailed) -> None:
        self.results.record_failed(failure)
        self.state.fail(failure)
        self.progress.lines.extend(self.state.switched_off.take_news())
