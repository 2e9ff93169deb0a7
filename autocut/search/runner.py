"""Ray Tune runs what the agent decides. The only room that imports Ray.

Tune's own experiment state is disposable: the study database is the only truth, a resumed search starts a fresh `Tuner`, and
Tune's files go to a temporary folder. Each job is a Tune trial with a process of its own, so that an out-of-memory kill, a crash
or a leak cannot reach the next one. `TuneConfig.time_budget_s` is not used: it overshoots by ten seconds (FACTS section 4). Workers
keep the deadline themselves, and the callback below ends the run if one of them does not.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from autocut.errors import DeadlineError, InputError
from autocut.measure.quiet import QuietLock
from autocut.search.agent import Agent
from autocut.search.jobs import Event, Job, Setting
from autocut.search.relay import run_in_fork
from autocut.search.server_process import ServerProcess, is_supported
from autocut.search.worker import run_job

_ENVIRONMENT = {
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_FORCE_TRIAL_CLEANUP_S": "10",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_RESULT_BUFFER_LENGTH": "0",
}
_OVERDUE_S = 2.5
_TRY_S = 0.002
_STARTS = 3
"""Starts of the fork server in a row that may end before it is ready."""
_FORKS = "fork server"
_DIED = "the worker process died: killed, out of memory, or crashed"


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


def run_with_ray(agent: Agent, setting: Setting, *, workers: int, ray_address: str | None, on_tick: Callable[[], None]) -> None:
    """Run the jobs of `agent` on Ray until it has no more.

    On this machine each job's process is forked from one that has imported everything (`fork_server`), and Ray's own processes
    only relay. On a cluster, or where the system cannot fork safely, each job runs in a fresh process of Ray's instead, which
    takes several seconds to start.

    Args:
        agent: Decides; it is asked from this thread alone.
        setting: What every worker needs to know.
        workers: Jobs at a time.
        ray_address: Of a running cluster; None starts a Ray on this machine and stops it at the end.
        on_tick: Called several times a second, from this thread. `sys.stdout` and `sys.stderr` lead nowhere meanwhile.
    """
    _prepare_environment(setting.threads)
    import ray

    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="autocut-tune-", ignore_cleanup_errors=True)))
        stack.enter_context(_quiet_ray())
        forks = None if ray_address or not is_supported() else stack.enter_context(_fork_server(setting))
        desk = _Desk(agent, on_tick, forks)
        desk.keep_forks()  # it imports while Ray starts
        _start_ray(ray, workers, ray_address, scratch)
        try:
            _tuner(desk, setting, workers, scratch).fit()
        except _StopNow as stop:
            if stop.cause is not None:
                raise stop.cause from None
        finally:
            ray.shutdown()


def _tuner(desk: _Desk, setting: Setting, workers: int, scratch: Path) -> Any:
    """Tune, set up to ask `desk` for every trial and to tell it everything."""
    from ray import tune

    address = desk.forks.address if desk.forks else None

    def trainable(config: dict[str, Any]) -> None:
        def report(event: Event) -> None:
            tune.report({"event": event, "seconds": time.time()})

        if address is None:
            run_job(config["job"], setting, report)
        else:
            run_in_fork(address, config["job"], setting, report)

    return tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=_searcher(desk),
            num_samples=-1,
            max_concurrent_trials=workers,
            # A relay does nothing that could reach the next job; a process that runs jobs itself does, so it runs one.
            reuse_actors=address is not None,
            trial_name_creator=lambda trial: trial.trial_id,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="search",
            storage_path=str(scratch),
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
            return None if job is None else {"job": job}

        def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
            with _errors_kept():
                desk.deliver(trial_id, result.get("event"))

        def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:  # noqa: ARG002
            # `result` is the last one again, which has been delivered.
            with _errors_kept():
                desk.end(trial_id, _DIED if error else None)

        def save(self, checkpoint_path: str) -> None:
            """Tune's state is disposable."""

        def restore(self, checkpoint_path: str) -> None:
            """Tune's state is disposable."""

        __reduce__ = _not_stored

    return AgentSearcher()


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
    """Between Tune and the agent: which trial runs which job, who holds the machine for it, and whether the fork server lives."""

    def __init__(self, agent: Agent, on_tick: Callable[[], None], forks: ServerProcess | None) -> None:
        self.forks = forks
        self._agent = agent
        self._on_tick = on_tick
        self._starts = _Starts()
        self._jobs: dict[str, Job] = {}

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

    def deliver(self, trial_id: str, event: Event | None) -> None:
        """Take in what a worker reports."""
        self._starts.release(trial_id)
        if event is not None:
            self._agent.on_event(self._jobs[trial_id], event)

    def end(self, trial_id: str, error: str | None) -> None:
        """Take in that a trial is over."""
        self._starts.release(trial_id)
        self._agent.on_job_end(self._jobs[trial_id], error)

    def tick(self) -> None:
        """Look after the clock, the fork server and the screen."""
        self._stop_if_over()
        self.keep_forks()
        self._on_tick()

    def keep_forks(self) -> None:
        """Start the fork server, again should it have died, while nobody times; its jobs died with it, and the agent knows.

        Raises:
            InputError: it does not come up.
        """
        forks = self.forks
        if forks is None:
            return
        if forks.is_running:
            if forks.is_ready:
                self._starts.release(_FORKS)
            return
        self._starts.release(_FORKS)
        if (how := forks.how_it_ended) and forks.failed_starts >= _STARTS:
            raise InputError(f"the process that workers are forked from must start, but ended: {how}", "autocut check")
        if self._starts.take(_FORKS):
            if how:
                self._agent.progress.lines.append(f"workers: the process that they are forked from ended, {how}: starting it again")
            forks.start()

    def _stop_if_over(self) -> None:
        """A worker that does not end by itself at the deadline, and a fault that all share, end the run at once."""
        budget = self._agent.budget
        if self._agent.fault is not None or budget.clock() > budget.deadline + _OVERDUE_S:
            raise _StopNow


