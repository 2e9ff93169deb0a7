"""Runs jobs below Ray Tune. The only module besides `worker_pool` that imports Ray.

The study database is the only truth and Tune's own state is disposable: it goes to a temporary folder, and a resumed search starts
a fresh `Tuner`. Each job is a Tune trial. `TuneConfig.time_budget_s` is not used: it overshoots by ten seconds (FACTS section 4).

Tune has a thread of its own, where no code of the agent runs: it sends events, asks for a job when a worker is free, and waits for
the answer. A trivial job starts 52 to 60 ms after the end of the one before it, 90% within 64 to 83 ms. When Tune called the agent
itself it was 55 to 56 ms, 90% within 66 ms (2026-11-28, medians of 50 jobs, two workers, two busy cores, by turns).
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from autocut.execution.executor import WorkerGone
from autocut.execution.fork_client import DIED, WorkerDiedError, run_in_fork
from autocut.execution.worker import run_job
from autocut.execution.worker_pool import WorkerPool, quiet_ray
from autocut.search.jobs import Event, Job, Setting

_NEXT = "the next job"
_WARM_UP = "the process for a later job"
_ASKS = "Tune asks for a job"
_LEAVE_S = 5.0
"""Tune's thread leaves at its next step, which comes within 0.1 s. Ray is ended after this time in any case."""


class TuneExecutor:
    """Runs jobs on the Ray of `pool`, which it ends.

    Args:
        setting: What every worker needs to know.
        pool: Has started its Ray.
        tell: Takes lines for the user.
    """

    def __init__(self, setting: Setting, pool: WorkerPool, tell: Callable[[str], None]) -> None:
        self._pool = pool
        self._tell = tell
        self._channel = _Channel()
        self.is_held_up = False
        self._is_asked = False
        self._running: set[str] = set()
        # Ray's process for a second job takes seconds to start. It can be kept for later only where it runs no job itself.
        self._may_warm_up = pool.fork_server is not None and pool.workers > 1
        self._thread = threading.Thread(target=_run_tune, args=(self._channel, setting, pool), name="ray-tune", daemon=True)
        self._stack = contextlib.ExitStack()

    def start(self) -> None:
        """Start Tune. Other searches may time from now on, unless the fork server still imports."""
        self._pool.open()
        self._stack.enter_context(quiet_ray())
        self._stack.callback(self._pool.stop_ray)
        self._thread.start()

    def reserve(self) -> bool:
        """Hold the machine for the next job, if Tune asks for one."""
        self.is_held_up = self._is_asked and not self._pool.holds.take(_NEXT)
        if self.is_held_up:
            self._answer(None)
            return False
        return self._is_asked

    def leave_free(self) -> None:
        """Release the hold. The first time, start the worker's process all the same, so that the next job finds it there.

        That is a Tune trial without a job. It can go once Tune starts processes ahead of trials; 2.60 has no option for it.
        """
        if self._may_warm_up and self._running:
            self._may_warm_up = False
            self._begin(_WARM_UP, None)
        else:
            self._pool.holds.release(_NEXT)
            self._answer(None)

    def submit(self, job: Job) -> None:
        """Have Tune run `job`. The machine is held until its process reports something."""
        self._begin(_name(job), job)

    def events(self, timeout_s: float) -> Iterator[tuple[Job, Event | WorkerGone]]:
        """Yield what has happened; also look after the fork server.

        Raises:
            InputError: the fork server does not come up.
        """
        if told := self._pool.look_after():
            self._tell(told)
        for job, event in self._received(timeout_s):
            if event is _ASKS:
                self._is_asked = True
                return
            if isinstance(event, Exception):
                raise event
            name = _name(job)
            if isinstance(event, WorkerGone):
                self._running.discard(name)
            else:  # not when the process without a job has started: the first job may still be loading
                self._pool.prepare_rest(name)
            self._pool.holds.release(name)
            if job is not None and event is not None:
                yield job, event

    def stop(self) -> None:
        """End Tune's thread, then Ray and its processes: Ray must not end while another thread is inside its C++ code."""
        with self._stack:
            self._channel.is_closed = True
            self._channel.answers.put(None)
            self._pool.holds.release(_NEXT)
            if self._thread.is_alive():
                self._thread.join(_LEAVE_S)

    def _received(self, timeout_s: float) -> Iterator[tuple[Job | None, Any]]:
        with contextlib.suppress(queue.Empty):
            yield self._channel.messages.get(timeout=timeout_s)
            while True:
                yield self._channel.messages.get_nowait()

    def _begin(self, name: str, job: Job | None) -> None:
        self._pool.holds.hand_over(_NEXT, name)
        self._running.add(name)
        self._answer({"job": job})

    def _answer(self, trial: dict[str, Any] | None) -> None:
        """Give Tune the trial that it asked for, or none. Where nothing runs, Tune would ask again after a second: let it wait."""
        if trial is not None or self._running:
            self._is_asked = False
            self._channel.answers.put(trial)


def _name(job: Job | None) -> str:
    return _WARM_UP if job is None else f"job {job.number}"


