"""Memory of this machine, or of the container that this process runs in."""

from __future__ import annotations

import re
from pathlib import Path

import psutil

_VMSTAT = Path("/proc/vmstat")
_CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current"), Path("/sys/fs/cgroup/memory.stat")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.stat"),
    ),
)
"""Limit, use and statistics of a container: version 2 of the kernel's control groups, then version 1."""


class MachineMemory:
    """The memory that processes started here can get."""

    def available_bytes(self) -> float:
        """Return the free bytes of the machine, or of the container if that has fewer. The cache of files counts as free."""
        left = [float(psutil.virtual_memory().available)]
        left += [limit - used + _number(stat, r"inactive_file (\d+)") for limit, used, stat in _limits()]
        return max(0.0, min(left))

    def oom_kills(self) -> int:
        """Return how many processes the kernel of this machine has killed for want of memory since it started."""
        return int(_number(_VMSTAT, r"(?m)^oom_kill (\d+)"))


def _limits() -> list[tuple[float, float, Path]]:
    """Limit and used bytes of this container, where it has a limit."""
    read = [(_number(limit, r"(\d+)"), _number(used, r"(\d+)"), stat) for limit, used, stat in _CGROUPS]
    return [row for row in read if row[0] > 0]


def _number(path: Path, pattern: str) -> float:
    """Return the first number that `pattern` finds in the file; 0 where there is none."""
    try:
        found = re.search(pattern, path.read_text(encoding="ascii", errors="replace"))
    except OSError:
        return 0.0
    return float(found[1]) if found else 0.0
