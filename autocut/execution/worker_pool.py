"""Where jobs run: the process that workers are forked from, and a Ray.

Starting both takes longer than looking at the task, and needs nothing that is found there: a `Workplace` is entered first, and
comes up meanwhile. Nothing heavy is imported here: the fork server's own imports begin within the first tenth of a second.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from autocut.errors import DeadlineError, InputError
from autocut.execution.fork_client import Report, WorkerDiedError, run_in_fork
from autocut.execution.server_process import ServerProcess, is_supported
from autocut.measure.quiet import QuietLock

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
_TRY_S = 0.002
_STARTS = 3
"""Starts of the fork server in a row that may end before it is ready."""
_FORKS = "fork server"
_ANSWER_S = 120.0
"""Within which a fork must have loaded the task, or another process is asked."""


class Workplace:
    """The processes that a search runs its jobs in, from `with` to its end.

    On this machine each job's process is forked from one that has imported and read everything (`forks`), and Ray's own processes
    only relay. On a cluster, or where the system cannot fork safely, `forks` is None.

    Args:
        task_path: The task's file; None is the embedded digits task.
        threads: Threads of a worker's libraries.
        workers: Jobs at a time.
        ray_address: Of a running cluster; None starts a Ray on this machine and stops it at the end.
    """

    def __init__(self, task_path: str | None, *, threads: int, workers: int, ray_address: str | None) -> None:
        self.workers = workers
        self.starts = Starts()
        self.forks: Forks | None = None
        self._task_path = task_path
        self._threads = threads
        self._ray_address = ray_address
        self._has_ray = False
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Workplace:
        """Hold the machine, together with others who work, until `open`; begin to start the fork server."""
        _prepare_environment(self._threads)
        with contextlib.ExitStack() as stack:
            self.scratch = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="autocut-tune-", ignore_cleanup_errors=True))
            )
            stack.callback(self.starts.release_all)
            self.starts.wait(_FORKS)
            if self._ray_address is None and is_supported():
                server = stack.enter_context(_fork_server(self._task_path))
                self.forks = Forks(server, self.starts)
                server.start()
            # The first to end: its processes' ends are those of the jobs, and the fork server sees to whatever jobs have started.
            stack.callback(self.stop_ray)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End everything that was started here, and what still runs in it."""
        self._stack.close()

    @property
    def ask(self) -> Callable[..., dict[str, str]] | None:
        """Asks a worker process what it finds of the task; None where none can be forked. It can be pickled."""
        return None if self.forks is None else partial(_ask_fork, self.forks.address)

    def open(self) -> None:
        """Let others time: what starts before the jobs is there, but for the fork server, whose keeper holds on for it."""
        if self.forks is None:
            self.starts.release(_FORKS)

    def start_ray(self) -> None:
        """Join the cluster, or start a Ray on this machine.

        Raises:
            InputError: there is no cluster at that address, or this machine cannot run Ray.
        """
        import ray  # sets up its own loggers, which `quiet_ray` then silences

        self._has_ray = True
        try:
            with quiet_ray():
                self._init_ray(ray)
        except (ValueError, RuntimeError, ConnectionError, TimeoutError) as error:
            reason = str(error).strip().partition("\n")[0]
            if self._ray_address:
                message = f"--ray-address must be a running Ray cluster, got {self._ray_address!r}: {reason}"
                raise InputError(message, "see: ray status") from error
            raise InputError(f"Ray must start on this machine, but does not: {reason}", "is memory or disk full?") from error

    def _init_ray(self, ray: Any) -> None:
        if self._ray_address:
            ray.init(address=self._ray_address, log_to_driver=False, logging_level=logging.ERROR)
            return
        folder = self.scratch / "ray"
        ray.init(
            address="local",  # whatever RAY_ADDRESS says
            num_cpus=self.workers,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=80 * 2**20,  # results are small records; the default would map a third of the machine's memory
            configure_logging=False,
            _temp_dir=str(folder) if len(str(self.scratch)) < 40 else None,  # sockets' paths must stay below 108 characters
        )

    def stop_ray(self) -> None:
        """End Ray, and with its processes every job; once."""
        if self._has_ray:
            import ray

            self._has_ray = False
            with quiet_ray():
                ray.shutdown()


