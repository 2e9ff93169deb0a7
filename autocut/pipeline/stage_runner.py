"""Finds or makes the stages of one worker process, through the stage cache, on a machine that it shares with other processes.

Work holds the shared side of the quiet lock, timing holds its exclusive side. The time that a process waits for either is charged
to no stage.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from autocut.errors import TrialError
from autocut.measure.quiet import QuietLock
from autocut.measurement import Rung
from autocut.pipeline.samples import Samples
from autocut.pipeline.stage_cache import Entry, StageCache, stage_key
from autocut.precision import CONTIGUOUS, FULL
from autocut.search.jobs import ModelLoaded, ScoringPlan, StageBroke, StageRan, StageStarted, TrainingPaced, Waited
from autocut.stages.calibration import asides
from autocut.stages.cpu_time import cpu_seconds
from autocut.stages.libraries import library_versions
from autocut.stages.train import CPU, Device
from autocut.task.task import Task

PipelineEvent = StageStarted | StageRan | StageBroke | Waited | ModelLoaded | TrainingPaced | Rung
EventSink = Callable[[PipelineEvent], None]
Facts = Mapping[str, Any]

T = TypeVar("T")

_CPU = "cpu_seconds"
DEVICE = "device"
"""The fact of a stage that a GPU has computed: the kind of device."""
_TOLD_WAIT_S = 0.1
"""Shorter waits are told at the end of the job, all together: a message takes about as long."""


@dataclass(frozen=True)
class Stage(Generic[T]):
    """One step of a recipe, whose output is stored under `key`.

    `name` and `method` are its names in the study's tables, `category` its line in the ledger. `prepare()` returns what the stage
    starts from, made by stages of its own. It is called only if the stage must be made, and ends before the stage begins, so no
    second is counted twice. `make(folder, prepared)` writes the output to `folder` and returns facts about it, all of them JSON.
    """

    name: str
    method: str
    category: str
    key: str
    prepare: Callable[[], T]
    make: Callable[[Path, T], Facts | None]


@dataclass(frozen=True, eq=False)
class StageContext:
    """What all stages of one worker process share.

    `seed` decides all training, `threads` is the number that models are timed with. When `stop()` turns true, work ends at the next
    batch boundary with `DeadlineError`. `untouched_epochs` are those of the untouched model; None: as many as the task says.
    `scoring` says how models are scored where that is slow; a model that is surely more than `max_drop` below the untouched one is
    then not scored to the end. `device` is where models are trained, and `served_on` where they are scored and timed.
    """

    task: Task
    cache: StageCache
    quiet: QuietLock
    seed: int = 0
    threads: int = 1
    stop: Callable[[], bool] = lambda: False
    untouched_epochs: int | None = None
    scoring: ScoringPlan | None = None
    max_drop: float | None = None
    device: Device = CPU
    served_on: Device = CPU

    @cached_property
    def samples(self) -> Samples:
        """A few batches of the training split."""
        return Samples(self.task, self.seed)


class StageRunner:
    """Finds or makes stages. `report` gets a `StageRan` for each, or a `StageBroke` where a stage ended without an output.

    A stage that must be made is a `StageStarted` before that. A `Waited` tells how long this process waited since the last one.
    Stages report to it too: a `Rung` after each epoch of a training, a `ModelLoaded` when a model was loaded to be scored.
    """

    def __init__(self, context: StageContext, report: EventSink = lambda _: None) -> None:
        self.context = context
        self.report = report
        self.cache = context.cache.gated(self.working)
        self._waited_s, self._told_waited_s = 0.0, 0.0

    @property
    def waited_s(self) -> float:
        """Seconds spent waiting: for the machine, and for other processes that were making the same stage."""
        return self._waited_s + self.cache.waited_s

    def key(self, parent: str, name: str, settings: Mapping[str, Any], **versions: Any) -> str:
        """Return the key of the stage `name` after the stage `parent`, for this task and seed and these library versions."""
        task, seed = self.context.task.fingerprint, self.context.seed
        return stage_key(parent, name, settings, task=task, libraries=library_versions(), seed=seed, **versions)

    @property
    def trained_on(self) -> dict[str, str]:
        """What keys of stages that train name beside all else: device, precision, memory format. Plain ones were never named."""
        device = self.context.device
        named = {} if device.is_cpu else {DEVICE: device.kind}
        named |= {} if device.precision == FULL else {"precision": device.precision}
        return named if device.memory_format == CONTIGUOUS else {**named, "memory_format": device.memory_format}

    @property
    def served_on(self) -> dict[str, str]:
        """What keys of measurements name that name no lowering: the device that serves, but for the CPU, which no key has named."""
        device = self.context.served_on
        return {} if device.is_cpu else {"served_on": device.described}

    @contextlib.contextmanager
    def training(self) -> Iterator[Device]:
        """Give the device that trains. A GPU is this process's alone meanwhile: two trainings might not fit in its memory.

        Others work and time on the CPU. Who computes on the GPU still shares the machine with them, batch by batch: `working`.

        Raises:
            InputError: the GPU cannot be opened in this process.
            DeadlineError: `stop()` turned true while this process waited for the GPU.
        """
        device, quiet = self.context.device, self.context.quiet
        if device.is_cpu:
            yield device
            return
        with self.working():
            device.open()
        with self._holding(quiet.gpu(device.identity, stop=self.context.stop)):
            try:
                with device.exact():
                    yield device
            finally:
                device.release()

    def run(self, stage: Stage[T]) -> Entry:
        """Return the output of `stage`, made now if the cache does not have it. Errors of its `prepare` and `make` pass through."""
        entry = self.cache.find(stage.key) or self._make(stage, stage.prepare())
        facts = entry.facts
        self.tell_waiting()
        self.report(
            StageRan(
                entry.key,
                entry.stage,
                entry.method,
                entry.seconds,
                entry.cached,
                stage.category,
                samples_seen=int(facts.get("fresh_samples", 0)),
                borrowed_s=float(facts.get("borrowed_s", 0.0)),
                saved_s=float(facts.get("saved_s", 0.0)),
            )
        )
        self.cache.checkpoint(stage.key).unlink(missing_ok=True)  # only now is the output safe
        return entry

    def working(self) -> AbstractContextManager[None]:
        """Share the machine with others that work. Nothing is timed meanwhile."""
        return self._holding(self.context.quiet.shared())

    def alone(self) -> AbstractContextManager[None]:
        """Have the machine alone, to time something. `DeadlineError` if `stop()` turned true while this process waited for it."""
        return self._holding(self.context.quiet.exclusive(stop=self.context.stop))

    @contextlib.contextmanager
    def working_in_steps(self) -> Iterator[None]:
        """Do work that takes long, as in `working`. Between two steps, a process that waits to be alone goes first."""
        with self.working(), asides(self._step_aside):
            yield

    def _step_aside(self) -> None:
        started = time.perf_counter()
        self.context.quiet.step_aside()
        self._waited_s += time.perf_counter() - started

    def _make(self, stage: Stage[T], prepared: T) -> Entry:
        self.tell_waiting()
        self.report(StageStarted(stage.name, stage.method, stage.category, stage.key))
        started = self.work_clock()
        try:
            return self.cache.get_or_make(
                stage.key, stage.name, stage.method, partial(_make_charged, stage, prepared), clock=self.work_clock
            )
        except TrialError:
            self.tell_waiting()
            self.report(StageBroke(self.work_clock() - started, stage.category))
            raise

    @contextlib.contextmanager
    def _holding(self, lock: AbstractContextManager[None]) -> Iterator[None]:
        started = time.perf_counter()
        with lock:
            self._waited_s += time.perf_counter() - started
            yield

    def tell_waiting(self) -> None:
        """Report the seconds of waiting since the last report of them."""
        if (waited_s := self.waited_s - self._told_waited_s) > _TOLD_WAIT_S:
            self._told_waited_s += waited_s
            self.report(Waited(waited_s))

    def work_clock(self) -> float:
        """Return a clock's reading in seconds. The clock stands still while this process waits."""
        return time.perf_counter() - self.waited_s


def charged_s(entry: Entry, threads: int) -> float:
    """Return the seconds that a model is charged for a stage of its training: what it takes one process with `threads` threads.

    They are its CPU seconds by thread, because its wall seconds depend on what other workers did meanwhile. A stage of an earlier
    autocut has wall seconds alone. What a GPU has computed for one process alone is charged by its wall seconds too.
    """
    cpu: float | None = entry.facts.get(_CPU)
    return entry.seconds if cpu is None or DEVICE in entry.facts else cpu / threads


def _make_charged(stage: Stage[T], prepared: T, folder: Path) -> Facts:
    """Make a stage. One that makes a model's weights notes its CPU seconds, where it does not know better."""
    started = cpu_seconds()
    facts = stage.make(folder, prepared) or {}
    return {_CPU: cpu_seconds() - started, **facts} if stage.category == "training" else facts
