"""Where jobs run: the process that workers are forked from, and a Ray.

Both start slowly, and need nothing that is found by looking at the task. So a `WorkerPool` is entered first, and they start
meanwhile. Nothing heavy is imported here: the fork server's own imports begin within the first tenth of a second.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from autocut.errors import DeadlineError, InputError, quoted
from autocut.execution.fork_client import Report, WorkerDiedError, run_in_fork
from autocut.execution.joining import prepare_to_join
from autocut.execution.leftovers import scratch_folder, temporary_files_in
from autocut.execution.server_process import ServerProcess, is_supported
from autocut.measure import spinning
from autocut.measure.quiet import QuietLock

if TYPE_CHECKING:
    from autocut.execution.nodes import Nodes, NodesWanted

_ENVIRONMENT = {
    "PL_DISABLE_FORK": "1",  # what Tune gives each of its processes, see `use_waiting_processes`
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # a call that comes after Ray's end must fail, not start another Ray
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # Ray's 15 would let any other program interrupt a timing: jobs are as nice as the search itself
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_FORCE_TRIAL_CLEANUP_S": "10",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_RESULT_BUFFER_LENGTH": "0",
}
_STAYS = ("studies/", ".git/", ".venv/", "__pycache__/")
"""What is not taken to the nodes of a cluster with the task's folder, besides what `.gitignore` names."""
_LONGEST = 40
"""Characters of a folder below which Ray puts its sockets: it adds 66."""
_TRY_S = 0.002
_STARTS = 3
"""The search ends when the fork server ends this many times in a row before it is ready."""
_FORK_SERVER = "fork server"
_ANSWER_S = 120.0
"""A fork that has not loaded the task by then is given up, and a fresh process is asked."""