def _ask_fork(address: str, folder: Path, path: str | None) -> dict[str, str]:
    """Call `load_as_worker` in a fork; where that gets no answer, in a process of its own."""
    answers: list[dict[str, str]] = []
    try:
        run_in_fork(address, partial(_load_as_worker, folder, path), answers.append, timeout_s=_ANSWER_S)
    except WorkerDiedError:
        from autocut.task.model_check import ask_fresh_process

        return ask_fresh_process(folder, path)
    return answers[0]


def _load_as_worker(folder: Path, path: str | None, report: Report) -> None:
    from autocut.task.worker import load_as_worker

    report(load_as_worker(folder, path))


class Forks:
    """Keeps the fork server alive while nobody times."""

    def __init__(self, server: ServerProcess, starts: Starts) -> None:
        self._server = server
        self._starts = starts
        self._goes_on = False

    @property
    def address(self) -> str:
        """Where a relay connects; one that comes while the server is starting waits for it."""
        return self._server.address

    def go_on(self, name: str) -> None:
        """Have the server prepare for what jobs need later, under the hold that the process `name` does not need any more.

        A hold is never taken for it: who waits to time waits for holds, and lets nobody take another.
        """
        if not self._goes_on:
            self._goes_on = True
            self._starts.hand_over(name, _FORKS)
            self._server.go_on()

    def keep(self) -> str | None:
        """Let others time while the server does nothing; start it again should it have died, as soon as nobody times.

        Its jobs died with it, which their own ends tell.

        Returns:
            What to tell of it, or None.

        Raises:
            InputError: it does not come up.
        """
        server = self._server
        if server.is_running:
            if server.is_idle:
                self._starts.release(_FORKS)
            return None
        self._starts.release(_FORKS)
        how = server.how_it_ended
        if how and server.failed_starts >= _STARTS:
            raise InputError(f"the process that workers are forked from must start, but ended: {how}", "autocut check")
        if not self._starts.take(_FORKS):
            return None
        server.start()
        return f"workers: the process that they are forked from ended, {how}: starting it again"


class Starts:
    """Holds the machine for every process that is starting up, together with others who work: nobody times meanwhile."""

    def __init__(self) -> None:
        self._held: dict[str, contextlib.ExitStack] = {}

    def wait(self, name: str) -> None:
        """Hold for the process `name`, once nobody times."""
        self._hold(name, None)

    def take(self, name: str) -> bool:
        """Hold for the process `name`; False while somebody times."""
        try:
            self._hold(name, _TRY_S)
        except DeadlineError:
            return False
        return True

    def release(self, name: str) -> None:
        """Let go: the process works under its own hold, or is gone."""
        if stack := self._held.pop(name, None):
            stack.close()

    def hand_over(self, name: str, other: str) -> None:
        """Let `other` have what is held for `name`, instead of what it held itself."""
        if stack := self._held.pop(name, None):
            self.release(other)
            self._held[other] = stack

    def release_all(self) -> None:
        """Let go of everything."""
        for name in list(self._held):
            self.release(name)

    def _hold(self, name: str, timeout_s: float | None) -> None:
        stack = contextlib.ExitStack()
        # A lock of its own each time: within one `QuietLock` a second hold ends with the first.
        stack.enter_context(QuietLock().shared(timeout_s=timeout_s))
        self.release(name)
        self._held[name] = stack


@contextlib.contextmanager
def quiet_ray() -> Iterator[None]:
    """Keep Ray's and Tune's advice off the user's screen; errors come back as exceptions."""
    _silence_loggers()
    # Ray prints what it thinks of dead workers to either stream, whatever `log_to_driver` says (2.60); stdout is data.
    with (
        warnings.catch_warnings(),
        open(os.devnull, "w") as nowhere,  # noqa: PTH123
        contextlib.redirect_stderr(nowhere),
        contextlib.redirect_stdout(nowhere),
    ):
        warnings.simplefilter("ignore")
        yield
    _silence_loggers()  # starting Ray sets them up anew


def _silence_loggers() -> None:
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextlib.contextmanager
def _fork_server(task_path: str | None) -> Iterator[ServerProcess]:
    # A folder of its own: a socket's path must stay below 108 characters. It is this user's alone.
    short = None if len(tempfile.gettempdir()) < 60 else "/tmp"
    with tempfile.TemporaryDirectory(prefix="autocut-fork-", dir=short, ignore_cleanup_errors=True) as folder:
        arguments = () if task_path is None else (task_path,)
        with ServerProcess(Path(folder), arguments) as server:
            yield server


def _prepare_environment(threads: int) -> None:
    os.environ.update({name: value for name, value in _ENVIRONMENT.items() if name not in os.environ})
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))
