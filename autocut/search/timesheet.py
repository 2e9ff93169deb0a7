"""The timesheet of a search: at each moment, what every worker does.

It sees jobs begin, report and end, and divides the wall-clock time between these moments. So the seconds of its rows add up to the
time that has passed, whatever the workers report. A worker is in exactly one row:

- no job: ``starting`` before the first job, ``waiting`` while another worker needs the machine alone, ``idle`` while the agent
  has no job, ``overhead`` between two jobs;
- a job: the row of the stage that it makes, ``waiting`` as it reports it, and ``overhead`` otherwise. A finalization counts as
  ``finalizing`` from the start of its process to the end, but for its waiting;
- a killed job: ``killed`` is the time since its last finished step, the work that is lost.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from autocut.measurement import Rung
from autocut.search import jobs
from autocut.search.jobs import Event, Job, JobKind, StageStarted
from autocut.study.ledger import BORROWED, CATEGORIES


@dataclass(frozen=True)
class Step:
    """What a worker does now, since the clock's reading `since`.

    `rung` is the last epoch that a training has ended, `rung_at` when, and `rungs` how many it has ended since `since`.
    `ends` is when it will end by its first batches, if that is known.
    """

    what: StageStarted
    since: float
    rung: Rung | None = None
    rung_at: float = 0.0
    rungs: int = 0
    ends: float | None = None


class JobTime:
    """The time of one job, by row."""

    def __init__(self, job: Job, now: float) -> None:
        self._usual = "finalizing" if job.kind is JobKind.FINALIZE else "overhead"
        self._is_divided = job.kind is not JobKind.FINALIZE
        self._since = now
        self._seconds: dict[str, float] = defaultdict(float)
        self._stages: list[Step] = []
        self._unkeyed: Step | None = None
        self._told_waiting_s = 0.0
        self.borrowed_s = 0.0

    @property
    def step(self) -> Step | None:
        """What the worker does now; None if it has not said."""
        return self._stages[-1] if self._stages else self._unkeyed

    def observe(self, event: Event, now: float) -> None:
        """Take in what the worker reports."""
        match event:
            case jobs.RungReached():
                self._stages[-1:] = [
                    replace(step, rung=event.rung, rung_at=now, rungs=step.rungs + 1) for step in self._stages[-1:]
                ]
            case jobs.TrainingPaced():
                self._stages[-1:] = [replace(step, ends=now + event.seconds_left) for step in self._stages[-1:]]
            case StageStarted(key=""):
                self._close(now)
                self._unkeyed = Step(event, now)
            case StageStarted():
                self._close(now)
                self._stages.append(Step(event, now))
            case jobs.StageRan():
                self._close(now)
                self.borrowed_s += 0.0 if event.cached else event.borrowed_s
                # A stage that was only found has not begun, so it ends nothing.
                if self._stages and self._stages[-1].what.key == event.key:
                    self._stages.pop()
            case jobs.StageBroke():
                self._close(now)
                del self._stages[-1:]
            case jobs.ModelLoaded():
                row = self._close(now)
                if self._is_divided:
                    self._move(event.seconds, row, "compiling")
            case jobs.Waited():
                self._told_waiting_s += event.seconds
                self._move(event.seconds, self._close(now), "waiting")
            case jobs.JobEnded():
                self._begin_anew(now)
                self._move(event.waited_s - self._told_waiting_s, self._usual, "waiting")
            case jobs.RecipeStarted() | jobs.RecipeMeasured() | jobs.RecipeFailed() | jobs.RecipeFinalized() | jobs.BaselineReady():
                self._begin_anew(now)

    def seconds(self, now: float, open_row: str | None = None) -> Mapping[str, float]:
        """Return the seconds of each row until `now`; those since the last report belong to `open_row`."""
        seconds = dict(self._seconds)
        row = open_row or self._row()
        seconds[row] = seconds.get(row, 0.0) + now - self._since
        return seconds

    def _row(self) -> str:
        if not self._stages or not self._is_divided:
            return self._usual
        category = self._stages[-1].what.category
        return category if category in CATEGORIES else self._usual

    def _begin_anew(self, now: float) -> None:
        """No stage lasts longer than its recipe, however it ended."""
        self._close(now)
        self._stages.clear()
        self._unkeyed = None

    def _close(self, now: float) -> str:
        """Count the time since the last report; return its row."""
        row = self._row()
        self._seconds[row] += now - self._since
        self._since = now
        return row

    def _move(self, seconds: float, row: str, to: str) -> None:
        """Move up to `seconds` from `row`: a worker's own clock never makes a row negative."""
        moved = max(0.0, min(seconds, self._seconds[row]))
        self._seconds[row] -= moved
        self._seconds[to] += moved


class Timesheet:
    """The time of all `workers` since the clock's reading `started`. All methods take readings of that clock, in their order."""

    def __init__(self, workers: int, started: float) -> None:
        self._workers = workers
        self._jobs: dict[int, JobTime] = {}
        self._past: dict[str, float] = defaultdict(float)
        self._borrowed_s = 0.0
        self._free, self._free_since = "starting", started

    def begin(self, job: Job, now: float) -> None:
        """Take in that a worker gets `job`."""
        self._close_free(now)
        if self._free == "starting":
            self._free = "overhead"
        self._jobs[job.number] = JobTime(job, now)

    def observe(self, job: Job, event: Event, now: float) -> None:
        """Take in what the worker of `job` reports."""
        if job.number in self._jobs:
            self._jobs[job.number].observe(event, now)

    def end(self, job: Job, now: float, *, is_killed: bool) -> None:
        """Take in that the worker of `job` is gone."""
        if job.number not in self._jobs:
            return
        self._close_free(now)
        if len(self._jobs) >= self._workers:
            self._free = "overhead"
        self._take_over(self._jobs.pop(job.number), now, is_killed=is_killed)

    def leave_free(self, row: str, now: float) -> None:
        """From now on the workers without a job are in `row`."""
        self._close_free(now)
        self._free = row

    def stop(self, now: float) -> None:
        """Take in that every worker is ended at once."""
        self._close_free(now)
        for ended in self._jobs.values():
            self._take_over(ended, now, is_killed=True)
        self._jobs.clear()
        self._free = "overhead"

    def step(self, job: Job) -> Step | None:
        """What the worker of `job` does now; None if it has not said."""
        return self._jobs[job.number].step if job.number in self._jobs else None

    def ledger(self, now: float) -> dict[str, float]:
        """Return the seconds of every row until `now`, a worker counting as its share: they add up to all the time.

        `BORROWED` is no row: it is the time in which a training also used the cores of workers without work.
        """
        seconds = dict.fromkeys(CATEGORIES, 0.0) | self._past
        seconds[self._free] += (self._workers - len(self._jobs)) * (now - self._free_since)
        for job in self._jobs.values():
            for row, spent in job.seconds(now).items():
                seconds[row] += spent
        seconds[BORROWED] = self._borrowed_s + sum(job.borrowed_s for job in self._jobs.values())
        return {row: spent / self._workers for row, spent in seconds.items()}

    def _take_over(self, ended: JobTime, now: float, *, is_killed: bool) -> None:
        self._borrowed_s += ended.borrowed_s
        for row, seconds in ended.seconds(now, "killed" if is_killed else None).items():
            self._past[row] += seconds

    def _close_free(self, now: float) -> None:
        self._past[self._free] += (self._workers - len(self._jobs)) * (now - self._free_since)
        self._free_since = now
