"""What of this machine may spoil timings: looked at once, before a search begins. Nothing is changed, and nothing is slow.

References:
    https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max), https://docs.kernel.org/admin-guide/pm/cpufreq.html
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from autocut.config import cpu_count
from autocut.counting import format_count
from autocut.errors import InputError

_BUSY = 0.3
"""Processors that other programs may use on a calm machine. One program that computes uses 1."""
_SWAPPED = 0.05
"""Of the memory: a machine that has moved more of it to disk is short of it."""
_CPUS = "sys/devices/system/cpu"


@dataclass(frozen=True)
class Audit:
    """What was found: `processors` that this process may use, and a sentence for each thing that may spoil timings."""

    processors: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class AuditedMachine:
    """Where the facts come from: `root` of the file system, `processors` that this process may run on, use of swap and GPUs."""

    root: Path = Path("/")
    processors: frozenset[int] = field(default_factory=lambda: frozenset(_allowed()))
    swapped_share: float = field(default_factory=lambda: psutil.swap_memory().used / max(1, psutil.virtual_memory().total))
    gpu_processes: int = field(default_factory=lambda: _gpu_processes())

    def quota(self) -> float | None:
        """Return the processors that the container's quota allows; None where there is no quota."""
        base, own = self.root / "sys/fs/cgroup", _cgroup_paths(self.root / "proc/self/cgroup")
        found = []
        for path in own:
            for folder in (base / path, *(base / path).parents):
                if not folder.is_relative_to(base):
                    break
                old = f"{_read(folder / 'cpu.cfs_quota_us')} {_read(folder / 'cpu.cfs_period_us')}"
                found += [_quota(_read(folder / "cpu.max")), _quota(old)]
        return min((quota for quota in found if quota is not None), default=None)

    def governors(self) -> list[str]:
        """Return the names of the frequency governors of the processors."""
        paths = (self.root / _CPUS / f"cpu{number}/cpufreq/scaling_governor" for number in sorted(self.processors))
        return sorted({name for path in paths if (name := _read(path))})

    def cores(self) -> int | None:
        """Return how many cores the processors are; None where the kernel does not tell."""
        siblings = {_read(self.root / _CPUS / f"cpu{number}/topology/thread_siblings_list") for number in self.processors}
        return None if "" in siblings else len(siblings)


def audit_machine(load: float | None = None, machine: AuditedMachine | None = None) -> Audit:
    """Look at this machine; `load` is the work of other programs in processors, where it was measured."""
    seen = machine or AuditedMachine()
    processors, quota, cores = len(seen.processors), seen.quota(), seen.cores()
    usable = processors if quota is None else max(1, min(processors, int(quota)))
    warnings, counted = [], format_count(processors, "processor")
    if load is not None and load > _BUSY:
        warnings.append(f"other programs use {load:.1f} of {counted}: timings spread, and some will be repeated")
    if quota is not None and quota < processors:
        warnings.append(f"this container may use {quota:g} of {counted}: above that the kernel stops it for a while, timings too")
    if slow := [name for name in seen.governors() if name != "performance"]:
        warnings.append(f"the frequency governor is {' and '.join(slow)}: a processor may be timed while it speeds up")
    if cores is not None and cores < processors:
        warnings.append(
            f"{counted} are {format_count(cores, 'core')}: timings are those of a processor whose sibling rests, "
            "and a busy server is slower"
        )
    if seen.swapped_share > _SWAPPED:
        warnings.append(f"{seen.swapped_share:.0%} of the memory was moved to disk: what is read back while it is timed looks slow")
    if seen.gpu_processes:
        warnings.append(f"a GPU of this machine is used by {format_count(seen.gpu_processes, 'other process', 'other processes')}")
    return Audit(usable, tuple(warnings))


def require_processors(threads: int, workers: int, processors: int) -> None:
    """Refuse more threads than processors: they would take turns, and every number would be that of an overloaded machine.

    Raises:
        InputError: `threads` times `workers` is more than `processors`.
    """
    if threads * workers <= processors:
        return
    fitting = processors // threads
    hint = f"--workers {fitting}" if fitting else f"--threads {processors} --workers 1"
    raise InputError(
        f"--threads times --workers must be at most the {format_count(processors, 'processor')} here, "
        f"got {threads} times {workers}",
        f"write {hint}",
    )


def _allowed() -> set[int]:
    return set(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else set(range(cpu_count()))


def _cgroup_paths(listing: Path) -> list[Path]:
    """Return the folders of this process's control groups below the root of the control groups, of version 1 and 2."""
    paths = [Path()]
    for line in _read(listing).splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers == "" or "cpu" in controllers.split(","):
            paths.append(Path(controllers) / path.lstrip("/"))
    return [*paths, Path("cpu")]


def _quota(text: str) -> float | None:
    found = re.fullmatch(r"(\d+)\s+(\d+)", text.strip())
    return int(found[1]) / int(found[2]) if found and int(found[2]) else None


def _gpu_processes() -> int:
    """Return how many other processes compute on the GPUs of NVIDIA here; 0 where its library is missing."""
    try:
        import pynvml
    except ImportError:
        return 0
    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        running = [process.pid for handle in handles for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)]
    except pynvml.NVMLError:
        return 0  # no driver
    return sum(pid != os.getpid() for pid in running)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
