"""What runs on a node of a cluster beside its jobs: a warm process that forks them, and a first look at the node.

    driver ── starts ──> node's host ── starts ──> fork server ── forks ──> one process a job
       └── Ray Tune ──> trial's process (relay) ── socket ──┘              (all of it on the node, but for the driver)

The host holds the node's quiet lock while its fork server imports, and while a relay and its job start, for which the driver asks
it. So nothing is timed on a node meanwhile, and the nodes know nothing of each other. Ray ends host and relays with the driver, and
with them all that is below.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import autocut
from autocut.errors import AutocutError, InputError
from autocut.execution.fork_client import Report, WorkerDiedError, run_in_fork
from autocut.execution.worker import run_job
from autocut.execution.worker_pool import WorkerPool
from autocut.search.jobs import Event, Job, Setting

_LOOK = "the look at the node"
_TICK_S = 0.1
_LOOK_S = 240.0
"""A task whose data take longer to load on a node counts as unreadable there."""


@dataclass(frozen=True)
class NodePlace:
    """Where the jobs of one node run. The paths are the node's own.

    `address` is the socket of its fork server, `scratch` takes temporary files and goes with the host, and `task_path` is the file
    of the task; None is the embedded digits task.
    """

    node: str
    address: str
    scratch: str
    task_path: str | None


@dataclass(frozen=True)
class NodeNeeds:
    """What a node is looked at for.

    `data_hash` is a part of the task's fingerprint. `shared` is the folder that every node must see, and `marker` a file in it with
    the text `word`.
    """

    data_hash: str
    shared: str
    marker: str
    word: str


@dataclass(frozen=True)
class NodeFindings:
    """What a node has, as far as a search depends on it. `shared` and `task_error` say what is wrong, else they are empty."""

    kind: str
    fingerprint: str = ""
    task_error: str = ""
    shared: str = ""
    compiler: str = ""
    libraries: Mapping[str, str] = field(default_factory=dict)


class NodeHost:
    """The actor of a node. It must run for as long as jobs do.

    Args:
        node: Ray's identity of the node.
        task: The file of the task: in the folder in which Ray starts this process, where it has unpacked the task, or an absolute
            path in the shared folder. None is the embedded digits task.
        threads: Threads of a worker's libraries.
    """

    def __init__(self, node: str, task: str | None, threads: int) -> None:
        task_path = None if task is None else str(Path(task).resolve())
        self._lock = threading.Lock()
        self._pool = WorkerPool(task_path, threads=threads, workers=1, ray_address=None)
        entered = Future[WorkerPool]()
        threading.Thread(target=self._run, args=(entered,), name="look-after", daemon=True).start()
        server = entered.result().fork_server
        if server is None:
            raise RuntimeError("a node must run Linux 5.3 or later: jobs are forked there")
        self._place = NodePlace(node, server.address, str(self._pool.scratch), task_path)

    def place(self) -> NodePlace:
        """Say where jobs run. It also shows that the host is alive."""
        return self._place

    def hold(self, name: str) -> bool:
        """Hold this node for a process that starts; False while a job times here, or waits to."""
        with self._lock:
            return self._pool.holds.take(name)

    def hand_over(self, name: str, other: str) -> None:
        """Turn the hold `name` into the hold `other`."""
        with self._lock:
            self._pool.holds.hand_over(name, other)

    def release(self, name: str) -> None:
        """Let go."""
        with self._lock:
            self._pool.holds.release(name)

    def now(self) -> float:
        """Return the node's time of day: jobs keep their deadlines by it."""
        return time.time()

    def look(self, needs: NodeNeeds) -> NodeFindings:
        """Look at the node from a forked process, as a job sees it. Then have the fork server prepare for what jobs need later.

        Raises:
            RuntimeError: the process died.
        """
        found: list[NodeFindings] = []
        self._pool.holds.take(_LOOK, timeout_s=None)
        try:
            run_in_fork(self._place.address, partial(_look, needs, self._place.task_path), found.append, timeout_s=_LOOK_S)
        except WorkerDiedError as error:
            raise RuntimeError(str(error)) from error
        finally:
            with self._lock:
                self._pool.prepare_rest(_LOOK)
        return found[0]

    def _run(self, entered: Future[WorkerPool]) -> None:
        """Start the fork server and look after it, in one thread: the kernel ends a process with the thread that has started it."""
        try:
            entered.set_result(self._pool.__enter__())
        except BaseException as error:
            entered.set_exception(error)
            raise
        while True:
            try:
                with self._lock:
                    self._pool.look_after()
            except InputError:
                os._exit(1)  # the fork server does not come up: the driver sees a lost node, and its jobs run elsewhere
            time.sleep(_TICK_S)


def run_at(place: NodePlace, job: Job, setting: Setting, report: Callable[[Event], None]) -> None:
    """Run `job` in a fork on this node. The driver has the host hold the node until its first word.

    Raises:
        WorkerDiedError: the job's process or the fork server is gone.
    """
    os.environ["TMPDIR"] = place.scratch
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(place.scratch) / "inductor")  # machine code: of this node alone
    run_in_fork(place.address, partial(run_job, job, replace(setting, task_path=place.task_path)), report)


def _look(needs: NodeNeeds, task_path: str | None, report: Report) -> None:
    from autocut.measure.machine import machine_fingerprint
    from autocut.stages.compilers import missing_compiler
    from autocut.stages.libraries import library_versions

    fingerprint, task_error = _fingerprint(task_path, needs.data_hash)
    report(
        NodeFindings(
            machine_fingerprint(),
            fingerprint,
            task_error,
            shared_fault(Path(needs.shared), needs.marker, needs.word),
            missing_compiler(python_headers=True) or "",
            {**library_versions(), "autocut": autocut.__version__},
        )
    )


def _fingerprint(task_path: str | None, data_hash: str) -> tuple[str, str]:
    """Return the task's fingerprint, for which its data are read, or what went wrong."""
    import torch

    from autocut.task.loading import load_task

    torch.set_num_threads(1)
    try:
        task = load_task(task_path)
        task.know_data(data_hash)
        return task.fingerprint, ""
    except AutocutError as error:
        return "", error.message
    except Exception as error:
        # Loading runs the user's code, which may raise anything.
        return "", f"{type(error).__name__}: {error}"


def shared_fault(folder: Path, marker: str, word: str) -> str:
    """Say what is wrong with the shared folder as this process sees it; empty if nothing is.

    It must be the folder in which the driver has written `word` into the file `marker`, with room to write, and with locks.
    """
    try:
        if (folder / marker).read_text(encoding="utf-8") != word:
            return "another folder is there"
    except FileNotFoundError:
        return "an empty folder is there" if folder.is_dir() else "there is no such folder"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    mine = folder / f"{marker}-{os.uname().nodename}-{os.getpid()}"
    try:
        with mine.open("w", encoding="utf-8") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine.replace(mine.with_suffix(".renamed"))
        mine.with_suffix(".renamed").unlink()
    except OSError as error:
        return f"it cannot be written, locked and renamed in: {error.strerror}"
    return ""
