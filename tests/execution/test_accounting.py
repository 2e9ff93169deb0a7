"""The executor that keeps a timesheet."""

from types import SimpleNamespace

from autocut.execution.accounting import AccountedExecutor
from autocut.execution.executor import WorkerGone
from autocut.search.jobs import JobKind
from autocut.search.timesheet import Timesheet


class Workers:
    """One worker; the test says what happens to it, and each call takes a second."""

    def __init__(self, clock):
        self.clock = clock
        self.is_free, self.is_held_up = True, False
        self.happened = []

    def reserve(self):
        """Whether it is free, and may start."""
        self.clock.now += 1.0
        return self.is_free and not self.is_held_up

    def leave_free(self):
        """There is no job."""

    def submit(self, job):
        """Run."""
        self.is_free = False

    def events(self, timeout_s):
        """What has happened."""
        for happened in self.happened:
            self.clock.now += 1.0
            yield happened

    def start(self):
        """Start."""

    def stop(self):
        """Stop."""


def test_every_second_of_a_worker_is_written_down_by_what_holds_it_up():
    """The start, a job that dies, another one that times, no job, and the end."""
    clock = SimpleNamespace(now=0.0)
    timesheet, workers = Timesheet(1, 0.0), Workers(clock)
    executor = AccountedExecutor(workers, timesheet, lambda: clock.now)
    job = SimpleNamespace(number=1, kind=JobKind.MEASURE)
    executor.start()

    assert executor.reserve()
    executor.submit(job)
    workers.happened = [(job, "an event"), (job, WorkerGone("it died"))]
    assert list(executor.events(0.1)) == workers.happened
    workers.is_free, workers.is_held_up = True, True
    assert not executor.reserve()
    assert executor.is_held_up
    workers.is_held_up = False
    assert executor.reserve()
    executor.leave_free()
    clock.now += 1.0
    executor.stop()

    found = {name: seconds for name, seconds in timesheet.ledger(clock.now).items() if seconds}
    assert found == {"starting": 1.0, "killed": 2.0, "overhead": 1.0, "waiting": 1.0, "idle": 1.0}
