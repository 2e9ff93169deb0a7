"""The agent: every decision of a search, and nothing else.

It is asked for the next job and told every event; it has no Ray, no torch and no clock of its own, so that the same code runs
against a real machine and against recorded tables. In order:

1. *Baselines first*: the untouched model, then every tail (dtype x compile mode) of it, cheap lowerings first. From then on
   there is a front.
2. *Cost first*: each pruning method once without training, and more ratios of those that got faster. They price every later recipe.
3. *Learn*: the space's anchors, then the sampler's proposals, each with all its promising tails. What is a duplicate, cannot be
   real, does not fit in the time that is left, or is beaten on cost even at the best accuracy seen, is never run.
4. *Finalize*: inside the reserve, the front is exported, re-measured on the locked test split and verified.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from autocut.budget import Budget, format_duration, format_usd
from autocut.front import FrontPoint, hypervolume_contributions, non_dominated
from autocut.measurement import Cost, Measurement
from autocut.price import Price
from autocut.recipe import Recipe
from autocut.records import StageRun
from autocut.score import Limit, values_of
from autocut.search.jobs import (
    BaselineReady,
    Event,
    Job,
    JobEnded,
    RecipeFailed,
    RecipeFinalized,
    RecipeMeasured,
    RecipeStarted,
    RungReached,
    StageRan,
    WorkerFault,
    WorkerUp,
)
from autocut.search.knowledge import Knowledge
from autocut.space import Axis

if TYPE_CHECKING:
    from autocut.search.proposals import Proposer

_COMPILING_SHARE = 0.1
"""Share of the time in which expensive lowerings of the untouched model are tried, the quickest first."""
_PROPOSALS_A_JOB = 60
_PROPOSING_S = 2.0
_SKELETON_TAILS = 3
_COST_FIRST = "cost first:"
_PACKED = 3
"""Proposals in one process at most, where starting the process takes longer than running one of them."""
_CLOSE = 0.01
"""What loses at most this much of the metric is told as the best so far: the drop that `autocut select` is shown with."""
_FLOOR = 0.5
"""A model that keeps less than this share of the untouched model's metric is no alternative to it: not on the front."""
_END_S = 3.0
"""Time after the last bundle for the driver's own end: Ray's shutdown, the last notes and plots."""
_STILLBORN = 3
"""Worker processes in a row that may die before their first word."""
_DRY_ROUNDS = 3
"""Rounds of proposals without one worth running, after which the space counts as explored."""
_HANG_S = 120.0
"""A recipe hangs when it takes this much longer than eight times what was predicted."""
_MAX_FINALISTS = 16
"""Points that are finalized at most; any other one is exported on demand."""
_RUNNER_UP_PATIENCE = 1.5
"""Runners-up are finalized while this many times the predicted seconds are left: nothing must depend on them."""


class Book(Protocol):
    """What the agent needs of a study: where it records every outcome."""

    def begin(self, recipe: Recipe) -> Any:
        """Make a proposed recipe a running trial; what comes back is given to `complete` or `fail`."""
        ...

    def complete(
        self,
        handle: Any,
        recipe: Recipe,
        values: Mapping[str, float],
        event: RecipeMeasured,
        violations: Mapping[str, float],
        curve: Sequence[float],
    ) -> int:
        """Record a measured recipe; return its trial number."""
        ...

    def fail(self, handle: Any, recipe: Recipe, failure: RecipeFailed, curve: Sequence[float]) -> int:
        """Record a recipe without a measurement; return its trial number."""
        ...

    def finalize(self, recipe: Recipe, values: Mapping[str, float], finalized: RecipeFinalized) -> None:
        """Record test numbers and bundle of a recipe."""
        ...

    def refuse(self, recipe: Recipe, reason: str) -> None:
        """Take a recipe off the front."""
        ...

    def record_stage(self, stage: StageRan, job: Job) -> None:
        """Record a stage run and charge it."""
        ...

    def end_job(self, job: Job, ended: JobEnded) -> None:
        """Charge the rest of a worker's time."""
        ...

    def set_baseline(self, ready: BaselineReady) -> None:
        """Keep what every speed-up refers to."""
        ...

    def candidates(self) -> list[FrontPoint]:
        """Everything measured that may be handed over, by validation numbers: within the limits and not refused."""
        ...

    def front(self) -> list[FrontPoint]:
        """The candidates that none other beats."""
        ...

    def trial_number(self, recipe: Recipe) -> int | None:
        """Number of the completed trial of a recipe."""
        ...