class WorkerPool:
    """The processes that run a search's jobs, from `with` to its end.

    On this machine each job's process is forked from one that has imported and read everything (`fork_server`), and Ray's own
    processes only relay. On a cluster every node has such a server (`nodes`). Where the system cannot fork safely there is neither.

    Args:
        task_path: The task's file; None is the embedded digits task.
        threads: Threads of a worker's libraries.
        workers: Jobs at a time; 0: as many as the nodes of the cluster have room for.
        ray_address: Of a running cluster; None starts a Ray on this machine and stops it at the end.
        shared: A folder that every node of the cluster sees. A task in it does not travel.
    """

    def __init__(
        self, task_path: str | None, *, threads: int, workers: int, ray_address: str | None, shared: Path | None = None
    ) -> None:
        self.workers = workers
        self.holds = StartHolds()
        self.fork_server: ServerProcess | None = None
        self.nodes: Nodes | None = None
        self._shared = shared
        self._task_path = task_path
        self._threads = threads
        self._ray_address = ray_address
        self._has_ray = False
        self._prepares_rest = False
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> WorkerPool:
        """Begin to start the fork server; until `open`, no search measures time on this machine."""
        if self._ray_address is not None:
            prepare_to_join(self._ray_address)
        _prepare_environment(self._threads)
        with contextlib.ExitStack() as stack:
            self.scratch = self.tune_folder = stack.enter_context(scratch_folder())
            # What is temporary may be large and belongs where the user says; but a socket's path must stay below 108 characters.
            self._sockets = self.scratch if len(str(self.scratch)) < _LONGEST else stack.enter_context(scratch_folder("/tmp"))
            stack.enter_context(temporary_files_in(self.scratch))
            stack.callback(self.holds.release_all)
            self.holds.take(_FORK_SERVER, timeout_s=None)
            if self._ray_address is None and is_supported():
                self.fork_server = stack.enter_context(_server_process(self._sockets, self._task_path))
                self.fork_server.start()
            # Ray ends first: its processes take their jobs with them. The fork server ends what is left.
            stack.callback(self.stop_ray)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End all that was started here."""
        self._stack.close()

    @property
    def ask(self) -> Callable[..., dict[str, str]] | None:
        """Asks a worker process what it finds of the task; None where none can be forked. It can be pickled."""
        return None if self.fork_server is None else partial(_ask_fork, self.fork_server.address)

    def open(self) -> None:
        """Let others time: all has started. A fork server that still imports keeps its hold until it is done."""
        if self.fork_server is None:
            self.holds.release(_FORK_SERVER)

    def prepare_rest(self, name: str) -> None:
        """Have the fork server prepare for what jobs need later, under the hold `name`, whose process does not need it any more.

        Only the first call counts. No new hold is taken: while a search waits to time, none is given out.
        """
        if self.fork_server is not None and not self._prepares_rest:
            self._prepares_rest = True
            self.holds.hand_over(name, _FORK_SERVER)
            self.fork_server.prepare_rest()

    def open_nodes(self, wanted: NodesWanted) -> list[str]:
        """Look at the nodes of the cluster that `start_ray` has joined, and have them run the jobs. Return lines for the user.

        Raises:
            InputError: what the nodes lack.
        """
        nodes = self.nodes
        if nodes is None:
            raise RuntimeError("nodes are opened after start_ray, and on a cluster alone")
        self._stack.callback(nodes.close)
        with quiet_ray():
            told = nodes.open(wanted)
        # Tune looks into it from every node. What it writes there is never read.
        self.tune_folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix=".tune-", dir=wanted.needs.shared)))
        self.workers = min(self.workers, nodes.slots) if self.workers else nodes.slots
        return told

    @property
    def _travelling_task(self) -> str | None:
        """The task's file as the nodes of a cluster name it: its name, or its whole path where it is in the shared folder."""
        if self._task_path is None or self._task_folder is None:
            return self._task_path
        return Path(self._task_path).name

    @property
    def _task_folder(self) -> Path | None:
        """The folder that Ray takes to every node; None if the nodes see it anyway."""
        if self._task_path is None or (self._shared is not None and Path(self._task_path).is_relative_to(self._shared)):
            return None
        return Path(self._task_path).parent

    def look_after(self) -> str | None:
        """Let others time while the fork server does nothing. If it has died, start it again as soon as no search times.

        Its jobs have died with it, and each of them reports its own end.

        Returns:
            A line for the user, or None.

        Raises:
            InputError: the server has ended several times in a row before it was ready.
        """
        server = self.fork_server
        if server is None:
            return None
        if server.is_running:
            if server.is_idle:
                self.holds.release(_FORK_SERVER)
            return None
        self.holds.release(_FORK_SERVER)
        how = server.how_it_ended
        if how and server.failed_starts >= _STARTS:
            raise InputError(f"the process that workers are forked from must start, but ended: {how}", "autocut check")
        if not self.holds.take(_FORK_SERVER):
            return None
        server.start()
        return f"workers: the process that they are forked from ended, {how}: starting it again"

    def start_ray(self) -> None:
        """Join the cluster, or start a Ray on this machine.

        Raises:
            InputError: there is no cluster at that address, or this machine cannot run Ray.
        """
        import ray  # sets up its own loggers, which `quiet_ray` then silences

        self._has_ray = True
        try:
            with quiet_ray(), _keeping_sigterm():
                self._init_ray(ray)
                if self._ray_address is not None:
                    from autocut.execution.nodes import Nodes

                    self.nodes = Nodes(self._travelling_task, self._threads)
                    self.nodes.join()
        except (ValueError, RuntimeError, OSError) as error:
            reason = " ".join(str(error).split())
            if self._ray_address and "ackage" in reason and self._task_folder:
                message = (
                    f"the task's folder {self._task_folder} must be small enough to travel to every node, but is not: {reason}"
                )
                raise InputError(message, "name large files in .gitignore, or put the task into the folder of --stages") from error
            if self._ray_address:
                message = f"--ray-address must be a running Ray cluster, got {quoted(self._ray_address)}: {reason}"
                raise InputError(message, "see: ray status") from error
            raise InputError(f"Ray must start on this machine, but does not: {reason}", "is memory or disk full?") from error

    def _init_ray(self, ray: Any) -> None:
        if self._ray_address:
            surroundings: dict[str, Any] = {"env_vars": _environment(self._threads)}
            if self._task_folder is not None:
                surroundings |= {"working_dir": str(self._task_folder), "excludes": list(_STAYS)}
            ray.init(address=self._ray_address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=surroundings)
            return
        ray.init(
            address="local",  # even if RAY_ADDRESS is set
            num_cpus=self.workers,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=80 * 2**20,  # results are small records; the default would map a third of the machine's memory
            configure_logging=False,
            _temp_dir=str(self._sockets / "ray"),
        )
        use_waiting_processes()

    def stop_ray(self) -> None:
        """End Ray, and with its processes every job. A second call does nothing."""
        if self._has_ray:
            import ray

            self._has_ray = False
            with quiet_ray():
                ray.shutdown()


