"""No process outlives the one that wants its work: it would disturb measurements for nothing."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Have the kernel kill this process when `parent` dies, however it dies.

    A signal to the parent's group does not reach a process that leads a group of its own. Linux only; elsewhere this process runs
    until its work is done.

    Raises:
        SystemExit: `parent` died while this process was starting.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(f"process {parent}, which started this work, has ended")


def kill_group(pid: int) -> None:
    """Kill the process `pid` and the group that it leads, or is about to lead. The caller must not have waited for `pid` yet."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)