@dataclass
class Progress:
    """What a person watching wants to know."""

    done: int = 0
    failed: int = 0
    bugs: int = 0
    stage: str = "starting"
    lines: deque[str] = field(default_factory=deque)


@dataclass(frozen=True)
class _Request:
    """Recipes that wait for a worker; `may_skip` lets it drop those that were beaten meanwhile."""

    recipes: tuple[Recipe, ...]
    why: str
    may_skip: bool = True


_END = _Request((), "the phase is over")


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
    ) -> None:
        self.known = known
        self.space = known.space
        self.planner = known.planner
        self.book = book
        self.proposer = proposer
        self.budget = budget
        self.price = price
        self.limits = tuple(limits)
        self.reference = reference
        self.progress = Progress()
        self.fault: WorkerFault | None = None
        self._workers = workers
        self._floor: tuple[Limit, ...] = ()
        self._queue: deque[_Request] = deque()
        self._phases = iter((self._baselines(), self._skeletons(), self._user_recipes(tries)))
        self._phase: Iterator[_Request | None] | None = next(self._phases)
        self._running: dict[int, Job] = {}
        self._started: dict[int, float] = {}
        self._current: dict[int, Recipe] = {}
        self._curves: dict[Recipe, list[float]] = {}
        self._open: dict[Recipe, tuple[Any, Any]] = {}
        self._train_seconds: dict[Recipe, float] = {}
        self._finalized: set[Recipe] = set()
        self._finalizing = False
        self._stillborn = 0
        self._dry_rounds = 0
        self._dry_at = -1
        self._numbers = itertools.count(1)

    # ---- what earlier sessions found ----------------------------------------

    def recall(
        self, recipe: Recipe, values: Mapping[str, float] | None, *, train_seconds: float = 0.0, finalized: bool = False
    ) -> None:
        """Take over a trial of an earlier session; `values` None means that it cannot be real or failed."""
        if values is None:
            self.known.bury(recipe)
            self.proposer.learn(recipe, None, {})
            return
        self.known.remember(recipe, values)
        self._train_seconds[recipe] = train_seconds
        self.proposer.learn(recipe, self.known.objectives(values), self._violations(values))
        if finalized:
            self._finalized.add(recipe)

    def set_floor(self, baseline: float) -> None:
        """Add the limit that keeps useless models off the front; none where the untouched model's metric is not above 0."""
        self._floor = (Limit("accuracy", ">=", _FLOOR * baseline),) if baseline > 0 else ()

    def recall_stage(self, run: StageRun) -> None:
        """Learn from a stage of an earlier session how long it takes."""
        self.planner.observe(StageRan(run.key, run.stage, run.method, run.seconds, run.cached, ""))

    def plan_lines(self) -> list[str]:
        """Return what a person should know before the search begins: what is tried, and what time is kept for."""
        self._plan_reserve()
        tails = sorted(self.known.affordable_tails(), key=self.planner.tail_s)
        lines = [
            f"budget {format_duration(self.budget.total_s)}, {format_duration(self.budget.left())} left, "
            f"at least {format_duration(self.budget.reserve_s)} of it kept for finalization; {self._workers} workers",
            "1. baselines: the untouched model, then "
            + ", ".join(f"{dtype}/{mode}" for dtype, mode in tails if (dtype, mode) != ("fp32", "eager")),
            "2. cost first: each pruning method without training, at up to three ratios",
            f"3. learn: {len(self.space.anchors)} anchors, then proposals, each with all its promising tails",
            "4. finalize: export, test split, verify in fresh processes",
        ]
        if slow := {mode: seconds for (_, mode), seconds in self.known.unaffordable_tails().items()}:
            told = ", ".join(f"{mode} ({seconds:.0f} s)" for mode, seconds in slow.items())
            lines.append(f"left out, too slow to make for this budget: {told}")
        return lines

    # ---- decisions ----------------------------------------

    def next_job(self) -> Job | None:
        """Return the next job, or None while nothing can start.

        Raises:
            StopIteration: the search is over and nothing runs.
        """
        if self.fault is not None:
            raise StopIteration
        if self.reference is None or self.book.trial_number(Recipe()) is None:
            if self._running:
                return None
            if self.budget.left() <= self.planner.process_s():
                raise StopIteration
            return self._start("baseline", (Recipe(),), self.budget.deadline, "the untouched model")
        self._plan_reserve()
        if not self._finalizing:
            if self.budget.search_left() > self.planner.process_s():
                if request := self._next_request():
                    return self._start("measure", request.recipes, self.budget.search_deadline, request.why)
                # What is running may make another recipe worth running, and the sampler may have another idea.
                if self._running or self._dry_rounds < _DRY_ROUNDS:
                    return None
            self._finalizing = True
        return self._next_finalization()

    def on_event(self, job: Job, event: Event) -> None:
        """Take in what a worker reports."""
        match event:
            case StageRan():
                self.planner.observe(event)
                self.book.record_stage(event, job)
                self.progress.stage = f"{event.stage} {event.method}"
            case BaselineReady():
                self.reference = event.reference
                self.set_floor(event.accuracy.metric.value)
                self.book.set_baseline(event)
            case WorkerUp():
                self.planner.observe_process(self.budget.clock() - self._started[job.number])
            case RecipeStarted():
                self._current[job.number] = event.recipe
            case RungReached():
                self._curves.setdefault(event.recipe.prefix, []).append(event.rung.metric)
            case RecipeMeasured():
                self._on_measured(event)
            case RecipeFailed() if job.kind == "finalize":
                self._on_not_finalized(event)
            case RecipeFailed():
                self._on_failed(event)
            case RecipeFinalized():
                self._on_finalized(event)
            case WorkerFault():
                self.fault = event
            case JobEnded():
                self.book.end_job(job, event)
                if job.kind == "finalize" and job.recipes != (Recipe(),):
                    self.planner.observe_finalization(self.budget.clock() - self._started[job.number])

    def on_job_end(self, job: Job, error: str | None) -> None:
        """Take in that a worker process is gone; `error` says how it died, None that it ended by itself."""
        self._running.pop(job.number, None)
        current = self._current.pop(job.number, None)
        unfinished = [recipe for recipe in job.recipes if not self.known.is_settled(recipe)]
        if error is not None and self.budget.clock() < job.deadline:
            self._on_death(job, current, unfinished, error)
            return
        self._stillborn = 0
        if job.kind == "measure":
            self._interrupt(unfinished)

    def close(self) -> None:
        """Tell the trials that are still open as interrupted: however the search ended, none is left running."""
        self._interrupt(list(self._open))

    def _on_death(self, job: Job, current: Recipe | None, unfinished: list[Recipe], error: str) -> None:
        """Blame the recipe that was being worked on, and queue the others again; a process that never gets to work is nobody's."""
        self._stillborn = 0 if current else self._stillborn + 1
        if self._stillborn >= _STILLBORN:
            self.fault = WorkerFault(
                f"a worker process must start, but {self._stillborn} in a row died at once", "autocut check; is memory free?"
            )
        if job.kind == "finalize" and current is not None and current not in self._finalized:
            self._on_not_finalized(RecipeFailed(current, "failed", error))
        if job.kind == "measure":
            if current in unfinished:
                self._on_failed(RecipeFailed(current, "failed", error))
                unfinished.remove(current)
            if unfinished:
                self._queue.appendleft(_Request(tuple(unfinished), job.why))

    def _interrupt(self, recipes: Sequence[Recipe]) -> None:
        for recipe in recipes:
            if recipe in self._open:
                self._on_failed(RecipeFailed(recipe, "interrupted", "the time of the search was up"))

    # ---- phases ----------------------------------------

    def _next_request(self) -> _Request | None:
        while True:
            while self._queue:
                if request := self._still_worth(self._queue.popleft()):
                    return request
            if self._phase is None:
                return self._pack()
            request = next(self._phase, _END)
            if request is None:
                return None
            if request is _END:
                self._phase = next(self._phases, None)
            else:
                self._queue.append(request)

    def _baselines(self) -> Iterator[_Request | None]:
        """Every tail of the untouched model; cheap lowerings share processes, a worker each."""
        tails = sorted(self.known.affordable_tails(), key=self.planner.tail_s)
        cheap = [tail for tail in tails if self.known.is_cheap(tail)]
        rationed, left_s = [], _COMPILING_SHARE * self.budget.left() * self._workers
        for tail in tails:
            left_s -= 0.0 if tail in cheap else self.planner.tail_s(tail)
            if tail not in cheap and left_s > 0:
                rationed.append([tail])
        groups = [cheap[first :: self._workers] for first in range(self._workers)] + rationed
        for group in groups:
            if group:
                recipes = tuple(Recipe().with_tail(*tail) for tail in group)
                yield _Request(recipes, f"baselines: the untouched model in {len(group)} more forms", may_skip=False)

    def _skeletons(self) -> Iterator[_Request | None]:
        """Each pruning method without training, at more ratios where it saved something: this prices what is trained later."""
        method_axis, ratio_axis = self.space.axis("prune.method"), self.space.axis("prune.ratio")
        if method_axis is None or ratio_axis is None:
            return
        while any(job.why.startswith("baseline") for job in self._running.values()):
            yield None  # the best tails are not known yet
        methods = [str(method) for method in method_axis.choices if method != "none"]
        yield from (self._skeleton(method, [nearest_value(ratio_axis, 0.5)]) for method in methods)
        while any(job.why.startswith(_COST_FIRST) for job in self._running.values()):
            yield None  # which methods are worth more ratios is not known yet
        for method in methods:
            twin_is_asked = any(
                methods.index(twin) < methods.index(method) for twin in self.known.costs.twins(method) if twin in methods
            )
            if not self.known.got_no_cheaper(method) and not twin_is_asked:
                yield self._skeleton(method, [nearest_value(ratio_axis, wish) for wish in (0.75, 0.25)])

    def _skeleton(self, method: str, ratios: Sequence[float]) -> _Request:
        prefixes = [Recipe({"prune.method": method, "prune.ratio": ratio}) for ratio in ratios]
        recipes = tuple(
            prefix.with_tail(*tail) for prefix in prefixes for tail in self.known.promising_tails(prefix)[:_SKELETON_TAILS]
        )
        return _Request(
            recipes, f"{_COST_FIRST} {method} {', '.join(f'{ratio:g}' for ratio in ratios)} without training", may_skip=False
        )

    def _user_recipes(self, tries: Sequence[Recipe]) -> Iterator[_Request | None]:
        for recipe in (*tries, *self.space.anchors):
            yield _Request(self.known.with_tails(recipe), f"anchor: {recipe.prefix.describe()}", recipe not in tries)

    def _pack(self) -> _Request | None:
        """One proposal, or a few where the process would take longer to start than they to run."""
        packed = first = self._propose()
        for _ in range(_PACKED - 1):
            if packed is None or sum(map(self.known.seconds, packed.recipes)) > 2 * self.planner.process_s():
                break
            more = self._propose()
            if more is None:
                break
            packed = _Request((*packed.recipes, *more.recipes), f"{first.why if first else ''} and more")
        return packed

    def _propose(self) -> _Request | None:
        settled = len(self.known.done) + len(self.known.dead)
        if self._dry_at == settled and self._running:
            return None  # nothing was learned since the last round without a find
        until = self.budget.clock() + _PROPOSING_S
        for _ in range(_PROPOSALS_A_JOB):
            if self.budget.clock() > until:
                break
            trial, recipe = self.proposer.propose()
            if self.known.is_settled(recipe) or recipe in self._open or self._is_running(recipe):
                self.proposer.forget(trial)
            elif recipe.tail not in self.known.promising_tails(recipe.prefix) or self.known.is_beaten(recipe):
                self.proposer.reject(trial)
            elif not (recipes := self.known.fitting(self.known.with_tails(recipe), self._time_for_recipes())):
                self.proposer.forget(trial)
            else:
                self._open[recipe] = (self.book.begin(recipe), trial)
                self._dry_rounds = 0
                return _Request(recipes, f"proposed: {recipe.prefix.describe()}")
        self._dry_rounds += 1
        self._dry_at = settled
        return None

    def _next_finalization(self) -> Job | None:
        left, each = self.budget.left(), self.planner.finalize_s()
        waiting: dict[Recipe, int] = {}
        if left > 0.6 * each:
            waiting = self._waiting(self._finalists())
        if not waiting and left > _RUNNER_UP_PATIENCE * each:
            waiting = self._waiting(self._runners_up())
        for recipe, trial in waiting.items():
            return self._start("finalize", (recipe,), self.budget.deadline - _END_S, f"finalize: {recipe.describe()}", trial)
        if self._running:
            return None
        raise StopIteration

    def _still_worth(self, request: _Request) -> _Request | None:
        recipes = [
            recipe
            for recipe in request.recipes
            if not self.known.is_settled(recipe) and not self._is_running(recipe) and self._is_affordable(recipe)
        ]
        if request.may_skip:
            recipes = [recipe for recipe in recipes if not self.known.is_beaten(recipe)]
        fitting = self.known.fitting(tuple(recipes), self._time_for_recipes())
        self._interrupt([recipe for recipe in request.recipes if recipe not in fitting])
        return _Request(fitting, request.why, request.may_skip) if fitting else None

    def _is_affordable(self, recipe: Recipe) -> bool:
        return recipe.tail in self.known.affordable_tails()

    def _time_for_recipes(self) -> float:
        return self.budget.search_left() - self.planner.process_s()

    def _is_running(self, recipe: Recipe) -> bool:
        return any(recipe in job.recipes for job in self._running.values())

    # ---- bookkeeping ----------------------------------------

    def _on_measured(self, event: RecipeMeasured) -> None:
        values = self._values(event.measured.measurement, event.measured.train_seconds)
        violations = self._violations(values)
        handle, trial = self._open.pop(event.recipe, (None, None))
        number = self.book.complete(handle, event.recipe, values, event, violations, self._curves.get(event.recipe.prefix, ()))
        if trial is not None:
            self.proposer.tell(trial, self.known.objectives(values), violations)
        else:
            self.proposer.learn(event.recipe, self.known.objectives(values), violations)
        self.known.remember(event.recipe, values)
        self._train_seconds[event.recipe] = event.measured.train_seconds
        self.progress.done += 1
        self.progress.lines.append(f"trial {number}: {event.recipe.describe()}: {_headline(values)}")

    def _on_failed(self, event: RecipeFailed) -> None:
        handle, trial = self._open.pop(event.recipe, (None, None))
        number = self.book.fail(handle, event.recipe, event, self._curves.get(event.recipe.prefix, ()))
        if trial is not None and event.outcome == "interrupted":
            self.proposer.forget(trial)
        elif trial is not None:
            self.proposer.reject(trial)
        self.progress.bugs += event.outcome == "bug"
        if event.outcome != "interrupted":
            self.known.bury(event.recipe)
            self.progress.failed += 1
        self.progress.lines.append(
            f"trial {number}: {event.recipe.describe()}: {event.outcome}: {event.reason.partition(chr(10))[0]}"
        )

    def _on_not_finalized(self, event: RecipeFailed) -> None:
        """A point that cannot be handed over is off the front; one whose time was up stays, and is finalized by the next run."""
        if event.outcome != "interrupted":
            self._finalized.add(event.recipe)
            self.book.refuse(event.recipe, f"{event.outcome}: {event.reason}")
        self.progress.lines.append(f"bundle: {event.recipe.describe()}: {event.outcome}: {event.reason.partition(chr(10))[0]}")

    def _on_finalized(self, event: RecipeFinalized) -> None:
        values = self._values(event.measurement, self._train_seconds.get(event.recipe, 0.0))
        broken = [name for name, violation in self._violations(values).items() if violation > 0]
        if broken and event.recipe != Recipe():
            event = replace(event, refusal=f"{broken[0]} does not hold on the test split")
        self._finalized.add(event.recipe)
        self.book.finalize(event.recipe, values, event)
        done = "verified" if event.bundle else "measured"
        verdict = f"refused: {event.refusal}" if event.refusal else f"{done}, {_headline(values)} on the locked test split"
        self.progress.lines.append(f"bundle: {event.recipe.describe()}: {verdict}")

    def _values(self, measurement: Measurement, train_seconds: float) -> dict[str, float]:
        if self.reference is None:
            raise RuntimeError("a recipe was measured before the untouched model")
        return values_of(measurement, self.reference, self.price, train_seconds)

    def _violations(self, values: Mapping[str, float]) -> dict[str, float]:
        return {str(limit): limit.violation(values) for limit in (*self.limits, *self._floor)}

    def _finalists(self) -> dict[Recipe, int]:
        """Trial numbers of what must be finalized, the most important first.

        The untouched model; the front, by how much of it would be lost without each point; and the untouched weights in the
        cheapest form that computes the same, for whoever can give no accuracy away.
        """
        ranked = self._by_contribution(self.book.front())[:_MAX_FINALISTS]
        untouched = self.book.trial_number(Recipe())
        first = {} if untouched is None else {Recipe(): untouched}
        return first | {point.recipe: point.trial for point in ranked} | self._exact()

    def _exact(self) -> dict[Recipe, int]:
        exact = [recipe for recipe in self.known.done if recipe.prefix == Recipe() and recipe.tail[0] == Recipe().tail[0]]
        cheapest = min(exact, key=lambda recipe: self.known.done[recipe]["usd_per_million"], default=None)
        number = None if cheapest is None else self.book.trial_number(cheapest)
        return {} if cheapest is None or number is None else {cheapest: number}

    def _runners_up(self) -> dict[Recipe, int]:
        """Trial numbers of what comes behind the front, layer by layer: on the test split some of it may be ahead."""
        chosen = set(self._finalists())
        rest = [point for point in self.book.candidates() if point.recipe not in chosen]
        ranked: list[FrontPoint] = []
        while rest and len(chosen) + len(ranked) < _MAX_FINALISTS:
            layer = {point.trial for point in non_dominated(rest, self.space.objectives)}
            ranked += self._by_contribution([point for point in rest if point.trial in layer])
            rest = [point for point in rest if point.trial not in layer]
        return {point.recipe: point.trial for point in ranked[: max(0, _MAX_FINALISTS - len(chosen))]}

    def _by_contribution(self, front: Sequence[FrontPoint]) -> list[FrontPoint]:
        lost = hypervolume_contributions(front, self.space.objectives)
        return sorted(front, key=lambda point: -lost[point.trial])

    def _waiting(self, finalists: Mapping[Recipe, int]) -> dict[Recipe, int]:
        return {
            recipe: trial for recipe, trial in finalists.items() if recipe not in self._finalized and not self._is_running(recipe)
        }

    def _plan_reserve(self) -> None:
        if not self._finalizing:
            waiting = [recipe for recipe in self._finalists() if recipe not in self._finalized]
            self.budget = self.budget.with_reserve(self.planner.reserve_s(len(waiting), self._workers, self.budget.total_s))

    def _start(self, kind: str, recipes: tuple[Recipe, ...], deadline: float, why: str, trial: int = -1) -> Job:
        expected = self.planner.finalize_s() if kind == "finalize" else max(map(self.known.seconds, recipes))
        patience_s = math.inf if kind == "baseline" else _HANG_S + 8 * expected
        job = Job(next(self._numbers), kind, recipes, deadline, why, trial, self.reference, self.budget.spent(), patience_s)
        self._running[job.number] = job
        self._started[job.number] = self.budget.clock()
        self.progress.stage = why
        return job


def nearest_value(axis: Axis, wish: float) -> float:
    """Return the value of a numeric `axis` that is nearest to `wish`."""
    if axis.choices:
        return min((float(choice) for choice in axis.choices), key=lambda choice: abs(choice - wish))
    low, high = float(axis.low or 0.0), float(axis.high or 0.0)
    inside = min(max(wish, low), high)
    return round(low + round((inside - low) / axis.step) * axis.step, 10) if axis.step else inside


def _headline(values: Mapping[str, float]) -> str:
    cost = f"{format_usd(values['usd_per_million'])} per million"
    return f"accuracy {values['accuracy']:.4f}, {cost}, {values['speedup']:.2f}x faster"


def best_so_far(front: Iterable[FrontPoint]) -> str:
    """One phrase about the cheapest point that loses at most a point of the metric; nothing where there is none."""
    close = [point for point in front if (gap := point.measurement.accuracy.difference) is None or gap.value >= -_CLOSE]
    cheapest = min(close, key=lambda point: point.values["usd_per_million"], default=None)
    if cheapest is None:
        return ""
    values = cheapest.values
    return f"{format_usd(values['usd_per_million'])}/M ({values['speedup']:.1f}x) at {values['accuracy']:.4f}"
