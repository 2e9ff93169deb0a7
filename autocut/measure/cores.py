"""Cores that are free: a worker that computes takes them for a moment, and gives them back as soon as another worker starts.

Every worker owns as many cores as a served model has threads. A core without an owner is lent. The files are in the folder of the
quiet lock, and the kernel releases them when a process dies.

    core-N.lock ........ held by the worker that owns processor N, or by the process that has borrowed it
    cores-wanted.lock .. held shared by a worker that waits for a core of its own: who has borrowed one gives it back
    cores-lent.lock .... held shared by who has borrowed a core: where nobody has, a worker waits for none

Borrowing changes torch's number of threads and nothing else. A sum over more threads is added up in another order, so the last bits
of what is computed differ from run to run. A seed still decides shuffles, dropout masks and initial weights.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from autocut.node import node_folder, open_lock_file

_PAUSE_S = 0.02
_LONGEST_WAIT_S = 30.0
"""Who borrows gives back at the end of a batch, or of the model that another worker times."""


class Loan:
    """The free cores that this process has borrowed. A loop of work calls `renew` between two batches.

    Torch gets one thread more for each of them. `close` gives the cores back and restores the number of threads. What is timed must
    not run with a loan.

    Args:
        folder: Folder of the lock files. Default: `node_folder()`, one for the whole machine.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._own = torch.get_num_threads()
        self._folder = _made(folder)
        self._held = contextlib.ExitStack()
        self._borrowed = 0

    @property
    def threads(self) -> int:
        """Threads that torch may use now: those of the process itself, and one for each borrowed core."""
        return self._own + self._borrowed

    def renew(self, most: int | None = None) -> int:
        """Give every core back where a worker waits for one, else take those that are free, for at most `most` threads.

        Returns:
            `threads`.
        """
        most = len(_processors()) if most is None else most
        if self._borrowed and (self.threads > most or _is_held(self._folder / "cores-wanted.lock")):
            self.close()
            return self.threads  # taken again at the next batch, when the other worker has its core
        if self.threads < most:
            self._take(most - self.threads)
        return self.threads

    def close(self) -> None:
        """Give back what was borrowed; torch has the threads that it had before."""
        self._borrowed = 0
        torch.set_num_threads(self._own)
        self._held.close()

    def _take(self, most: int) -> None:
        if not self._borrowed:  # before the first core: who waits for one must see that it is lent
            self._held.enter_context(_held(self._folder / "cores-lent.lock", fcntl.LOCK_SH))
        self._borrowed += _take_free(self._folder, _processors(), most, self._held)
        if self._borrowed:
            torch.set_num_threads(self.threads)
        else:
            self._held.close()


@contextlib.contextmanager
def owned(count: int = 1, *, folder: Path | None = None) -> Iterator[int]:
    """Own `count` cores while a worker works, so that they are not lent. Who has borrowed one gives it back after its batch.

    Where there are more workers than cores, this one owns none or fewer and works all the same.

    Args:
        count: Cores to own: the threads that the worker computes with.
        folder: Folder of the lock files. Default: `node_folder()`.

    Yields:
        The number of cores that are owned now.
    """
    where = _made(folder)
    until = time.monotonic() + _LONGEST_WAIT_S
    with contextlib.ExitStack() as held:
        have = _take_free(where, _processors(), count, held)
        if have < count:
            with _held(where / "cores-wanted.lock", fcntl.LOCK_SH):
                while have < count and time.monotonic() < until:
                    # Seen before the cores are tried: a loan that ends between the two is found by the try.
                    lent = _is_held(where / "cores-lent.lock")
                    have += _take_free(where, _processors(), count - have, held)
                    if have == count or not lent:
                        break
                    time.sleep(_PAUSE_S)
        yield have


def _made(folder: Path | None) -> Path:
    where = node_folder() if folder is None else folder
    where.mkdir(parents=True, exist_ok=True)
    return where


def _processors() -> Sequence[int]:
    """Return the processors that this process may run on."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)


def _take_free(folder: Path, processors: Sequence[int], most: int, held: contextlib.ExitStack) -> int:
    """Hold the locks of up to `most` free processors until `held` is closed; return how many."""
    taken = 0
    for processor in processors:
        if taken == most:
            break
        with contextlib.suppress(BlockingIOError):
            held.enter_context(_held(folder / f"core-{processor}.lock", fcntl.LOCK_EX | fcntl.LOCK_NB))
            taken += 1
    return taken


def _is_held(path: Path) -> bool:
    """Whether a process holds `path`. Two processes that ask at the same moment may disturb each other: they ask again soon."""
    try:
        with _held(path, fcntl.LOCK_EX | fcntl.LOCK_NB):
            return False
    except BlockingIOError:
        return True


@contextlib.contextmanager
def _held(path: Path, side: int) -> Iterator[None]:
    descriptor = open_lock_file(path)
    try:
        fcntl.flock(descriptor, side)
        try:
            yield
        finally:
            # Closing is not enough: a forked child has the descriptor too and would keep the lock.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)
