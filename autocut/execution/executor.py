"""What runs jobs, and the loop between it and the agent.

An `Executor` runs jobs in worker processes and says what happens to them. `ray_tune` has the one of today: forked processes on one
machine, Ray's own processes on a cluster. The loop here is all that a new executor, such as plain Ray actors, has to serve.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from autocut.search.agent import Agent
from autocut.search.jobs import Event, Job

_LOOK_S = 0.1
"""The clock, the fork server and the screen are looked at this often, however little happens."""
_OVERDUE_S = 2.5
"""Workers keep the deadline themselves. Those that still run this long after it are stopped."""


@dataclass(frozen=True)
class WorkerGone:
    """The last thing that happens to a job: its worker has ended. `error` says how it died; None: it ended by itself.

    `is_blameless` says that the job did not end it: it was killed from outside, or with the process that it was forked from.
    """

    error: str | None
    is_blameless: bool = False


class Executor(Protocol):
    """Runs jobs, each in a process of its own. All methods are called from one thread."""

    @property
    def is_held_up(self) -> bool:
        """Whether the last `reserve` found a free worker that may not start, because a search measures time on this machine."""

    def start(self) -> None:
        """Begin; until `stop`, `sys.stdout` and `sys.stderr` may lead nowhere."""

    def reserve(self) -> bool:
        """Hold a free worker for the next job; False while there is none, or while a search measures time on this machine.

        No measurement begins before `submit` or `leave_free`, nor before the process of a submitted job has started.
        """

    def leave_free(self) -> None:
        """Give the reserved worker back: there is no job for it now."""

    def submit(self, job: Job) -> None:
        """Run `job` on the reserved worker."""

    def events(self, timeout_s: float) -> Iterable[tuple[Job, Event | WorkerGone]]:
        """Yield what has happened, in its order; wait up to `timeout_s` for the first event."""

    def stop(self) -> None:
        """End every worker at once, finished or not."""


def run_jobs(agent: Agent, executor: Executor, on_tick: Callable[[], None]) -> None:
    """Run the jobs of `agent` until it has no more, its time is over, or a fault ends the search.

    Args:
        agent: Decides what runs. All its methods are called from this thread.
        executor: Not started yet; it is stopped here, however this ends.
        on_tick: Called several times a second.
    """
    try:
        executor.start()
        while not _is_over(agent) and _submit_jobs(agent, executor):
            on_tick()
            for job, event in executor.events(_LOOK_S):
                if isinstance(event, WorkerGone):
                    agent.on_job_end(job, event.error, is_blameless=event.is_blameless)
                else:
                    agent.on_event(job, event)
    finally:
        executor.stop()


def _is_over(agent: Agent) -> bool:
    return agent.fault is not None or agent.budget.clock() > agent.budget.deadline + _OVERDUE_S


def _submit_jobs(agent: Agent, executor: Executor) -> bool:
    """Give every free worker a job while the agent has any; False when it never has one again."""
    while executor.reserve():
        try:
            job = agent.next_job()
        except StopIteration:
            return False
        if job is None:
            executor.leave_free()
            break
        executor.submit(job)
    return True
