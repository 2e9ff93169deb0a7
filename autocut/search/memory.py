"""How many jobs fit into the memory of this machine at a time, and whether a worker died for want of it."""

from __future__ import annotations

import math
from typing import Protocol

from autocut.budget import format_size
from autocut.search.state import SearchState

_TOO_MUCH = 1.01
"""Of several jobs that were too many together, each is taken to need this many times its share of the memory."""


class Memory(Protocol):
    """What the search needs to know of a machine's memory."""

    def available_bytes(self) -> float:
        """Return the bytes that new processes can get."""

    def oom_kills(self) -> int:
        """Return how many processes the kernel has killed so far because memory ran out."""


class EndlessMemory:
    """Memory that never runs out: of a simulation, or where a cluster's other machines run the jobs."""

    def available_bytes(self) -> float:
        """See `Memory`."""
        return math.inf

    def oom_kills(self) -> int:
        """See `Memory`."""
        return 0


class MemoryWatch:
    """Compares what jobs need with what is there. That is read while no job runs: a running one may still take more."""

    def __init__(self, state: SearchState, memory: Memory) -> None:
        self._state = state
        self._memory = memory
        self._capacity = math.inf
        self._kills = memory.oom_kills()
        self._has_told = False

    def has_room(self) -> bool:
        """Whether one more job fits beside those that run; the first job always may."""
        running = len(self._state.running)
        if not running:
            self._capacity = self._memory.available_bytes()
            return True
        return (running + 1) * self._state.planner.job_bytes() <= self._capacity

    def tell(self) -> str:
        """Say once that fewer jobs run than there are workers; empty afterwards."""
        told = "" if self._has_told else f"memory: {len(self._state.running)} at a time: {self._sizes()}"
        self._has_told = True
        return told

    def ran_out(self, jobs: int) -> str:
        """Return why a worker has died if the kernel killed one for want of memory, else nothing. `jobs` ran then.

        From now on fewer jobs run at a time.
        """
        kills = self._memory.oom_kills()
        if kills <= self._kills:
            return ""
        self._kills = kills
        told = f"out of memory: the kernel ended its worker; {self._sizes()}"
        if math.isfinite(self._capacity):
            self._state.planner.observe_memory(_TOO_MUCH * self._capacity / max(1, jobs))
        return told

    def _sizes(self) -> str:
        return f"a job may need {format_size(self._state.planner.job_bytes())}, and {format_size(self._capacity)} are there for all"
