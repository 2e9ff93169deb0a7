"""Lets nodes that only train take the first half of a job: the trainings. A node that measures runs the second half.

    job ── submit ──> node that trains ── its models are in the shared folder ──> waits ──> node that measures

The second half is the whole job again: it finds the trained models. A job without a training, for which no node that measures is
free, waits as well. To the agent a job stays one job from its submission to the end of its second half.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from autocut.execution.executor import WorkerGone
from autocut.execution.node_host import NodePlace
from autocut.execution.nodes import Nodes
from autocut.recipe import Recipe
from autocut.search import jobs
from autocut.search.jobs import Event, Job, JobKind


@dataclass
class _Half:
    """A job whose first half runs, or that waits. `failed` are the recipes that its first half has ended already."""

    job: Job
    has_trained: bool
    failed: set[Recipe] = field(default_factory=set)
    since: float = 0.0


class Halves:
    """The jobs of a cluster that are in their first half, or wait for a node that measures.

    Args:
        nodes: Of the cluster.
        trains: Whether to run the trainings of a job first: (the job, whether a node that measures is free) -> bool.
    """

    def __init__(self, nodes: Nodes, trains: Callable[[Job, bool], bool]) -> None:
        self._nodes = nodes
        self._trains = trains
        self._training: dict[int, _Half] = {}
        self._waiting: dict[int, _Half] = {}

    @property
    def waiting(self) -> int:
        """How many jobs wait for a node that measures."""
        return len(self._waiting)

    @property
    def may_take(self) -> bool:
        """Whether to take a job while no node that measures is free.

        At most one waits without a training of its own: the agent decides better the later it decides.
        """
        return self._nodes.has_room_to_train and all(half.has_trained for half in self._waiting.values())

    def begin(self, job: Job, name: str) -> tuple[Job, NodePlace] | None:
        """Return the first half of `job` and its place; None if the job has none, or no node has room for it."""
        if not self._nodes.has_room_to_train or not self._trains(job, self._nodes.is_held):
            return None
        self._training[job.number] = _Half(job, has_trained=True)
        return replace(job, kind=JobKind.TRAIN), self._nodes.take_to_train(name)

    def wait(self, job: Job) -> None:
        """Have `job`, which has no first half, wait for a node that measures."""
        self._waiting[job.number] = _Half(job, has_trained=False, since=time.monotonic())

    def next(self) -> tuple[Job, Job, float]:
        """Return the job that has waited longest, what is left of it to run, and for how many seconds it has waited."""
        half = self._waiting.pop(next(iter(self._waiting)))
        left = tuple(recipe for recipe in half.job.recipes if recipe not in half.failed)
        return half.job, replace(half.job, recipes=left), time.monotonic() - half.since

    def observe(self, job: Job, event: Event | WorkerGone) -> Event | WorkerGone | None:
        """Take in an event of a job. Return the event that the agent gets, or None."""
        half = self._training.get(job.number)
        if half is None:
            return event
        match event:
            case WorkerGone(error=None):
                del self._training[job.number]
                if half.failed.issuperset(job.recipes):
                    return event
                half.since = time.monotonic()
                self._waiting[job.number] = half
                return None
            case WorkerGone():
                del self._training[job.number]
            case jobs.JobEnded():
                return None  # the last word of a job comes once
            case jobs.RecipeFailed():
                half.failed.add(event.recipe)
        return event

    def forget(self, job: Job) -> None:
        """Take in that `job` is lost with its node."""
        self._training.pop(job.number, None)