@dataclass
class _Channel:
    """Between the driver's thread and Tune's. Tune's calls the methods."""

    messages: queue.SimpleQueue[tuple[Job | None, Any]] = field(default_factory=queue.SimpleQueue)
    """An event of a job; without a job: `_ASKS`, or the error that Tune ended with."""
    answers: queue.SimpleQueue[dict[str, Any] | None] = field(default_factory=queue.SimpleQueue)
    is_closed: bool = False

    def send(self, job: Job | None, event: Any) -> None:
        """Tell the driver."""
        self.leave_if_closed()
        self.messages.put((job, event))

    def ask(self) -> dict[str, Any] | None:
        """Wait for the driver's answer: the next trial's settings, or None while there is none."""
        self.send(None, _ASKS)
        answer = self.answers.get()
        self.leave_if_closed()
        return answer

    def leave_if_closed(self) -> None:
        """End this thread when the search is over.

        Raises:
            SystemExit: it is. Python ends a thread with it, and it passes Tune's handlers. Those catch every `Exception`, and then
                wait up to ten seconds for workers (2.60). It can go once Tune can be ended without that wait.
        """
        if self.is_closed:
            raise SystemExit


def _run_tune(channel: _Channel, setting: Setting, pool: WorkerPool) -> None:
    try:
        _tuner(channel, setting, pool).fit()
        raise RuntimeError("Ray Tune must run until the search is over, but ended by itself")
    except SystemExit:
        return  # see `_Channel.leave_if_closed`
    except Exception as error:
        channel.messages.put((None, error))


def _tuner(channel: _Channel, setting: Setting, pool: WorkerPool) -> tune.Tuner:
    address = pool.fork_server.address if pool.fork_server else None

    # Not at the top of the module: it would be pickled by its name, and Ray's processes would import all of this.
    def trainable(config: dict[str, Any]) -> None:
        def report(event: Event) -> None:
            tune.report({"event": event, "seconds": time.time()})

        if config["job"] is None:
            return
        run = partial(run_job, config["job"], setting)
        if address is None:
            run(report)
            return
        try:
            run_in_fork(address, run, report)
        except WorkerDiedError as died:
            tune.report({"died": (str(died), died.is_blameless), "seconds": time.time()})

    return tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=_JobSearcher(channel, relays=address is not None),
            scheduler=_KeepingScheduler(channel, pool.workers),
            num_samples=-1,
            max_concurrent_trials=pool.workers,
            # A process that only relays does nothing that could reach the next job. One that runs jobs itself does, so it runs one.
            reuse_actors=address is not None,
            trial_name_creator=lambda trial: trial.trial_id,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(name="search", storage_path=str(pool.scratch), verbose=0),
    )


def _not_stored(self: object) -> tuple[type[str], tuple[str]]:
    """Stand in for what Tune would pickle into its own state, which is never read."""
    return str, (type(self).__name__,)


class _JobSearcher(Searcher):
    """Asks the driver for jobs, and sends it what Tune says of them.

    `relays` says that Tune's processes only relay. One that dies is not the fault of its job.
    """

    def __init__(self, channel: _Channel, *, relays: bool) -> None:
        super().__init__(metric="seconds", mode="min")
        self._channel = channel
        self._relays = relays
        self._jobs: dict[str, Job | None] = {}
        self._deaths: dict[str, WorkerGone] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        trial = self._channel.ask()
        if trial is not None:
            self._jobs[trial_id] = trial["job"]
        return trial

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if trial_id not in self._jobs:  # a result after the trial's end is not a fault of the search
            return
        if died := result.get("died"):
            self._deaths[trial_id] = WorkerGone(*died)
        else:
            self._channel.send(self._jobs[trial_id], result.get("event"))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:  # noqa: ARG002
        # `result` is the last one again.
        by_itself = WorkerGone(DIED, is_blameless=self._relays) if error else WorkerGone(None)
        self._channel.send(self._jobs.pop(trial_id), self._deaths.pop(trial_id, by_itself))

    def save(self, checkpoint_path: str) -> None:
        """Tune's state is disposable."""

    def restore(self, checkpoint_path: str) -> None:
        """Tune's state is disposable."""

    __reduce__ = _not_stored


class _KeepingScheduler(FIFOScheduler):
    """Keeps Ray's process of every worker for its next job, however many of them have nothing to do meanwhile.

    Tune alone keeps one of those that are idle and ends the others (2.60); starting another one takes 3 to 10 seconds. It has
    no option for it, so this uses its private cache: where a later version calls that by another name, searches lose those seconds
    and nothing else. An option to keep as many processes as `max_concurrent_trials` would let this go.
    """

    def __init__(self, channel: _Channel, workers: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Ray's own __init__ has no types
        self._channel = channel
        self._workers = workers

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        cache = getattr(tune_controller, "_actor_cache", None)
        if cache is not None:
            cache.increase_max(trial.placement_group_factory, by=self._workers)
            self._workers = 0

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Tune asks this at every step, ten times a second or more."""
        self._channel.leave_if_closed()
        return super().choose_trial_to_run(tune_controller)

    __reduce__ = _not_stored
