"""An executor that keeps a timesheet: what each worker does at every moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from autocut.execution.executor import Executor, WorkerGone
from autocut.search.jobs import Event, Job
from autocut.search.timesheet import Timesheet


class AccountedExecutor:
    """Runs jobs on `executor`, and writes down in `timesheet` when each begins, reports and ends, by `clock`."""

    def __init__(self, executor: Executor, timesheet: Timesheet, clock: Callable[[], float]) -> None:
        self._executor = executor
        self._timesheet = timesheet
        self._clock = clock

    @property
    def is_held_up(self) -> bool:
        """See `Executor`."""
        return self._executor.is_held_up

    def start(self) -> None:
        """See `Executor`."""
        self._executor.start()

    def reserve(self) -> bool:
        """See `Executor`; a worker that may not start because another one times waits for the machine."""
        is_reserved = self._executor.reserve()
        if not is_reserved and self._executor.is_held_up:
            self._timesheet.leave_free("waiting", self._clock())
        return is_reserved

    def leave_free(self) -> None:
        """See `Executor`; a worker for which there is no job is idle."""
        self._executor.leave_free()
        self._timesheet.leave_free("idle", self._clock())

    def submit(self, job: Job) -> None:
        """See `Executor`."""
        self._timesheet.begin(job, self._clock())
        self._executor.submit(job)

    def events(self, timeout_s: float) -> Iterator[tuple[Job, Event | WorkerGone]]:
        """See `Executor`."""
        for job, event in self._executor.events(timeout_s):
            if isinstance(event, WorkerGone):
                self._timesheet.end(job, self._clock(), is_killed=event.error is not None)
            else:
                self._timesheet.observe(job, event, self._clock())
            yield job, event

    def stop(self) -> None:
        """See `Executor`."""
        self._timesheet.stop(self._clock())
        self._executor.stop()
