"""A quiet machine for timing: many processes may work together, or one process is alone.

The lock consists of files under `flock`. The kernel releases it when its holder dies, for any reason. Every process passes the
turnstile first. One that wants to be alone keeps the turnstile while it waits, so later workers queue up behind it. A tight loop of
workers cannot starve it. A worker whose work is long looks at the turnstile between two steps, and lets who keeps it go first
(`step_aside`).

    turnstile.lock ... held for a moment by each worker; while waiting and timing by the process that wants to be alone
    quiet.lock ....... held shared by workers, exclusively by the process that is alone
    urgent.lock ...... held shared by processes whose work is urgent: no other one asks to be alone meanwhile
    gpu-NAME.lock .... held by the process that computes on this GPU; it still works beside those that use the CPU

A process that is forked while a lock is held shares the lock: if the holder is killed, the lock lasts until the fork ends too.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from autocut.errors import DeadlineError
from autocut.node import node_folder, open_lock_file

_FIRST_PAUSE_S = 0.001
_LONGEST_PAUSE_S = 0.02


class QuietLock:
    """A lock with a shared and an exclusive side, common to all processes and threads that open the same `folder`.

    A thread that holds a side may ask for it again, and a thread that is alone may ask for the shared side. Both change nothing.
    A thread that holds the shared side must not ask to be alone: it would wait for itself.

    Args:
        folder: Folder of the lock files. Default: `node_folder()`, one for the whole machine.
        waiting: Entered while another process keeps this one waiting, and only then.
    """

    def __init__(
        self, folder: Path | None = None, waiting: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext
    ) -> None:
        self.folder = node_folder() if folder is None else folder
        self._waiting = waiting
        self.folder.mkdir(parents=True, exist_ok=True)
        self._here = threading.local()
        self._is_urgent = False

    @contextlib.contextmanager
    def shared(self, *, stop: Callable[[], bool] | None = None, timeout_s: float | None = None) -> Iterator[None]:
        """Work together with others. No process measures meanwhile.

        Raises:
            DeadlineError: `stop()` turned true, or `timeout_s` passed, while it waited.
        """
        if self._mode is not None:
            yield
            return
        limit = _WaitLimit("to work", stop, timeout_s)
        with contextlib.ExitStack() as locks:
            with self._locked("turnstile.lock", fcntl.LOCK_EX, limit):
                quiet = locks.enter_context(self._locked("quiet.lock", fcntl.LOCK_SH, limit))
            with self._holding("shared", quiet):
                yield

    def step_aside(self) -> None:
        """In the middle of long work on the shared side: let a process that waits to be alone go first, then work on.

        Nothing happens where none waits, or where this thread does not hold the shared side.
        """
        if self._mode != "shared":
            return
        turnstile, quiet = open_lock_file(self.folder / "turnstile.lock"), self._here.quiet
        try:
            if _take_if_free(turnstile, fcntl.LOCK_EX):
                return  # it is free, so no process waits to be alone
            with self._waiting():
                fcntl.flock(quiet, fcntl.LOCK_UN)
                fcntl.flock(turnstile, fcntl.LOCK_EX)
                fcntl.flock(quiet, fcntl.LOCK_SH)
        finally:
            fcntl.flock(turnstile, fcntl.LOCK_UN)
            os.close(turnstile)

    @contextlib.contextmanager
    def exclusive(self, *, stop: Callable[[], bool] | None = None, timeout_s: float | None = None) -> Iterator[None]:
        """Be alone. No other process works or measures meanwhile.

        Raises:
            DeadlineError: `stop()` turned true, or `timeout_s` passed, while it waited.
            RuntimeError: this thread holds the shared side.
        """
        if self._mode == "exclusive":
            yield
            return
        if self._mode == "shared":
            raise RuntimeError("a thread that holds the shared side cannot ask to be alone: it would wait for itself")
        limit = _WaitLimit("to be alone on this machine", stop, timeout_s)
        if not self._is_urgent:
            with self._locked("urgent.lock", fcntl.LOCK_EX, limit):
                pass  # nobody is urgent now
        with (
            self._locked("turnstile.lock", fcntl.LOCK_EX, limit),
            self._locked("quiet.lock", fcntl.LOCK_EX, limit) as quiet,
            self._holding("exclusive", quiet),
        ):
            yield

    @contextlib.contextmanager
    def urgent(self) -> Iterator[None]:
        """Let no other process be alone before this one's work is done. Who is alone already, or waits for that, goes first."""
        with self._locked("urgent.lock", fcntl.LOCK_SH, _WaitLimit("to be urgent", None, None)):
            self._is_urgent = True
            try:
                yield
            finally:
                self._is_urgent = False

    @contextlib.contextmanager
    def gpu(self, name: str, *, stop: Callable[[], bool] | None = None) -> Iterator[None]:
        """Have the GPU `name` alone. Who holds a side must not ask: who has the GPU may wait for a side meanwhile.

        Raises:
            DeadlineError: `stop()` turned true while it waited.
            RuntimeError: this thread holds a side.
        """
        if self._mode is not None:
            raise RuntimeError("a thread that holds a side cannot wait for a GPU: who has the GPU may wait for that side")
        with self._locked(f"gpu-{name}.lock", fcntl.LOCK_EX, _WaitLimit("for the GPU", stop, None)):
            yield

    @property
    def _mode(self) -> str | None:
        return getattr(self._here, "mode", None)

    @contextlib.contextmanager
    def _holding(self, mode: str, quiet: int) -> Iterator[None]:
        self._here.mode, self._here.quiet = mode, quiet
        try:
            yield
        finally:
            self._here.mode = None

    @contextlib.contextmanager
    def _locked(self, name: str, side: int, limit: _WaitLimit) -> Iterator[int]:
        descriptor = open_lock_file(self.folder / name)
        try:
            limit.check_stop()  # not the time: a lock that is free is taken, however slow a busy machine is
            if not _take_if_free(descriptor, side):
                with self._waiting():
                    _wait_and_take(descriptor, side, limit)
            try:
                yield descriptor
            finally:
                # Closing is not enough: a forked child has the descriptor too and would keep the lock.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            os.close(descriptor)


class _WaitLimit:
    """When to give up waiting for a lock."""

    def __init__(self, purpose: str, stop: Callable[[], bool] | None, timeout_s: float | None) -> None:
        self.exists = stop is not None or timeout_s is not None
        self._purpose = purpose
        self._stop = stop
        self._timeout_s = timeout_s
        self._until = None if timeout_s is None else time.monotonic() + timeout_s

    def check_stop(self) -> None:
        if self._stop is not None and self._stop():
            raise DeadlineError(f"the time granted to the trial was up while it waited {self._purpose}")

    def check(self) -> None:
        self.check_stop()
        if self._until is not None and time.monotonic() >= self._until:
            raise DeadlineError(f"waiting {self._purpose} took longer than {self._timeout_s:g} s")


def _take_if_free(descriptor: int, side: int) -> bool:
    """Take the lock if it is free; return whether it was."""
    try:
        fcntl.flock(descriptor, side | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait_and_take(descriptor: int, side: int, limit: _WaitLimit) -> None:
    if not limit.exists:
        fcntl.flock(descriptor, side)
        return
    pause_s = _FIRST_PAUSE_S
    while True:
        limit.check()
        if _take_if_free(descriptor, side):
            return
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
