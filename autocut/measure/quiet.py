"""A quiet machine for whoever measures time: many may work together, or one alone.

Two files are locked with `flock`, which the kernel releases when its holder dies, however it dies. Whoever wants in first passes
the turnstile. A taker of the exclusive side keeps the turnstile while it waits, so that later takers of the shared side queue up
behind it: a tight loop of them cannot starve it.

    turnstile.lock ... held for a moment by those who work, and while waiting and timing by the one who wants to be alone
    quiet.lock ....... held shared by those who work, exclusively by the one who is alone

A process that is forked while a lock is held shares it: when the holder is killed, the lock lives on until the forked process
ends too.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from autocut.errors import DeadlineError

_FIRST_PAUSE_S = 0.001
_LONGEST_PAUSE_S = 0.02


class QuietLock:
    """Shared by all who open the same `folder`: processes and threads alike.

    A thread that holds a side may ask for the same one again, or for the shared side while it is alone; that changes nothing.
    Asking to be alone while working together is a mistake: it would wait for itself.

    Args:
        folder: Where the lock files are; default `node_folder()`, which everything on this machine shares.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = node_folder() if folder is None else folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self._here = threading.local()

    @contextlib.contextmanager
    def shared(self, *, stop: Callable[[], bool] | None = None, timeout_s: float | None = None) -> Iterator[None]:
        """Work together with others; nobody measures meanwhile.

        Raises:
            DeadlineError: `stop()` turned true, or `timeout_s` passed, before it was granted.
        """
        if self._mode is not None:
            yield
            return
        patience = _Patience("to work", stop, timeout_s)
        with contextlib.ExitStack() as locks:
            with _locked(self.folder / "turnstile.lock", fcntl.LOCK_EX, patience):
                locks.enter_context(_locked(self.folder / "quiet.lock", fcntl.LOCK_SH, patience))
            with self._holding("shared"):
                yield

    @contextlib.contextmanager
    def exclusive(self, *, stop: Callable[[], bool] | None = None, timeout_s: float | None = None) -> Iterator[None]:
        """Be alone: nobody else works or measures meanwhile.

        Raises:
            DeadlineError: `stop()` turned true, or `timeout_s` passed, before it was granted.
            RuntimeError: this thread holds the shared side.
        """
        if self._mode == "exclusive":
            yield
            return
        if self._mode == "shared":
            raise RuntimeError("a thread that works under the shared side cannot ask to be alone: it would wait for itself")
        patience = _Patience("to be alone on this machine", stop, timeout_s)
        with (
            _locked(self.folder / "turnstile.lock", fcntl.LOCK_EX, patience),
            _locked(self.folder / "quiet.lock", fcntl.LOCK_EX, patience),
            self._holding("exclusive"),
        ):
            yield

    @property
    def _mode(self) -> str | None:
        return getattr(self._here, "mode", None)

    @contextlib.contextmanager
    def _holding(self, mode: str) -> Iterator[None]:
        self._here.mode = mode
        try:
            yield
        finally:
            self._here.mode = None


def node_folder() -> Path:
    """Folder on this machine's own disk for locks that every search of this user on this machine must see."""
    return Path(tempfile.gettempdir()) / f"autocut-{os.getuid()}"


class _Patience:
    """How long a taker waits."""

    def __init__(self, purpose: str, stop: Callable[[], bool] | None, timeout_s: float | None) -> None:
        self.has_limit = stop is not None or timeout_s is not None
        self._purpose = purpose
        self._stop = stop
        self._timeout_s = timeout_s
        self._until = None if timeout_s is None else time.monotonic() + timeout_s

    def check(self) -> None:
        if self._stop is not None and self._stop():
            raise DeadlineError(f"the time granted to the trial was up while it waited {self._purpose}")
        if self._until is not None and time.monotonic() >= self._until:
            raise DeadlineError(f"waiting {self._purpose} took longer than {self._timeout_s:g} s")


@contextlib.contextmanager
def _locked(path: Path, side: int, patience: _Patience) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _take(descriptor, side, patience)
        try:
            yield
        finally:
            # Not close alone: a forked child has the descriptor too and would keep the lock.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _take(descriptor: int, side: int, patience: _Patience) -> None:
    if not patience.has_limit:
        fcntl.flock(descriptor, side)
        return
    pause_s = _FIRST_PAUSE_S
    while True:
        patience.check()
        try:
            fcntl.flock(descriptor, side | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        else:
            return
