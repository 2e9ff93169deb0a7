"""Simulated time: the real agent's jobs, run against a world whose answers and seconds are recorded or made up.

A night's search takes seconds, so that strategies are compared over many seeds and the agent is tested on days it cannot wait for.
The agent, its jobs and its events are the real ones; only the clock, the worker processes and the study are stand-ins. As in the
real search, workers run side by side, each job in a fresh process; what is in the stage cache costs nothing; and timing holds the
machine alone, so that the others wait meanwhile.

What is left out: noise of seconds, contention for memory, and the driver's own time.

References:
    Salinas et al. 2022, Syne Tune, section 5 (tabulated benchmarks replayed in simulated time), https://openreview.net/forum?id=BVeGJ-THIg9
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from autocut.front import FrontPoint, non_dominated
from autocut.measurement import Measured, Rung
from autocut.recipe import UNTOUCHED, Recipe
from autocut.search.jobs import (
    BaselineReady,
    Event,
    Job,
    JobEnded,
    JobKind,
    RecipeFailed,
    RecipeFinalized,
    RecipeMeasured,
    RecipePriced,
    RecipeStarted,
    RungReached,
    StageRan,
)
from autocut.search.trial_store import is_baseline

_IDLE_S = 0.1
_TIME_IS_UP = "the time of the search was up"
DIED = "died"
"""Outcome of a recipe that takes its worker process with it."""


class Clock:
    """Seconds that pass only while a worker works."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Read the clock."""
        return self.now


@dataclass(frozen=True)
class Stage:
    """A stage of the tree: made after its `parents`, unless the cache has `key`; `alone` holds the machine."""

    key: str
    stage: str
    method: str
    seconds: float
    category: str
    parents: tuple[Stage, ...] = ()
    samples: int = 0
    rungs: tuple[Rung, ...] = ()
    alone: bool = False


class World(Protocol):
    """What a machine and a task answer."""

    process_s: float
    finalize_s: float

    def baseline(self) -> Stage:
        """The untouched model."""
        ...

    def prefix(self, recipe: Recipe) -> Stage:
        """The trained model of a recipe."""
        ...

    def lowering(self, recipe: Recipe) -> Sequence[Stage]:
        """What else is made of it before it is measured."""
        ...

    def measured(self, recipe: Recipe) -> Measured:
        """What the recipe gave and cost."""
        ...

    def failure(self, kind: str, recipe: Recipe) -> str | None:
        """How a job of `kind` fails on the recipe: an outcome of `RecipeFailed`, or `DIED`; None where it works."""
        ...


class Searcher(Protocol):
    """What decides: the agent, or a strategy that it is compared with."""

    def next_job(self) -> Job | None:
        """Return the next job, None to wait, or raise `StopIteration`."""
        ...

    def on_event(self, job: Job, event: Event) -> None:
        """Take in what a worker reports."""
        ...

    def on_job_end(self, job: Job, error: str | None) -> None:
        """Take in that a worker process is gone."""
        ...


@dataclass
class _Step:
    """Seconds, and what is reported after them."""

    seconds: float
    event: Event | None = None
    alone: bool = False


@dataclass
class _Worker:
    job: Job
    script: Generator[_Step, None, str | None]
    step: _Step
    at: float
    error: str | None = None


