"""A clock that cannot be set: a search keeps its deadlines when the time of day changes."""

from __future__ import annotations

import functools
import platform
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SteadyClock:
    """Counts on from the time of day at which it was made, whatever that is set to later. It can be sent to other processes.

    Processes on the same `host` share the seconds since it was started. On another machine, where these are others, the time of day
    is read.
    """

    offset_s: float
    host: str

    @staticmethod
    def start() -> SteadyClock:
        """Begin with the time of day."""
        return SteadyClock(time.time() - time.monotonic(), _host())

    def __call__(self) -> float:
        """Return seconds, as `time.time()` would if it were never set."""
        return self.offset_s + time.monotonic() if self.host == _host() else time.time()


@functools.cache
def _host() -> str:
    """Return what names one start of one machine: containers on it have the same, whatever they are called."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text(encoding="ascii").strip() if path.exists() else platform.node()
