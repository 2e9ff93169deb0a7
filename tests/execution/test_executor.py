"""The loop between an agent and what runs its jobs."""

from types import SimpleNamespace

import pytest

from autocut.execution.executor import WorkerGone, run_jobs


class Agent:
    """Has some jobs, and keeps what it hears."""

    def __init__(self, *jobs, deadline=60.0):
        self.jobs = list(jobs)
        self.heard = []
        self.fault = None
        self.now = 0.0
        self.budget = SimpleNamespace(clock=lambda: self.now, deadline=deadline)

    def next_job(self):
        """The next one: None is a reason to wait, an empty list the end."""
        if not self.jobs:
            raise StopIteration
        return self.jobs.pop(0)

    def on_event(self, job, event):
        """Hear; a fault is one that ends the search."""
        self.heard.append((job, event))
        if event == "fault":
            self.fault = event

    def on_job_end(self, job, error, *, is_blameless):
        """Hear."""
        self.heard.append((job, error))


class Workers:
    """Some of them; each does one thing at a look, and is then gone."""

    def __init__(self, count=2, event="done", error=None):
        self.free = count
        self.running, self.log = [], []
        self.event, self.gone = event, WorkerGone(error)

    def start(self):
        """Start."""
        self.log.append("start")

    def stop(self):
        """Stop."""
        self.log.append("stop")

    def reserve(self):
        """Whether one is free."""
        return self.free > 0

    def leave_free(self):
        """There is no job."""
        self.log.append("free")

    def submit(self, job):
        """Run."""
        self.free -= 1
        self.running.append(job)
        self.log.append(job)

    def events(self, timeout_s):
        """The first that runs ends."""
        if self.running:
            job = self.running.pop(0)
            yield job, self.event
            self.free += 1
            yield job, self.gone


def test_every_free_worker_gets_a_job_until_there_are_no_more():
    """Events reach the agent in their order, and the executor is stopped."""
    agent, workers = Agent("a", "b", "c"), Workers(2)
    run_jobs(agent, workers, lambda: None)

    assert workers.log == ["start", "a", "b", "c", "stop"]
    assert agent.heard == [("a", "done"), ("a", None), ("b", "done"), ("b", None)]


def test_a_worker_for_which_there_is_no_job_is_left_free():
    """The agent is asked again after the next look."""
    agent, workers = Agent("a", None, "b", None, None), Workers(2, error="it died")
    run_jobs(agent, workers, lambda: None)

    assert workers.log == ["start", "a", "free", "b", "free", "free", "stop"]
    assert agent.heard == [("a", "done"), ("a", "it died"), ("b", "done"), ("b", "it died")]


def test_a_fault_that_all_jobs_share_ends_the_search_at_once():
    """Though there are more jobs, and one runs."""
    agent, workers = Agent("a", "b", "c", "d"), Workers(2, event="fault")
    run_jobs(agent, workers, lambda: None)

    assert workers.log == ["start", "a", "b", "stop"]


def test_a_worker_that_overruns_the_deadline_ends_the_search():
    """It is not waited for; the clock is looked at though nothing happens."""
    agent, workers = Agent("a", *[None] * 99, deadline=10.0), Workers(2)
    workers.events = lambda timeout_s: ()
    ticks = []

    def tick():
        ticks.append(agent.now)
        agent.now += 1.0

    run_jobs(agent, workers, tick)

    assert ticks[-1] == 12.0
    assert workers.log[-1] == "stop"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_stops_the_executor_and_reaches_the_caller(error):
    """A bug of the agent is not taken for one of the executor's."""
    agent, workers = Agent("a", None), Workers()

    def fail():
        raise error

    with pytest.raises(error):
        run_jobs(agent, workers, fail)
    assert workers.log == ["start", "a", "free", "stop"]
