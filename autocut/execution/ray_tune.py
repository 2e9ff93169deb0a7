"""Ray Tune runs what the agent decides. The only room besides `workplace` that imports Ray.

Tune's own experiment state is disposable: the study database is the only truth, a resumed search starts a fresh `Tuner`, and
Tune's files go to a temporary folder. Each job is a Tune trial with a process of its own, so that an out-of-memory kill, a crash
or a leak cannot reach the next one. `TuneConfig.time_budget_s` is not used: it overshoots by ten seconds (FACTS section 4). Workers
keep the deadline themselves, and the callback below ends the run if one of them does not.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from autocut.execution.fork_client import DIED, run_in_fork
from autocut.execution.worker import run_job
from autocut.execution.worker_pool import Workplace, quiet_ray
from autocut.search.agent import Agent
from autocut.search.jobs import Event, Job, Setting

_OVERDUE_S = 2.5


class _StopNow(BaseException):
    """Ends the run past Tune's own handlers, which would first wait for every worker. `cause`: an error of the driver, or None."""

    def __init__(self, cause: Exception | None = None) -> None:
        super().__init__()
        self.cause = cause


@contextlib.contextmanager
def _errors_kept() -> Iterator[None]:
    """Tune turns exceptions of its callbacks into text, or swallows them; ours must reach the user as what they are."""
    try:
        yield
    except Exception as error:
        raise _StopNow(error) from error


def run_with_ray(agent: Agent, setting: Setting, place: Workplace, on_tick: Callable[[], None]) -> None:
    """Run the jobs of `agent` on the Ray of `place` until it has no more.

    Args:
        agent: Decides; it is asked from this thread alone.
        setting: What every worker needs to know.
        place: With its Ray started, which is ended here.
        on_tick: Called several times a second, from this thread. `sys.stdout` and `sys.stderr` lead nowhere meanwhile.
    """
    place.open()
    with quiet_ray():
        try:
            _tuner(_Desk(agent, on_tick, place), setting, place).fit()
        except _StopNow as stop:
            if stop.cause is not None:
                raise stop.cause from None
        finally:
            place.stop_ray()


def _tuner(desk: _Desk, setting: Setting, place: Workplace) -> Any:
    """Tune, set up to ask `desk` for every trial and to tell it everything."""
    from ray import tune

    address = place.forks.address if place.forks else None

    def trainable(config: dict[str, Any]) -> None:
        def report(event: Event) -> None:
            tune.report({"event": event, "seconds": time.time()})

        if config["job"] is None:
            return  # it was about starting this process
        run = partial(run_job, config["job"], setting)
        if address is None:
            run(report)
        else:
            run_in_fork(address, run, report)

    return tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=_searcher(desk),
            scheduler=_scheduler(place.workers),
            num_samples=-1,
            max_concurrent_trials=place.workers,
            # A relay does nothing that could reach the next job; a process that runs jobs itself does, so it runs one.
            reuse_actors=address is not None,
            trial_name_creator=lambda trial: trial.trial_id,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="search",
            storage_path=str(place.scratch),
            verbose=0,
            callbacks=[_ticker(desk)],
            failure_config=tune.FailureConfig(max_failures=0),
        ),
    )


def _searcher(desk: _Desk) -> Any:
    from ray.tune.search import Searcher

    class AgentSearcher(Searcher):
        """Hands the agent's jobs to Tune."""

        def __init__(self) -> None:
            super().__init__(metric="seconds", mode="min")

        def suggest(self, trial_id: str) -> Any:
            with _errors_kept():
                try:
                    job = desk.take_job(trial_id)
                except StopIteration:
                    return Searcher.FINISHED
                if job is None and not desk.warms_up(trial_id):
                    return None
            return {"job": job}

        def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
            with _errors_kept():
                desk.deliver(trial_id, result.get("event"))

        def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:  # noqa: ARG002
            # `result` is the last one again, which has been delivered.
            with _errors_kept():
                desk.end(trial_id, DIED if error else None)

        def save(self, checkpoint_path: str) -> None:
            """Tune's state is disposable."""

        def restore(self, checkpoint_path: str) -> None:
            """Tune's state is disposable."""

        __reduce__ = _not_stored

    return AgentSearcher()


