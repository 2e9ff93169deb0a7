"""Kills a worker process that hangs. The clock counts work only: it stands still while another process keeps this one waiting."""

from __future__ import annotations

import contextlib
import faulthandler
import math
import os
import time
from collections.abc import Callable, Iterator
from functools import cache


class Watchdog:
    """Kills this process at `deadline`, or earlier if what it does takes longer than it is allowed to.

    `deadline` is a reading of `clock` (None: `time.time`). `faulthandler` kills it from a C thread, which works even while a
    library holds the interpreter lock.
    """

    def __init__(self, deadline: float, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock or time.time
        self._deadline = deadline
        self._until = math.inf
        self._is_paused = False
        self._arm()

    def allow(self, seconds: float) -> None:
        """Allow `seconds` of work from now on, whatever was allowed before."""
        self._until = self._clock() + seconds
        self._arm()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Wait for another process: this time is not work. The deadline stays."""
        if self._is_paused:
            yield
            return
        left_s = self._until - self._clock()
        self._is_paused, self._until = True, math.inf
        self._arm()
        try:
            yield
        finally:
            self._is_paused = False
            self.allow(left_s)

    def end(self) -> None:
        """Kill nothing any more."""
        faulthandler.cancel_dump_traceback_later()

    def _arm(self) -> None:
        seconds = min(self._deadline, self._until) - self._clock()
        faulthandler.dump_traceback_later(max(0.1, seconds), exit=True, file=_devnull())


@cache
def _devnull() -> int:
    return os.open(os.devnull, os.O_WRONLY)  # kept until the process ends, as faulthandler needs it
