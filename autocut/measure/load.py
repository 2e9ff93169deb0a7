"""How much other programs work on this machine, read from the kernel's counters.

References:
    https://docs.kernel.org/filesystems/proc.html (/proc/stat)
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

_STAT = Path("/proc/stat")
_FEWEST_TICKS = 10
"""The kernel counts in ticks of 10 ms. Fewer of them tell nothing."""


@dataclass(frozen=True)
class _Reading:
    """Seconds since the machine started: of all processors, those that they worked, and those that this process worked."""

    passed: float
    worked: float
    own: float


class LoadMeter:
    """Counts, from its creation on, the work that is not of this process; time that a hypervisor took away counts too."""

    def __init__(self, stat: Path = _STAT) -> None:
        self._stat = stat
        self._processors = os.cpu_count() or 1
        self._started = time.monotonic()
        self._began = self._look()

    def read(self, at_least_s: float = 0.0) -> float | None:
        """Return how many processors other programs have used on average since the meter was made.

        It waits until the meter has run for `at_least_s`. None where the kernel does not tell, or where too little time has passed.
        """
        time.sleep(max(0.0, self._started + at_least_s - time.monotonic()))
        began, now = self._began, self._look()
        if began is None or now is None or now.passed - began.passed < _FEWEST_TICKS / _ticks_per_s():
            return None
        others = (now.worked - began.worked) - (now.own - began.own)
        return max(0.0, others / (now.passed - began.passed) * self._processors)

    def _look(self) -> _Reading | None:
        try:
            fields = self._stat.read_text().partition("\n")[0].split()
            user, nice, system, idle, waiting, *more = (int(field) / _ticks_per_s() for field in fields[1:9])
        except (OSError, ValueError):
            return None
        worked = user + nice + system + sum(more)  # interrupts and stolen time
        return _Reading(worked + idle + waiting, worked, sum(os.times()[:2]))


def _ticks_per_s() -> int:
    return os.sysconf("SC_CLK_TCK")