def _scheduler(workers: int) -> Any:
    from ray.tune.schedulers import FIFOScheduler

    class KeepingScheduler(FIFOScheduler):
        """Keeps Ray's process of every worker for its next job, however many of them have nothing to do meanwhile.

        Tune alone keeps one of those that are idle and ends the others (2.60); starting another one takes 3 to 10 seconds. It has
        no option for it: where a later version calls its cache by another name, searches lose those seconds and nothing else.
        """

        _has_told = False

        def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
            cache = getattr(tune_controller, "_actor_cache", None)
            if cache is not None and not self._has_told:
                cache.increase_max(trial.placement_group_factory, by=workers)
                self._has_told = True

        __reduce__ = _not_stored

    return KeepingScheduler()  # type: ignore[no-untyped-call]  # Ray's own __init__ has no types


def _ticker(desk: _Desk) -> Any:
    from ray import tune

    class Ticker(tune.Callback):
        """Keeps the clock while Tune has the thread."""

        def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:  # noqa: ARG002
            with _errors_kept():
                desk.tick()

        __reduce__ = _not_stored

    return Ticker()


class _Desk:
    """Between Tune and the agent: which trial runs which job, and who holds the machine for it."""

    def __init__(self, agent: Agent, on_tick: Callable[[], None], place: Workplace) -> None:
        self._agent = agent
        self._on_tick = on_tick
        self._place = place
        self._starts = place.starts
        self._jobs: dict[str, Job] = {}
        # Ray's process for a second job takes seconds to start. It can be kept for later only where it runs no job itself.
        self._may_warm_up = place.forks is not None and place.workers > 1

    def take_job(self, trial_id: str) -> Job | None:
        """Return what the trial is to do; None while there is nothing, or somebody times.

        Raises:
            StopIteration: the search is over.
        """
        self._stop_if_over()
        if not self._starts.take(trial_id):
            return None
        job = None
        try:
            job = self._agent.next_job()
        finally:
            if job is None:
                self._starts.release(trial_id)
        if job is not None:
            self._jobs[trial_id] = job
        return job

    def warms_up(self, trial_id: str) -> bool:
        """Whether the trial, for which there is no job, is to start its process all the same, for the job that comes next."""
        if not self._may_warm_up or not self._jobs or not self._starts.take(trial_id):
            return False
        self._may_warm_up = False
        return True

    def deliver(self, trial_id: str, event: Event | None) -> None:
        """Take in what a worker reports."""
        if self._place.forks:
            self._place.forks.go_on(trial_id)
        self._starts.release(trial_id)
        if event is not None:
            self._agent.on_event(self._jobs[trial_id], event)

    def end(self, trial_id: str, error: str | None) -> None:
        """Take in that a trial is over."""
        self._starts.release(trial_id)
        if trial_id in self._jobs:
            self._agent.on_job_end(self._jobs[trial_id], error)

    def tick(self) -> None:
        """Look after the clock, the fork server and the screen."""
        if self._place.forks and (told := self._place.forks.keep()):
            self._agent.progress.lines.append(told)
        self._stop_if_over()
        self._on_tick()

    def _stop_if_over(self) -> None:
        """A worker that does not end by itself at the deadline, and a fault that all share, end the run at once."""
        budget = self._agent.budget
        if self._agent.fault is not None or budget.clock() > budget.deadline + _OVERDUE_S:
            raise _StopNow


def _not_stored(self: object) -> tuple[type[str], tuple[str]]:
    """Stand in for what Tune would pickle into its own state, which nobody ever reads."""
    return str, (type(self).__name__,)