@contextlib.contextmanager
def _fork_server(setting: Setting) -> Iterator[ServerProcess]:
    # Not in Tune's folder: a socket's path must stay below 108 characters. The new folder is this user's alone.
    short = None if len(tempfile.gettempdir()) < 60 else "/tmp"
    with tempfile.TemporaryDirectory(prefix="autocut-fork-", dir=short, ignore_cleanup_errors=True) as folder:
        arguments = () if setting.task_path is None else (setting.task_path,)
        with ServerProcess(Path(folder), arguments) as forks:
            yield forks


def _start_ray(ray: Any, workers: int, ray_address: str | None, scratch: Path) -> None:
    """Join the cluster at `ray_address`, or start a Ray on this machine.

    Raises:
        InputError: there is no cluster at that address, or this machine cannot run Ray.
    """
    try:
        _init_ray(ray, workers, ray_address, scratch)
    except (ValueError, RuntimeError, ConnectionError, TimeoutError) as error:
        reason = str(error).strip().partition("\n")[0]
        if ray_address:
            message = f"--ray-address must be a running Ray cluster, got {ray_address!r}: {reason}"
            raise InputError(message, "see: ray status") from error
        raise InputError(f"Ray must start on this machine, but does not: {reason}", "is memory or disk full?") from error


def _init_ray(ray: Any, workers: int, ray_address: str | None, scratch: Path) -> None:
    if ray_address:
        ray.init(address=ray_address, log_to_driver=False, logging_level=logging.ERROR)
        return
    ray.init(
        address="local",  # whatever RAY_ADDRESS says
        num_cpus=workers,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=80 * 2**20,  # results are small records; the default would map a third of the machine's memory
        configure_logging=False,
        _temp_dir=str(scratch / "ray") if len(str(scratch)) < 40 else None,  # sockets' paths must stay below 108 characters
    )


def _prepare_environment(threads: int) -> None:
    os.environ.update({name: value for name, value in _ENVIRONMENT.items() if name not in os.environ})
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))


@contextlib.contextmanager
def _quiet_ray() -> Iterator[None]:
    """Keep Ray's and Tune's advice off the user's screen; errors come back as exceptions."""
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # Ray prints what it thinks of dead workers to either stream, whatever `log_to_driver` says (2.60); stdout is data.
    with (
        warnings.catch_warnings(),
        open(os.devnull, "w") as nowhere,  # noqa: PTH123
        contextlib.redirect_stderr(nowhere),
        contextlib.redirect_stdout(nowhere),
    ):
        warnings.simplefilter("ignore")
        yield


class _Starts:
    """Holds the machine for every process that is starting up, together with others who work: nobody times meanwhile."""

    def __init__(self) -> None:
        self._held: dict[str, contextlib.ExitStack] = {}

    def take(self, trial_id: str) -> bool:
        """Hold for the process of `trial_id`; False while somebody times."""
        stack = contextlib.ExitStack()
        try:
            # A lock of its own each time: within one `QuietLock` a second hold ends with the first.
            stack.enter_context(QuietLock().shared(timeout_s=_TRY_S))
        except DeadlineError:
            return False
        self.release(trial_id)
        self._held[trial_id] = stack
        return True

    def release(self, trial_id: str) -> None:
        """Let go: the process works under its own hold, or is gone."""
        if stack := self._held.pop(trial_id, None):
            stack.close()


def _not_stored(self: object) -> tuple[type[str], tuple[str]]:
    """Stand in for what Tune would pickle into its own state, which nobody ever reads."""
    return str, (type(self).__name__,)