def use_waiting_processes() -> None:
    """Let Tune's trials run in the processes that Ray starts ahead and that wait for work.

    Tune gives each of its processes a variable. For other variables than its own Ray starts other processes, which import it twice,
    and those that wait are never used (2.60). This process's environment, which Ray's processes get, has the variable already.
    Without these names Tune would work as well, and start later.
    """
    with contextlib.suppress(ImportError, AttributeError):
        from ray.tune.execution.class_cache import DEFAULT_ENV_VARS

        for name in [name for name, value in DEFAULT_ENV_VARS.items() if os.environ.get(name) == value]:
            del DEFAULT_ENV_VARS[name]


def _ask_fork(address: str, folder: Path, path: str | None) -> dict[str, str]:
    """Call `load_as_worker` in a fork, or in a fresh process if the fork gives no answer."""
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


class StartHolds:
    """Holds the quiet lock's shared side for every process that starts: no search measures time meanwhile.

    A process that has started works under its own hold. Holds are named after what they are for.
    """

    def __init__(self) -> None:
        self._held: dict[str, contextlib.ExitStack] = {}

    def take(self, name: str, timeout_s: float | None = _TRY_S) -> bool:
        """Take a hold; False if a search times, or waits to time, for the next `timeout_s` seconds (None: wait for its end)."""
        stack = contextlib.ExitStack()
        try:
            # A lock of its own each time: within one `QuietLock` a second hold ends with the first.
            stack.enter_context(QuietLock().shared(timeout_s=timeout_s))
        except DeadlineError:
            return False
        self.release(name)
        self._held[name] = stack
        return True

    def release(self, name: str) -> None:
        """Let go, if there is such a hold: its process has started, or is gone."""
        if stack := self._held.pop(name, None):
            stack.close()

    def hand_over(self, name: str, other: str) -> None:
        """Turn the hold `name`, if there is one, into the hold `other`."""
        if stack := self._held.pop(name, None):
            self.release(other)
            self._held[other] = stack

    def release_all(self) -> None:
        """Let go of everything."""
        for name in list(self._held):
            self.release(name)


@contextlib.contextmanager
def quiet_ray() -> Iterator[None]:
    """Keep Ray's and Tune's advice off the user's screen; errors come back as exceptions."""
    _silence_loggers()
    # Ray prints messages about dead workers to either stream, whatever `log_to_driver` says (2.60); stdout is data.
    with (
        warnings.catch_warnings(),
        open(os.devnull, "w") as nowhere,  # noqa: PTH123
        contextlib.redirect_stderr(nowhere),
        contextlib.redirect_stdout(nowhere),
    ):
        warnings.simplefilter("ignore")
        yield
    _silence_loggers()  # starting Ray sets them up anew


@contextlib.contextmanager
def _keeping_sigterm() -> Iterator[None]:
    """Put the handler of SIGTERM back: Ray sets its own, which prints where every thread was (2.60). No option leaves it out."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _silence_loggers() -> None:
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextlib.contextmanager
def _server_process(place: Path, task_path: str | None) -> Iterator[ServerProcess]:
    with tempfile.TemporaryDirectory(prefix="fork-", dir=place, ignore_cleanup_errors=True) as folder:
        arguments = () if task_path is None else (task_path,)
        with ServerProcess(Path(folder), arguments) as server:
            yield server


def _prepare_environment(threads: int) -> None:
    os.environ.update({name: value for name, value in _environment(threads).items() if name not in os.environ})


def _environment(threads: int) -> dict[str, str]:
    """Return the variables that workers and Ray's processes are started with."""
    return _ENVIRONMENT | spinning.ENVIRONMENT | {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
