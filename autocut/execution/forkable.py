"""Finds out whether a process can still be forked after an action, by trying the action in a fork.

A fork has the calling thread alone, no child processes, random numbers of its own, and the surroundings of its caller
(`fork_client.Surroundings`) in place of what its parent has set. It shares with its parent and its siblings the position in every
open file, and all memory that is mapped as shared. Linux only.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np

from autocut.measure.parent_death import die_with, kill_group

_LOOK_AGAIN_S = 0.02
_PATIENCE_S = 30.0
"""Seconds after which an action is given up. Nothing is timed during the trial run or the real one. Twice this, and the imports
before, must stay well below the time after which a job that waits to time counts as hung (`agent._HANG_S`)."""
_SETTLES_S = 0.1
"""A thread that has ended may still be listed for this long."""
_HARMLESS_THREADS = frozenset({"jemalloc_bg_thd"})
"""The thread of pyarrow's allocator, which prepares itself for every fork and starts the thread again."""
_SELF = Path("/proc/self")


def leaves_alone(action: Callable[[], object], state: Callable[[], object]) -> Generator[str, None, bool]:
    """Return whether `state()` is the same after `action()` as before, tried in a process of its own; yield until that has ended.

    The answer is no if the action raises, ends the process or takes too long. What the action starts ends with its process.
    """
    own = os.getpid()
    try:
        pid = os.fork()
    except OSError:
        return False  # no memory for a process
    if pid == 0:
        _try_out(own, action, state)
    until = time.monotonic() + _PATIENCE_S
    while (ended := os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is None and time.monotonic() < until:
        yield "tried out"
        time.sleep(_LOOK_AGAIN_S)
    kill_group(pid)
    os.waitpid(pid, 0)
    return ended is not None and ended.si_code == os.CLD_EXITED and ended.si_status == 0


def _try_out(parent: int, action: Callable[[], object], state: Callable[[], object]) -> None:
    """In a child: end with 0 where `action` leaves `state` as it was."""
    try:
        os.setpgid(0, 0)
        die_with(parent)
        with contextlib.suppress(OSError):  # the kernel kills it first when memory is short
            (_SELF / "oom_score_adj").write_text("1000", encoding="ascii")
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # jobs' connections are among them
        before = state()
        action()
        if state() != before:
            time.sleep(_SETTLES_S)
        os._exit(int(state() != before))
    finally:
        os._exit(1)


def foreign_threads() -> list[str]:
    """Return the names of this process's threads, without the main one and those that survive a fork."""
    names = []
    for task in (_SELF / "task").iterdir():
        with contextlib.suppress(OSError):  # it has just ended
            if task.name != str(os.getpid()):
                names.append((task / "comm").read_text(encoding="utf-8", errors="replace").strip())
    return [name for name in names if name not in _HARMLESS_THREADS]


def what_a_fork_lacks_or_shares(folder: Path | None) -> tuple[object, ...]:
    """Return what must stay the same for a fork to find what a fresh process would.

    These are threads, child processes, open files and memory shared for writing; environment, working directory, the search path
    without `folder`, and the states of the random generators (a fork inherits torch's anyway); and settings that the fork server
    itself works under.
    """
    path = [entry for entry in sys.path if folder is None or Path(entry) != folder]
    given = (dict(os.environ), Path.cwd(), path, random.getstate(), pickle.dumps(np.random.get_state()))
    settings = (socket.getdefaulttimeout(), signal.getsignal(signal.SIGCHLD))
    return foreign_threads(), _children(), _open_files(), _shared_memory(), given, settings


def _children() -> str:
    file = _SELF / "task" / str(os.getpid()) / "children"
    return file.read_text(encoding="ascii") if file.exists() else ""


def _open_files() -> list[str]:
    """Return the open descriptors, without the one that reads them."""
    return sorted(name for name in os.listdir(_SELF / "fd") if (_SELF / "fd" / name).exists())  # noqa: PTH208


def _shared_memory() -> list[str]:
    """Return the mappings that this process may write to and others see."""
    maps = (line.split(maxsplit=5) for line in (_SELF / "maps").read_text(encoding="utf-8", errors="replace").splitlines())
    return [f"{span} {rest[-1]}" for span, access, *rest in maps if "w" in access and access.endswith("s")]
