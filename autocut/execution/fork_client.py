"""The caller's side of a forked process: sends the call, and passes on what it reports.

The process of a Tune trial is such a caller. It must stay light, because Ray needs seconds to start one and uses it for many jobs:
no torch here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

DIED = "the worker process died: killed, out of memory, or crashed"
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that somebody else sends. A process that does something wrong gets others."""

Report = Callable[[Any], None]
"""Takes each result of a call as soon as it is known."""
Call = Callable[[Report], None]
"""What a forked process does. It must be picklable, and so must all that it reports."""

_SCORE = Path("/proc/self/oom_score_adj")


class WorkerDiedError(RuntimeError):
    """A worker process ended before the end of its call.

    `is_blameless` says that the call did not end it: it was killed from outside, or the server that it was forked from has died.
    """

    def __init__(self, message: str, *, is_blameless: bool = False) -> None:
        super().__init__(message)
        self.is_blameless = is_blameless


@dataclass(frozen=True)
class Surroundings:
    """What a process inherits from the one that starts it.

    A forked worker takes them from its caller, not from the server that it was forked from. So it finds what it would find had Ray
    started it: Ray's environment, its search path for modules, its low priority, and that the kernel kills it first when memory is
    short.
    """

    environment: dict[str, str]
    folder: str
    path: tuple[str, ...]
    niceness: int
    out_of_memory_score: str | None

    @staticmethod
    def here() -> Surroundings:
        """Return those of this process."""
        score = _SCORE.read_text(encoding="ascii").strip() if _SCORE.exists() else None
        return Surroundings(dict(os.environ), str(Path.cwd()), tuple(sys.path), os.nice(0), score)

    def adopt(self) -> None:
        """Make them those of this process."""
        os.environ.clear()
        os.environ.update(self.environment)
        os.chdir(self.folder)
        sys.path[:] = self.path
        os.nice(max(0, self.niceness - os.nice(0)))  # only root may raise its priority
        if self.out_of_memory_score is not None and int(self.out_of_memory_score) > int(_SCORE.read_text(encoding="ascii")):
            _SCORE.write_text(self.out_of_memory_score, encoding="ascii")


def run_in_fork(address: str, call: Call, report: Report, timeout_s: float | None = None) -> None:
    """Run `call` in a process forked by the server at `address`, and report what it reports.

    That process dies with this one. A server that still imports is waited for; `timeout_s` limits the wait for the process, and
    then for its first report.

    Raises:
        WorkerDiedError: the process or the server is gone before the call's end, or the call reports nothing in time.
    """
    pid: int | None = None
    try:
        with Client(address, family="AF_UNIX") as connection:
            connection.send((call, Surroundings.here()))
            _await(connection, timeout_s)
            pid = connection.recv()
            _await(connection, timeout_s)
            while (told := connection.recv()) is not None:
                report(told)
    except (EOFError, OSError) as error:
        raise _death(address, pid) from error


def ending_file(address: str, pid: int) -> Path:
    """Return the file in which the server at `address` writes the exit code of its child `pid`, unless that is 0."""
    return Path(address).with_name(f"ended-{pid}")


def _await(connection: Connection[Any, Any], timeout_s: float | None) -> None:
    if not connection.poll(timeout_s):
        raise WorkerDiedError(f"the worker process said nothing within {timeout_s:g} s")


def _death(address: str, pid: int | None) -> WorkerDiedError:
    """Say how the process `pid` has ended. The server writes it down before it closes the connection; a dead server does not."""
    code = None
    if pid is not None:
        with contextlib.suppress(OSError, ValueError):
            file = ending_file(address, pid)
            code = int(file.read_text(encoding="ascii"))
            file.unlink()
    if code is None:
        return WorkerDiedError("the process that workers are forked from died, and the worker with it", is_blameless=True)
    if code >= 0:
        return WorkerDiedError(f"the worker process ended with exit code {code}")
    number = signal.Signals(-code)
    if number in _FROM_OUTSIDE:
        return WorkerDiedError(f"the worker process was killed ({number.name})", is_blameless=True)
    return WorkerDiedError(f"the worker process crashed: {signal.strsignal(number)} ({number.name})")