@dataclass
class Simulation:
    """Runs the jobs of `searcher` in `world`; `log` lists what was measured and finalized, `times` when.

    Args:
        searcher: Decides.
        world: Answers.
        clock: The one that the searcher's budget reads.
        workers: Jobs at a time.
        reuse: Whether finished stages are found again; without, every recipe is made from nothing.
    """

    searcher: Searcher
    world: World
    clock: Clock
    workers: int = 1
    reuse: bool = True
    log: list[tuple[str, Recipe]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    _made: set[str] = field(default_factory=set)
    _epochs: dict[str, int] = field(default_factory=dict)
    _running: list[_Worker] = field(default_factory=list)
    _is_over: bool = False

    def run(self, most_jobs: int | None = None) -> None:
        """Run until the searcher has no more jobs, or `most_jobs` have been started and ended."""
        while self.step(most_jobs):
            pass

    def step(self, most_jobs: int | None = None) -> bool:
        """Start what can start now, and go to the next moment at which something happens; False where nothing is left to do."""
        while not self._is_over and len(self._running) < self.workers and (most_jobs is None or len(self.jobs) < most_jobs):
            try:
                job = self.searcher.next_job()
            except StopIteration:
                self._is_over = True
                break
            if job is None:
                break
            self._start(job)
        if self._running:
            self._advance()
            return True
        if self._is_over or (most_jobs is not None and len(self.jobs) >= most_jobs):
            return False
        self.clock.now += _IDLE_S
        return True

    # ---- time ----------------------------------------

    def _start(self, job: Job) -> None:
        self.jobs.append(job)
        script = self._script(job)
        self._running.append(worker := _Worker(job, script, next(script), self.clock.now))
        self._begin(worker)

    def _begin(self, worker: _Worker) -> None:
        """The step begins now; a worker that is alone makes the others wait."""
        worker.at = self.clock.now + worker.step.seconds
        if worker.step.alone:
            for other in self._running:
                if other is not worker:
                    other.at += worker.step.seconds

    def _advance(self) -> None:
        """Go to the next moment at which something is reported."""
        worker = min(self._running, key=lambda one: one.at)
        self.clock.now = max(self.clock.now, worker.at)
        if worker.step.event is not None:
            self._note(worker.step.event)
            self.searcher.on_event(worker.job, worker.step.event)
        try:
            worker.step = next(worker.script)
        except StopIteration as end:
            self._running.remove(worker)
            self.searcher.on_job_end(worker.job, end.value)
        else:
            self._begin(worker)

    def _note(self, event: Event) -> None:
        if isinstance(event, RecipeMeasured | RecipeFinalized):
            self.log.append(("measure" if isinstance(event, RecipeMeasured) else "finalize", event.recipe))
            self.times.append(self.clock.now)
        if isinstance(event, StageRan):
            self._note_seconds(event.category, event.seconds)

    def _note_seconds(self, category: str, seconds: float) -> None:
        self.seconds[category] = self.seconds.get(category, 0.0) + seconds

    # ---- what a worker process does ----------------------------------------

    def _script(self, job: Job) -> Generator[_Step, None, str | None]:
        """The steps of a job; what it returns says how its process died, None that it ended by itself."""
        yield _Step(self.world.process_s)
        stopped: set[Recipe] = set()
        for recipe in job.recipes:
            if not self.reuse:
                self._made.intersection_update({self.world.baseline().key})
                self._epochs.clear()
            yield _Step(0.0, RecipeStarted(recipe))
            outcome = self.world.failure(job.kind, recipe)
            if outcome == DIED:
                return "the worker process died"
            if recipe.prefix in stopped:
                yield _Step(0.0, RecipeFailed(recipe, "stopped", "simulated"))
                continue
            if outcome:
                yield _Step(0.0, RecipeFailed(recipe, outcome, "simulated"))
                continue
            steps = self._finalizing(recipe) if job.kind == JobKind.FINALIZE else self._measuring(job, recipe)
            for step in steps:
                if self.clock.now + step.seconds > job.deadline:
                    yield _Step(max(0.0, job.deadline - self.clock.now), RecipeFailed(recipe, "interrupted", _TIME_IS_UP))
                    break
                yield step
                if isinstance(step.event, RecipeFailed):
                    stopped.add(recipe.prefix)
        yield _Step(0.0, JobEnded(0.0, 1.0))
        return None

    def _finalizing(self, recipe: Recipe) -> Iterator[_Step]:
        bundle = (None, None) if recipe == UNTOUCHED else ("bundle", "0" * 64)
        finalized = RecipeFinalized(recipe, self.world.measured(recipe).measurement, *bundle, None)
        yield _Step(self.world.finalize_s, finalized)

    def _measuring(self, job: Job, recipe: Recipe) -> Iterator[_Step]:
        if job.kind == JobKind.BASELINE:
            yield from self._making(job, recipe, self.world.baseline())
        for stage in (self.world.prefix(recipe), *self.world.lowering(recipe)):
            if (yield from self._making(job, recipe, stage)):
                return
        measured = self.world.measured(recipe)
        if job.kind == JobKind.PRICE:
            yield _Step(0.0, RecipePriced(recipe, measured.measurement.cost))
            return
        if job.kind == JobKind.BASELINE:
            measurement = measured.measurement
            yield _Step(
                0.0, BaselineReady(measurement.cost, measurement.accuracy, {}, measured.train_seconds, measured.samples_seen)
            )
        yield _Step(0.0, RecipeMeasured(recipe, measured))

    def _making(self, job: Job, recipe: Recipe, stage: Stage) -> Generator[_Step, None, bool]:
        """Make a stage and what it needs; returns whether the recipe was stopped early."""
        if stage.key in self._made:
            return False
        for parent in stage.parents:
            if (yield from self._making(job, recipe, parent)):
                return True
        done, known = 0.0, self._epochs.get(stage.key, 0)
        for rung in stage.rungs[max(0, known - 1) :]:  # after a stop it goes on, and tells its last rung again
            share = stage.seconds / rung.epochs if rung.epoch > known else 0.0
            yield _Step(share, RungReached(recipe, rung))
            done += share
            self._epochs[stage.key] = rung.epoch
            if rung.metric < job.floor(recipe, rung):
                self._note_seconds(stage.category, done)
                yield _Step(0.0, RecipeFailed(recipe, "stopped", "simulated"))
                return True
        rest = 0.0 if stage.rungs else stage.seconds
        samples = round(stage.samples * (done + rest) / stage.seconds) if stage.seconds else 0
        ran = StageRan(stage.key, stage.stage, stage.method, done + rest, False, stage.category, samples)
        yield _Step(rest, ran, stage.alone)
        self._made.add(stage.key)
        return False


class MemoryTrialStore:
    """A study in memory, with the numbers of the validation split."""

    def __init__(self, objectives: Mapping[str, str]) -> None:
        self.objectives = objectives
        self.points: dict[Recipe, FrontPoint] = {}
        self.failures: list[RecipeFailed] = []
        self.finals: dict[Recipe, Mapping[str, float]] = {}
        self.looks: list[Recipe] = []
        self._numbers = itertools.count()
        self._refused: set[Recipe] = set()
        self._front: list[FrontPoint] | None = None

    def begin(self, recipe: Recipe) -> Recipe:
        """See `TrialStore`."""
        return recipe

    def start(self, recipe: Recipe) -> None:
        """See `TrialStore`."""

    def complete(
        self,
        handle: Any,  # noqa: ARG002
        event: RecipeMeasured,
        values: Mapping[str, float],
        violations: Mapping[str, float],
        curve: Sequence[float],  # noqa: ARG002
    ) -> int:
        """See `TrialStore`."""
        recipe = event.recipe
        point = FrontPoint(next(self._numbers), recipe, values, event.measured.measurement, is_baseline(recipe), None)
        self.points[recipe] = point
        if any(violation > 0 for violation in violations.values()):
            self._refused.add(recipe)
        self._front = None
        return point.trial

    def fail(self, handle: Any, failure: RecipeFailed, curve: Sequence[float]) -> int:  # noqa: ARG002
        """See `TrialStore`."""
        self.failures.append(failure)
        return next(self._numbers)

    def finalize(self, finalized: RecipeFinalized, values: Mapping[str, float]) -> None:
        """See `TrialStore`."""
        self.finals[finalized.recipe] = values

    def look(self, recipe: Recipe) -> None:
        """See `TrialStore`."""
        self.looks.append(recipe)

    def refuse(self, recipe: Recipe, reason: str) -> None:  # noqa: ARG002
        """See `TrialStore`."""
        self._refused.add(recipe)
        self._front = None

    def record_stage(self, stage: StageRan, recipe: Recipe) -> None:
        """See `TrialStore`."""

    def set_baseline(self, ready: BaselineReady) -> None:
        """See `TrialStore`."""

    def candidates(self) -> list[FrontPoint]:
        """See `TrialStore`."""
        return [point for recipe, point in self.points.items() if recipe not in self._refused]

    def front(self) -> list[FrontPoint]:
        """See `TrialStore`."""
        if self._front is None:
            self._front = non_dominated(self.candidates(), self.objectives)
        return self._front

    def trial_number(self, recipe: Recipe) -> int | None:
        """See `TrialStore`."""
        return self.points[recipe].trial if recipe in self.points else None
