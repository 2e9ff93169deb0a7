"""Runs jobs below Ray Tune. Besides it, `worker_pool` starts Ray and `nodes` looks at a cluster.

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
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from autocut.execution.executor import WorkerGone
from autocut.execution.fork_client import DIED, WorkerDiedError, run_in_fork
from autocut.execution.halves import Halves
from autocut.execution.node_host import NodePlace, run_at
from autocut.execution.nodes import node_selector
from autocut.execution.shared_stages import brought_home
from autocut.execution.worker import run_job
from autocut.execution.worker_pool import WorkerPool, quiet_ray
from autocut.search.jobs import Event, Job, Setting, Waited

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
        home: The study's folder, to which bundles are brought that workers have made elsewhere; None: there are none.
        trains: As in `Halves`.
    """

    def __init__(
        self, setting: Setting, pool: WorkerPool, tell: Callable[[str], None], home: Path | None = None,
        trains: Callable[[Job, bool], bool] = lambda *_: False,
    ) -> None:  # fmt: skip
        self._pool = pool
        self._home = home
        self._tell = tell
        self._channel = _Channel()
        self.is_held_up = False
        self._is_asked = False
        self._running: dict[str, Job | None] = {}
        self._halves = None if pool.nodes is None else Halves(pool.nodes, trains)
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
        """Hold the machine for the next job, if Tune asks for one. On a cluster a job that waits for a node goes first."""
        self._go_on()
        nodes, may_take = self._pool.nodes, self._may_take
        is_wanted = self._is_asked and (nodes is None or (nodes.has_room and self._has_worker) or may_take)
        is_held = is_wanted and self._pool.holds.take(_NEXT) and (nodes is None or nodes.hold() or may_take)
        self.is_held_up = is_wanted and not is_held
        if self._is_asked and not is_held:
            self._let_go()
        return is_held

    def leave_free(self) -> None:
        """Release the hold. The first time, start the worker's process all the same, so that the next job finds it there.

        That is a Tune trial without a job. It can go once Tune starts processes ahead of trials; 2.60 has no option for it.
        """
        if self._may_warm_up and self._running:
            self._may_warm_up = False
            self._begin(_WARM_UP, None)
        else:
            self._let_go()

    def submit(self, job: Job) -> None:
        """Have Tune run `job`. The machine is held until its process reports something."""
        if self._halves is None or self._pool.nodes is None:
            self._begin(_name(job), job)
        elif first := self._halves.begin(job, _name(job)):
            self._pool.nodes.let_go()
            self._begin(_name(job), job, *first)
        elif self._pool.nodes.is_held:
            self._begin(_name(job), job)
        else:
            self._halves.wait(job)
            self._let_go()

    def events(self, timeout_s: float) -> Iterator[tuple[Job, Event | WorkerGone]]:
        """Yield what has happened; also look after the fork server.

        Raises:
            InputError: the fork server does not come up.
        """
        if told := self._pool.look_after():
            self._tell(told)
        yield from self._lost_jobs()
        for job, event in self._received(timeout_s):
            if event is _ASKS:
                self._is_asked = True
                return
            if isinstance(event, Exception):
                raise event
            name = _name(job)
            if self._pool.nodes is not None:
                if name not in self._running:
                    continue  # its node is lost, and the job was given to another one
                self._pool.nodes.release(name)
                job = self._running[name]  # of which Tune may run one half
            if isinstance(event, WorkerGone):
                self._forget(name)
            else:  # not when the process without a job has started: the first job may still be loading
                self._pool.prepare_rest(name)
            self._pool.holds.release(name)
            if job is not None and (heard := self._told(job, event)) is not None:
                yield heard

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

    @property
    def _has_worker(self) -> bool:
        """Whether fewer jobs are under way on the cluster than it has workers: some of them wait for a node."""
        return self._halves is not None and len(self._running) + self._halves.waiting < self._pool.workers

    @property
    def _may_take(self) -> bool:
        """Whether nodes that only train have room for a job."""
        return self._halves is not None and self._has_worker and self._halves.may_take

    def _go_on(self) -> None:
        """Begin the second half of a job, where Tune asks for a job and a node that measures is free."""
        nodes, halves = self._pool.nodes, self._halves
        if nodes is None or halves is None or not (self._is_asked and halves.waiting and nodes.has_room):
            return
        if self._pool.holds.take(_NEXT) and nodes.hold():
            job, left, waited_s = halves.next()
            self._begin(_name(job), job, left)
            self._channel.messages.put((job, Waited(waited_s)))

    def _told(self, job: Job, event: Event | WorkerGone | None) -> tuple[Job, Event | WorkerGone] | None:
        """Return the event of `job` that the agent gets, or None."""
        if self._halves is not None and event is not None:
            event = self._halves.observe(job, event)
        if event is None:
            return None
        return job, event if self._home is None else brought_home(event, self._home)

    def _begin(self, name: str, job: Job | None, part: Job | None = None, place: NodePlace | None = None) -> None:
        """Have Tune run `job`, or this `part` of it, at `place`; None: on the node that is held."""
        nodes = self._pool.nodes
        if nodes is None:
            self._pool.holds.hand_over(_NEXT, name)
        else:  # its node stays held until its process is up
            self._pool.holds.release(_NEXT)
        self._running[name] = job
        self._answer({"job": job} if nodes is None else {"job": part or job, "place": place or nodes.take(name)})

    def _let_go(self) -> None:
        self._pool.holds.release(_NEXT)
        if self._pool.nodes is not None:
            self._pool.nodes.let_go()
        self._answer(None)

    def _forget(self, name: str) -> None:
        self._running.pop(name, None)
        if self._pool.nodes is not None:
            self._pool.nodes.give_back(name)

    def _lost_jobs(self) -> Iterator[tuple[Job, WorkerGone]]:
        """Yield the jobs whose node is lost. Tune has not noticed it, or waits for the node with a trial that has not begun."""
        if self._pool.nodes is None:
            return
        told, lost = self._pool.nodes.look_after()
        for line in told:
            self._tell(line)
        for name in lost:
            job = self._running.pop(name, None)
            self._channel.lost.add(name)
            if job is not None and self._halves is not None:
                self._halves.forget(job)
                yield job, WorkerGone("the node of the worker is lost", is_blameless=True)

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
    lost: set[str] = field(default_factory=set)
    """Names of jobs whose node is gone."""
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
    relays = address is not None or pool.nodes is not None

    # Not at the top of the module: it would be pickled by its name, and Ray's processes would import all of this.
    def trainable(config: dict[str, Any]) -> None:
        def report(event: Event) -> None:
            tune.report({"event": event, "seconds": time.time()})

        job = config["job"]
        if job is None:
            return
        if not relays:
            run_job(job, setting, report)
            return
        try:
            if address is None:
                run_at(config["place"], job, setting, report)
            else:
                run_in_fork(address, partial(run_job, job, setting), report)
        except WorkerDiedError as died:
            tune.report({"died": (str(died), died.is_blameless), "seconds": time.time()})

    return tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1} if pool.nodes is None else partial(_on_its_node, setting.threads)),
        tune_config=tune.TuneConfig(
            search_alg=_JobSearcher(channel, relays=relays),
            scheduler=_KeepingScheduler(channel, pool.workers),
            num_samples=-1,
            max_concurrent_trials=pool.workers,
            # A process that only relays does nothing that could reach the next job. One that runs jobs itself does, so it runs one.
            reuse_actors=relays,
            trial_name_creator=lambda trial: trial.trial_id,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(name="search", storage_path=str(pool.tune_folder), verbose=0),
    )


def _on_its_node(threads: int, config: dict[str, Any]) -> tune.PlacementGroupFactory:
    return tune.PlacementGroupFactory([{"CPU": threads}], bundle_label_selector=[node_selector(config["place"].node)])


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
        self._kept: set[Any] = set()

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        cache, wanted = getattr(tune_controller, "_actor_cache", None), trial.placement_group_factory
        if cache is not None and wanted not in self._kept:  # a cluster has one for each node
            cache.increase_max(wanted, by=self._workers)
            self._kept.add(wanted)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Tune asks this at every step, ten times a second or more."""
        self._channel.leave_if_closed()
        if self._channel.lost:
            self._stop_lost(tune_controller)
        return super().choose_trial_to_run(tune_controller)

    def _stop_lost(self, tune_controller: Any) -> None:
        """Drop the trials that would wait for ever for a node that is gone. Those that have begun, Tune ends by itself."""
        for trial in tune_controller.get_live_trials():
            name = _name(trial.config.get("job"))
            if name in self._channel.lost and trial.status == trial.PENDING:
                self._channel.lost.discard(name)
                tune_controller.request_stop_trial(trial)

    __reduce__ = _not_stored
